//! One connection of the client: packets in and out, and the keep-alive.
//!
//! Sending queues; [`Link::next`] and [`Link::drain`] move bytes both ways, so neither side waits for the other for ever. Both may be
//! dropped at any point without losing bytes.
//!
//! Does not know: what the packets are for.

use super::tls::Trust;
use super::{Failure, failure, words};
use motemq_codec::{
    Ack, AckKind, Decoded, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, decode,
};
use std::fmt;
use std::io;
use std::num::NonZeroU16;
use std::time::Duration;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Where to connect.
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Trust>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection.
pub(super) struct Link {
    target: Target,
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    version: ProtocolVersion,
    /// Read and not yet decoded.
    input: Vec<u8>,
    output: Vec<u8>,
    is_unflushed: bool,
    keep_alive: Option<Duration>,
    /// When a PINGREQ is due, or, after one, its answer.
    ping_at: Instant,
    is_pinging: bool,
    /// What the broker said last about a refusal.
    reason: Option<String>,
    is_debug: bool,
}

/// What the broker said.
#[derive(Debug)]
pub(super) enum Got {
    ConnAck {
        code: ReasonCode,
        receive_maximum: u16,
        qos_max: QoS,
        packet_bytes_max: usize,
        keep_alive_s: Option<u16>,
    },
    Publish(Message),
    Ack(AckKind, PacketId, ReasonCode),
    SubAck(Vec<u8>),
    PingResp,
    Other,
}

/// A delivery.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) qos: QoS,
    pub(super) dup: bool,
    pub(super) retain: bool,
    pub(super) packet_id: Option<PacketId>,
    pub(super) message_expiry_s: Option<u32>,
    pub(super) content_type: Option<String>,
    pub(super) response_topic: Option<String>,
    pub(super) correlation_data: Option<Vec<u8>>,
    pub(super) user_properties: Vec<(String, String)>,
}

