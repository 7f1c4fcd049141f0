//! A blocking client connection: packets in and out, and nothing by itself.

use motemq_codec::{
    Ack, AckKind, Connect, ConnectProperties, Decoded, Packet, PacketId, ProtocolVersion, QoS,
    ReasonCode, decode,
};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// A connection with its CONNACK received.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    version: ProtocolVersion,
    inbox: Vec<u8>,
}

/// A packet from the broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// PUBLISH.
    Publish {
        /// The delivery's QoS.
        qos: QoS,
        /// Sent before.
        dup: bool,
        /// None at QoS 0.
        packet_id: Option<PacketId>,
        /// The topic.
        topic: String,
        /// The payload.
        payload: Vec<u8>,
    },
    /// One of the four acknowledgements.
    Ack(AckKind, PacketId, ReasonCode),
    /// CONNACK: session present, and the code.
    ConnAck(bool, ReasonCode),
    /// SUBACK with its codes.
    SubAck(Vec<u8>),
    /// DISCONNECT.
    Disconnect(ReasonCode),
    /// Anything else.
    Other,
}

impl Wire {
    /// Connects with a durable session; says whether the session was present.
    ///
    /// # Errors
    /// When the broker is not there, vanishes, or refuses.
    pub fn connect(
        port: u16,
        version: ProtocolVersion,
        client_id: &str,
    ) -> io::Result<(Self, bool)> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        let mut wire = Self {
            stream,
            version,
            inbox: Vec::new(),
        };
        let properties = ConnectProperties {
            session_expiry_s: (version == ProtocolVersion::V5).then_some(3600),
            ..ConnectProperties::default()
        };
        wire.send(&Packet::Connect(Box::new(Connect {
            version,
            client_id,
            clean_start: false,
            keep_alive_s: 0,
            username: None,
            password: None,
            will: None,
            properties,
        })))?;
        for _ in 0..CONNACK_READS {
            match wire.receive()? {
                None => {}
                Some(Received::ConnAck(is_present, ReasonCode::Success)) => {
                    return Ok((wire, is_present));
                }
                Some(other) => return Err(io::Error::other(format!("{other:?} for a CONNECT"))),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Sends a packet.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        packet
            .encode(self.version, &mut bytes)
            .map_err(io::Error::other)?;
        self.stream.write_all(&bytes)
    }

    /// Sends an acknowledgement.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn acknowledge(&mut self, kind: AckKind, packet_id: PacketId) -> io::Result<()> {
        let ack = Ack::new(packet_id, ReasonCode::Success);
        self.send(&match kind {
            AckKind::PubAck => Packet::PubAck(ack),
            AckKind::PubRec => Packet::PubRec(ack),
            AckKind::PubRel => Packet::PubRel(ack),
            AckKind::PubComp => Packet::PubComp(ack),
        })
    }

    /// The next packet; `None` when none came for a moment.
    ///
    /// # Errors
    /// When the connection is gone, or the broker sent what is not MQTT.
    pub fn receive(&mut self) -> io::Result<Option<Received>> {
        if let Some(received) = self.parse()? {
            return Ok(Some(received));
        }
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.inbox.extend_from_slice(&bytes[..count]);
                self.parse()
            }
            Err(error) if is_timeout(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(&mut self) -> io::Result<Option<Received>> {
        let decoded = decode(&self.inbox, self.version, usize::MAX);
        let (received, length) = match decoded.map_err(io::Error::other)? {
            Decoded::Incomplete { .. } => return Ok(None),
            Decoded::Packet { packet, length } => (Received::from_packet(&packet), length),
        };
        self.inbox.drain(..length);
        Ok(Some(received))
    }
}

impl Received {
    fn from_packet(packet: &Packet<'_>) -> Self {
        match packet {
            Packet::Publish(publish) => Self::Publish {
                qos: publish.qos,
                dup: publish.dup,
                packet_id: publish.packet_id,
                topic: publish.topic.to_owned(),
                payload: publish.payload.to_owned(),
            },
            Packet::PubAck(ack) => Self::Ack(AckKind::PubAck, ack.packet_id, ack.code),
            Packet::PubRec(ack) => Self::Ack(AckKind::PubRec, ack.packet_id, ack.code),
            Packet::PubRel(ack) => Self::Ack(AckKind::PubRel, ack.packet_id, ack.code),
            Packet::PubComp(ack) => Self::Ack(AckKind::PubComp, ack.packet_id, ack.code),
            Packet::ConnAck(ack) => Self::ConnAck(ack.session_present, ack.code),
            Packet::SubAck(ack) => Self::SubAck(ack.codes.to_owned()),
            Packet::Disconnect(disconnect) => Self::Disconnect(disconnect.code),
            _ => Self::Other,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

const READ_TIMEOUT: Duration = Duration::from_millis(2);
/// Reads after which a CONNACK is given up.
const CONNACK_READS: u32 = 5000;
