//! A plain MQTT connection without a link, for the verifier and for tidying up.

use crate::wire::{self, Packet, Reader, Session, WireError};
use crate::world::World;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a broker may take to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

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
    #[error("the broker sent bytes that are not MQTT 3.1.1: {0}")]
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
        _ => "unknown return code",
    }
}

/// A connection on which the broker has accepted us.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    reader: Reader,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    /// Connects; also says whether the broker had the session.
    pub(crate) async fn connect(
        world: &World,
        client_id: &str,
        session: Session,
    ) -> Result<(Self, bool), ClientError> {
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
    ) -> Result<(Self, bool), ClientError> {
        let tcp = TcpStream::connect(world.address).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &world.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let connector = TlsConnector::from(tls.device_config());
                let stream = connector.connect(tls.server_name.clone(), tcp).await?;
                Box::new(stream)
            }
        };
        let reader = Reader::default();
        let mut client = Self { stream, reader };
        let login = world.plan.login.as_ref();
        client
            .send(&wire::connect(client_id, session, 0, login)?)
            .await?;
        match client.receive().await? {
            Packet::ConnAck {
                session_present,
                code: 0,
            } => Ok((client, session_present)),
            Packet::ConnAck { code, .. } => Err(ClientError::Refused(code)),
            _ => Err(ClientError::Wire(WireError::Malformed(0x20))),
        }
    }

    /// Sends whole packets.
    pub(crate) async fn send(&mut self, packets: &[u8]) -> io::Result<()> {
        self.stream.write_all(packets).await?;
        self.stream.flush().await
    }

    /// Waits for the next packet. Dropping the future loses nothing.
    pub(crate) async fn receive(&mut self) -> Result<Packet, ClientError> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(packet) = self.reader.next_packet()? {
                return Ok(packet);
            }
            let length = self.stream.read(&mut buffer).await?;
            if length == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.reader.push(buffer.get(..length).unwrap_or_default());
        }
    }

    /// A packet that is here already.
    pub(crate) fn received(&mut self) -> Result<Option<Packet>, ClientError> {
        Ok(self.reader.next_packet()?)
    }
}

/// Ends the session that `client_id` may have on the broker; a failure leaves it there.
pub(crate) async fn forget_session(world: &World, client_id: &str) -> Result<(), ClientError> {
    let (mut client, _) = Client::connect(world, client_id, Session::Clean).await?;
    client.send(&wire::disconnect()?).await?;
    Ok(())
}