impl Link {
    pub(super) async fn open(
        target: Target,
        version: ProtocolVersion,
        is_debug: bool,
    ) -> Result<Self, Failure> {
        let stream = target.connect().await?;
        let (reader, writer) = tokio::io::split(stream);
        Ok(Self {
            target,
            reader,
            writer,
            version,
            input: Vec::new(),
            output: Vec::new(),
            is_unflushed: false,
            keep_alive: None,
            ping_at: Instant::now(),
            is_pinging: false,
            reason: None,
            is_debug,
        })
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Sends a PINGREQ when nothing else was sent for so long.
    pub(super) fn keep_alive(&mut self, seconds: u16) {
        self.keep_alive = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        self.put_ping_off();
    }

    fn put_ping_off(&mut self) {
        if let Some(keep_alive) = self.keep_alive
            && !self.is_pinging
        {
            self.ping_at = Instant::now() + keep_alive;
        }
    }

    /// Queues a packet.
    pub(super) fn send(&mut self, packet: &Packet<'_>) -> Result<(), Failure> {
        if self.is_debug {
            eprintln!("-> {}", described(packet));
        }
        if let Err(error) = packet.encode(self.version, &mut self.output) {
            return failure(format!("this cannot be sent: {error}"));
        }
        self.put_ping_off();
        Ok(())
    }

    /// What the broker says next.
    pub(super) async fn next(&mut self) -> Result<Got, Failure> {
        loop {
            if let Some(got) = self.take()? {
                return Ok(got);
            }
            self.step().await?;
        }
    }

    /// Whether much is queued, and [`drain`](Self::drain) should come before more.
    pub(super) fn is_full(&self) -> bool {
        self.output.len() >= OUTPUT_BYTES
    }

    /// Until everything is sent.
    pub(super) async fn drain(&mut self) -> Result<(), Failure> {
        while !self.output.is_empty() || self.is_unflushed {
            self.step().await?;
        }
        Ok(())
    }

    /// After DISCONNECT: until the broker has closed the connection, so that nothing sent is lost on the way.
    pub(super) async fn finish(&mut self) {
        if self.drain().await.is_err() || self.writer.shutdown().await.is_err() {
            return;
        }
        let mut rest = [0; 4_096];
        while self
            .reader
            .read(&mut rest)
            .await
            .is_ok_and(|count| count > 0)
        {}
    }

    /// What the broker said about its last refusal, to stand behind the reason code.
    pub(super) fn reason(&self) -> String {
        match &self.reason {
            Some(reason) => format!(": {}", super::super::trace::clean(reason)),
            None => String::new(),
        }
    }

    /// Whether what came looks like TLS.
    pub(super) fn has_seen_tls(&self) -> bool {
        self.input.starts_with(&[0x15, 0x03])
    }

    async fn step(&mut self) -> Result<(), Failure> {
        tokio::select! {
            read = self.reader.read_buf(&mut self.input) => match read {
                Ok(0) => return failure("the broker has closed the connection"),
                Ok(_) => {}
                Err(error) => return failure(self.target.explain(&error)),
            },
            written = push(&mut self.writer, &self.output), if !self.output.is_empty() || self.is_unflushed => {
                match written {
                    Ok(count) => {
                        self.is_unflushed = count > 0;
                        self.output.drain(..count);
                    }
                    // What the broker said before it closed says more.
                    Err(_) => {
                        self.is_unflushed = false;
                        self.output.clear();
                    }
                }
            }
            () = tokio::time::sleep_until(self.ping_at), if self.keep_alive.is_some() => self.ping()?,
        }
        Ok(())
    }

    fn ping(&mut self) -> Result<(), Failure> {
        if self.is_pinging {
            return failure("the broker does not answer PINGREQ: the network may be gone");
        }
        self.send(&Packet::PingReq)?;
        self.is_pinging = true;
        self.ping_at = Instant::now() + PING_TIME;
        Ok(())
    }

    /// The next packet that is there.
    fn take(&mut self) -> Result<Option<Got>, Failure> {
        let (got, reason, length) = match decode(&self.input, self.version, usize::MAX) {
            Ok(Decoded::Incomplete { .. }) => return Ok(None),
            Ok(Decoded::Packet { packet, length }) => {
                if self.is_debug {
                    eprintln!("<- {}", described(&packet));
                }
                let reason = reason_of(&packet).map(str::to_owned);
                if let Packet::Disconnect(disconnect) = &packet {
                    let reason = reason.map(|reason| format!(": {reason}"));
                    return failure(format!(
                        "the broker has ended the connection: {}{}",
                        words(disconnect.code),
                        reason.unwrap_or_default()
                    ));
                }
                (got(&packet), reason, length)
            }
            Err(_) if self.has_seen_tls() => return failure("the port speaks TLS"),
            Err(error) => {
                return failure(format!("the broker sent what is no MQTT: {error}"));
            }
        };
        self.input.drain(..length);
        if reason.is_some() {
            self.reason = reason;
        }
        if self.is_pinging && matches!(got, Got::PingResp) {
            self.is_pinging = false;
            self.put_ping_off();
        }
        Ok(Some(got))
    }
}

/// Writes some of it; what is left to do when there is nothing is to flush.
async fn push(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<usize> {
    match bytes {
        [] => writer.flush().await.map(|()| 0),
        bytes => writer.write(bytes).await,
    }
}

impl Target {
    async fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        let addresses = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let addresses: Vec<_> = match addresses {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                return failure(format!(
                    "there is no host {} ({error}): look at -h",
                    self.host
                ));
            }
        };
        let socket = match TcpStream::connect(&*addresses).await {
            Ok(socket) => socket,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return failure(format!(
                    "nobody listens at {self}: is the broker running, and -p right?"
                ));
            }
            Err(error) => return failure(format!("{self} cannot be reached: {error}")),
        };
        let _ = socket.set_nodelay(true);
        Ok(match &self.tls {
            None => Box::new(socket),
            Some(trust) => Box::new(trust.connect(socket, &self.host).await?),
        })
    }

    fn explain(&self, error: &io::Error) -> String {
        match &self.tls {
            Some(trust) => trust.explain(error, &self.host),
            None => format!("the connection is lost: {error}"),
        }
    }
}

