//! A plain connection of MQTT 3.1.1 without a link, for the verifier, the commander and tidying up.
//!
//! Invariants:
//! - What is queued goes out while packets are awaited: a broker that writes before it reads holds nothing up.
//! - Dropping the future of any method loses no bytes in either direction.

use crate::websocket::WebSocket;
use crate::wire::{self, ConnAck, Connect, Packet, Reader, Session, Version, WireError};
use crate::world::World;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a broker may take to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A verifier reads what many devices sent.
const READ_BYTES: usize = 64 * 1024;

/// Why a connection could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TCP or TLS failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The broker did not answer in time.
    #[error("the broker did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    /// CONNECT was refused.
    #[error("the broker refused the connection: {}", refusal(*.0))]
    Refused(u8),
    /// The subscription was refused.
    #[error("the broker refused the verifier's subscription: allow it to subscribe to {0}")]
    Unsubscribed(String),
    /// The stream is not MQTT.
    #[error("the broker sent bytes that are not MQTT: {0}")]
    Wire(#[from] WireError),
}

/// What the code means with which a broker refused a connection or, in MQTT 5, a message.
pub(crate) fn refusal(code: u8) -> String {
    let (meaning, advice) = match code {
        1 => ("it does not speak MQTT 3.1.1", ""),
        2 => ("client id rejected", ""),
        3 => ("server unavailable", ""),
        4 => (
            "bad user name or password",
            "check --username and --password",
        ),
        5 => (
            "not authorized",
            "give --username and --password, or a client certificate",
        ),
        0x80 => ("unspecified error", ""),
        0x81 => ("malformed packet", ""),
        0x82 => ("protocol error", ""),
        0x83 => ("an error of its own", ""),
        0x84 => ("it does not speak MQTT 5", "use --mqtt-version 3.1.1"),
        0x85 => ("client id rejected", ""),
        0x86 => (
            "bad user name or password",
            "check --username and --password",
        ),
        0x87 => (
            "not authorized",
            "allow it, or give --username and --password, or a client certificate",
        ),
        0x88 => ("server unavailable", ""),
        0x89 => ("server busy", ""),
        0x8A => ("banned", ""),
        0x8B => ("server shutting down", ""),
        0x8C => ("bad authentication method", ""),
        0x8D => ("keep-alive timeout", ""),
        0x8E => ("session taken over by another client", ""),
        0x90 => ("topic name invalid", "choose another topic"),
        0x91 => ("packet identifier in use", ""),
        0x93 => ("receive maximum exceeded", ""),
        0x95 => ("packet too large", ""),
        0x96 => ("message rate too high", "choose a longer --every"),
        0x97 => ("quota exceeded", ""),
        0x99 => ("payload format invalid", ""),
        0x9A => ("retain not supported", ""),
        0x9B => ("it does not take this QoS", "choose a lower --qos"),
        0x9C => ("use another server", ""),
        0x9D => ("server moved", ""),
        0x9F => ("connection rate exceeded", "choose a lower --connect-rate"),
        _ => ("a reason that MQTT does not name", ""),
    };
    let code = match code {
        0..0x80 => format!("code {code}"),
        _ => format!("code {code:#04x}"),
    };
    match advice {
        "" => format!("{meaning} ({code})"),
        advice => format!("{meaning} ({code}): {advice}"),
    }
}

/// A connection on which the broker has accepted us.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    websocket: Option<WebSocket>,
    reader: Reader,
    outgoing: Vec<u8>,
    buffer: Box<[u8]>,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    /// Connects; also returns what the broker said.
    pub(crate) async fn connect(
        world: &World,
        client_id: &str,
        session: Session,
    ) -> Result<(Self, ConnAck), ClientError> {
        let connecting = Self::try_connect(world, client_id, session);
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(ClientError::Timeout),
        }
    }

    async fn try_connect(
        world: &World,
        client_id: &str,
        session: Session,
    ) -> Result<(Self, ConnAck), ClientError> {
        let tcp = TcpStream::connect(world.address).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match world.tls(client_id) {
            None => Box::new(tcp),
            Some((config, name)) => {
                let stream = TlsConnector::from(config).connect(name, tcp).await?;
                Box::new(stream)
            }
        };
        let endpoint = &world.plan.endpoint;
        let websocket = match endpoint.websocket_path {
            Some(_) => Some(WebSocket::new(endpoint)?),
            None => None,
        };
        let mut client = Self {
            stream,
            websocket,
            reader: Reader::new(Version::V4),
            outgoing: Vec::new(),
            buffer: vec![0; READ_BYTES].into(),
        };
        let connect = Connect {
            version: Version::V4,
            client_id,
            session,
            expiry_s: None,
            // As long as can be: rumqttd refuses to do without, and 27 hours need no ping.
            keep_alive_s: u16::MAX,
            login: world.plan.login.as_ref(),
        };
        client.queue(&connect.encode()?)?;
        match client.receive().await? {
            Packet::ConnAck(connack) if connack.code == 0 => Ok((client, connack)),
            Packet::ConnAck(connack) => Err(ClientError::Refused(connack.code)),
            _ => Err(ClientError::Wire(WireError::Malformed(0x20))),
        }
    }

    /// Sends whole packets while packets are awaited.
    pub(crate) fn queue(&mut self, packets: &[u8]) -> io::Result<()> {
        match &mut self.websocket {
            None => self.outgoing.extend_from_slice(packets),
            Some(websocket) => {
                websocket.send(packets)?;
                self.outgoing.extend(websocket.take_outgoing());
            }
        }
        Ok(())
    }

    /// Sends what is queued.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_flush(context)).await
    }

    /// Waits for the next packet.
    pub(crate) async fn receive(&mut self) -> Result<Packet, ClientError> {
        loop {
            if let Some(packet) = self.reader.next_packet()? {
                return Ok(packet);
            }
            poll_fn(|context| self.poll_receive(context)).await?;
        }
    }

    /// A packet that is here already.
    pub(crate) fn received(&mut self) -> Result<Option<Packet>, ClientError> {
        Ok(self.reader.next_packet()?)
    }

    /// Sends what it can, and reads once.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_flush(context) {
            return Poll::Ready(Err(error));
        }
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        let bytes = buffer.filled();
        if bytes.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        match &mut self.websocket {
            None => self.reader.push(bytes),
            Some(websocket) => {
                websocket.receive(bytes, |bytes| self.reader.push(bytes))?;
                if websocket.is_ended() {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                self.outgoing.extend(websocket.take_outgoing());
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let written = ready!(stream.poll_write(context, &self.outgoing))?;
            self.outgoing.drain(..written);
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }
}

/// Ends the session that `client_id` may have on the broker; a failure leaves it there.
pub(crate) async fn forget_session(world: &World, client_id: &str) -> Result<(), ClientError> {
    let (mut client, _) = Client::connect(world, client_id, Session::Clean).await?;
    client.queue(&wire::disconnect()?)?;
    Ok(client.flush().await?)
}
