//! One MQTT 3.1.1 client over any stream: packets out, packets in.

use crate::peer::{Hello, encoded, options, subscribe};
use motemq_codec::{
    Ack, Decoded, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode,
    decode,
};
use std::io;
use std::net::Ipv4Addr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection and what came of an unfinished packet.
#[derive(Debug)]
pub(super) struct Client<S> {
    stream: S,
    inbox: Vec<u8>,
    /// Where the next packet begins in `inbox`.
    start: usize,
}

/// What a load looks at in a packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Received {
    /// CONNACK: session present, code.
    ConnAck(bool, ReasonCode),
    /// PUBLISH: its packet id, if any.
    Publish(Option<PacketId>),
    /// PUBACK.
    PubAck(u16),
    /// Anything else.
    Other,
}

/// A TCP connection to the broker.
pub(super) async fn dial(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A PUBLISH as bytes; QoS 1 with a packet id, else QoS 0.
pub(super) fn publish(topic: &str, payload: &[u8], retain: bool, id: Option<u16>) -> Vec<u8> {
    let packet_id = id.and_then(PacketId::new);
    let packet = Packet::Publish(Publish {
        dup: false,
        qos: match packet_id {
            Some(_) => QoS::AtLeastOnce,
            None => QoS::AtMostOnce,
        },
        retain,
        topic,
        packet_id,
        properties: PublishProperties::default(),
        payload,
    });
    encoded(&packet, VERSION)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Connects; whether the session was present.
    pub(super) async fn connect(stream: S, id: &str, clean: bool) -> io::Result<(Self, bool)> {
        let mut client = Self {
            stream,
            inbox: Vec::new(),
            start: 0,
        };
        client.send(&Hello::v3(id, clean).bytes()).await?;
        match client.receive().await? {
            Received::ConnAck(is_present, ReasonCode::Success) => Ok((client, is_present)),
            other => Err(io::Error::other(format!("{other:?} for a CONNECT"))),
        }
    }

    /// Subscribes at QoS 1 to filters, and waits for the answer.
    pub(super) async fn subscribe(&mut self, filters: &[&str]) -> io::Result<()> {
        let list: Vec<_> = filters.iter().map(|filter| (*filter, options(1))).collect();
        self.send(&encoded(&subscribe(1, &list, None), VERSION))
            .await?;
        match self.receive().await? {
            Received::Other => Ok(()),
            other => Err(io::Error::other(format!("{other:?} for a SUBSCRIBE"))),
        }
    }

    /// Ends the connection as a client that means it.
    pub(super) async fn disconnect(mut self) -> io::Result<()> {
        self.send(&[0xe0, 0]).await?;
        self.stream.shutdown().await
    }

    /// Sends bytes.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Acknowledges a PUBLISH.
    pub(super) async fn acknowledge(&mut self, id: PacketId) -> io::Result<()> {
        let ack = Packet::PubAck(Ack::new(id, ReasonCode::Success));
        self.send(&encoded(&ack, VERSION)).await
    }

    /// Waits for a packet. Cancelling it loses nothing.
    pub(super) async fn receive(&mut self) -> io::Result<Received> {
        loop {
            if let Some(received) = self.parse()? {
                return Ok(received);
            }
            if self.start == self.inbox.len() {
                // Nothing is kept between packets: ten thousand clients wait with no buffer at all.
                self.inbox = Vec::new();
                self.start = 0;
                let mut bytes = [0; 4096];
                let count = self.stream.read(&mut bytes).await?;
                self.inbox
                    .extend_from_slice(bytes.get(..count).unwrap_or_default());
                if count > 0 {
                    continue;
                }
            } else if self.stream.read_buf(&mut self.inbox).await? > 0 {
                continue;
            }
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }

    fn parse(&mut self) -> io::Result<Option<Received>> {
        let bytes = self.inbox.get(self.start..).unwrap_or_default();
        let decoded = decode(bytes, VERSION, usize::MAX).map_err(io::Error::other)?;
        let Decoded::Packet { packet, length } = decoded else {
            return Ok(None);
        };
        let received = match packet {
            Packet::ConnAck(ack) => Received::ConnAck(ack.session_present, ack.code),
            Packet::Publish(publish) => Received::Publish(publish.packet_id),
            Packet::PubAck(ack) => Received::PubAck(ack.packet_id.get()),
            _ => Received::Other,
        };
        self.start += length;
        Ok(Some(received))
    }
}

const VERSION: ProtocolVersion = ProtocolVersion::V3_1_1;