fn got(packet: &Packet<'_>) -> Got {
    match packet {
        Packet::ConnAck(connack) => {
            let properties = &connack.properties;
            let packet_bytes_max = properties.packet_bytes_max;
            Got::ConnAck {
                code: connack.code,
                receive_maximum: properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get),
                qos_max: properties.qos_max.unwrap_or(QoS::ExactlyOnce),
                packet_bytes_max: packet_bytes_max.map_or(usize::MAX, |bytes| bytes.get() as usize),
                keep_alive_s: properties.keep_alive_s,
            }
        }
        Packet::Publish(publish) => {
            let forwarded = publish.properties.forwarded;
            let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
            Got::Publish(Message {
                topic: publish.topic.to_owned(),
                payload: publish.payload.to_vec(),
                qos: publish.qos,
                dup: publish.dup,
                retain: publish.retain,
                packet_id: publish.packet_id,
                message_expiry_s: publish.properties.message_expiry_s,
                content_type: forwarded.content_type().map(str::to_owned),
                response_topic: forwarded.response_topic().map(str::to_owned),
                correlation_data: forwarded.correlation_data().map(<[u8]>::to_vec),
                user_properties: forwarded.user_properties().iter().map(owned).collect(),
            })
        }
        Packet::PubAck(ack) => Got::Ack(AckKind::PubAck, ack.packet_id, ack.code),
        Packet::PubRec(ack) => Got::Ack(AckKind::PubRec, ack.packet_id, ack.code),
        Packet::PubRel(ack) => Got::Ack(AckKind::PubRel, ack.packet_id, ack.code),
        Packet::PubComp(ack) => Got::Ack(AckKind::PubComp, ack.packet_id, ack.code),
        Packet::SubAck(suback) => Got::SubAck(suback.codes.to_vec()),
        Packet::PingResp => Got::PingResp,
        _ => Got::Other,
    }
}

fn reason_of<'a>(packet: &Packet<'a>) -> Option<&'a str> {
    match packet {
        Packet::ConnAck(connack) => connack.properties.reason_string,
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            ack.reason_string
        }
        Packet::SubAck(suback) => suback.reason_string,
        Packet::Disconnect(disconnect) => disconnect.reason_string,
        _ => None,
    }
}

/// A packet in a few words; never a password.
fn described(packet: &Packet<'_>) -> String {
    let id = |id: PacketId| format!("id={id}");
    let ack =
        |name: &str, ack: &Ack<'_>| format!("{name} {} {}", id(ack.packet_id), ack.code.words());
    match packet {
        Packet::Connect(connect) => format!("CONNECT {}", connect.client_id),
        Packet::ConnAck(connack) => format!("CONNACK {}", connack.code.words()),
        Packet::Publish(publish) => format!(
            "PUBLISH qos{} {} {} B",
            publish.qos as u8,
            publish.topic,
            publish.payload.len()
        ),
        Packet::PubAck(of) => ack("PUBACK", of),
        Packet::PubRec(of) => ack("PUBREC", of),
        Packet::PubRel(of) => ack("PUBREL", of),
        Packet::PubComp(of) => ack("PUBCOMP", of),
        Packet::Subscribe(subscribe) => {
            let filters: Vec<_> = subscribe.filters.iter().map(|wish| wish.filter).collect();
            format!("SUBSCRIBE {}", filters.join(" "))
        }
        Packet::SubAck(suback) => format!("SUBACK {:?}", suback.codes),
        Packet::Unsubscribe(_) => "UNSUBSCRIBE".to_owned(),
        Packet::UnsubAck(_) => "UNSUBACK".to_owned(),
        Packet::PingReq => "PINGREQ".to_owned(),
        Packet::PingResp => "PINGRESP".to_owned(),
        Packet::Disconnect(disconnect) => format!("DISCONNECT {}", disconnect.code.words()),
        Packet::Auth(_) => "AUTH".to_owned(),
    }
}

/// Bytes queued after which sending goes before more.
const OUTPUT_BYTES: usize = 64 << 10;
/// How long the answer to PINGREQ may take.
const PING_TIME: Duration = Duration::from_secs(20);
