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

/// What a CONNACK's return code means.
pub(crate) fn refusal(code: u8) -> &'static str {
    match code {
        1 => "it does not speak MQTT 3.1.1 (code 1)",
        2 => "client id rejected (code 2)",
        3 => "server unavailable (code 3)",
        4 => "bad user name or password (code 4): check --username and --password",
        5 => "not authorized (code 5): give --username and --password, or a client certificate",
        0x84 => "it does not speak MQTT 5 (code 0x84): use --mqtt-version 3.1.1",
        0x85 => "client id rejected (code 0x85)",
        0x86 => "bad user name or password (code 0x86): check --username and --password",
        0x87 => {
            "not authorized (code 0x87): give --username and --password, or a client certificate"
        }
        0x88 => "server unavailable (code 0x88)",
        0x89 => "server busy (code 0x89)",
        0x8A => "banned (code 0x8a)",
        0x8B => "server shutting down (code 0x8b)",
        0x8D => "keep-alive timeout (code 0x8d)",
        0x8E => "session taken over by another client (code 0x8e)",
        0x93 => "receive maximum exceeded (code 0x93)",
        0x97 => "quota exceeded (code 0x97)",
        0x9B => "it does not take this QoS (code 0x9b): choose a lower --qos",
        0x9F => "connection rate exceeded (code 0x9f): choose a lower --connect-rate",
        _ => "for a reason that it gave as a number only",
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
