//! A scripted client on a real socket: bytes out, packets in, one step after the other.
//!
//! Every wait ends: with a packet, with the end of the connection, or with a panic after [`PATIENCE`]. The patience is long
//! because the machine may be busy; nothing here measures it but [`Stopwatch`].
//!
//! Does not know: what the broker should answer.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a script that goes wrong must stop at once"
)]

use crate::peer::{Got, GotPublish, Hello, encoded, got, packet_id, publish, subscribe};
use motemq_codec::{Ack, AckKind, Decoded, Packet, ProtocolVersion, ReasonCode, decode};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A client's end of a connection.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    version: ProtocolVersion,
    inbox: Vec<u8>,
    start: usize,
    is_closed: bool,
}

impl Client {
    /// A connection on which nothing was said yet.
    #[must_use]
    pub fn open(port: u16, version: ProtocolVersion) -> Self {
        Self::over(Stream::Tcp(tcp(port)), version)
    }

    /// As [`open`](Self::open), over TLS: with a handshake that is still to come.
    #[must_use]
    pub fn open_tls(port: u16, config: Arc<ClientConfig>, version: ProtocolVersion) -> Self {
        let name = "localhost".try_into().expect("a name");
        let connection = ClientConnection::new(config, name).expect("a client");
        let stream = StreamOwned::new(connection, tcp(port));
        Self::over(Stream::Tls(Box::new(stream)), version)
    }

    fn over(stream: Stream, version: ProtocolVersion) -> Self {
        Self {
            stream,
            version,
            inbox: Vec::new(),
            start: 0,
            is_closed: false,
        }
    }

    /// Connects; says whether the session was present.
    #[must_use]
    pub fn connect_for(port: u16, hello: &Hello<'_>) -> (Self, bool) {
        let mut client = Self::open(port, hello.version);
        client.send_bytes(&hello.bytes());
        match client.take() {
            Some(Got::ConnAck(is_present, ReasonCode::Success)) => (client, is_present),
            other => panic!("{other:?} for the CONNECT of {}", hello.id),
        }
    }

    /// As [`connect_for`](Self::connect_for), where the connection may also end before CONNACK.
    #[must_use]
    pub fn connect_for_any(port: u16, hello: &Hello<'_>) -> (Self, bool) {
        let mut client = Self::open(port, hello.version);
        client.send_bytes(&hello.bytes());
        match client.take() {
            Some(Got::ConnAck(is_present, ReasonCode::Success)) => (client, is_present),
            None => (client, false),
            other => panic!("{other:?} for the CONNECT of {}", hello.id),
        }
    }

    /// Connects.
    #[must_use]
    pub fn connect(port: u16, hello: &Hello<'_>) -> Self {
        Self::connect_for(port, hello).0
    }

    /// Sends bytes. A broker that has hung up is no mistake of the script: the next read tells.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a packet.
    pub fn send(&mut self, packet: &Packet<'_>) {
        let bytes = encoded(packet, self.version);
        self.send_bytes(&bytes);
    }

    /// Sends a PUBLISH; `id` 0 for QoS 0.
    pub fn publish(&mut self, topic: &str, payload: &str, qos: u8, id: u16) {
        self.send(&publish(topic, payload, qos, id));
    }

    /// Subscribes to one filter and takes the SUBACK; its code. Deliveries before it are passed over.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
        self.send(&subscribe(1, &[(filter, crate::peer::options(qos))], None));
        loop {
            match self.take() {
                Some(Got::SubAck(1, codes)) => return codes.first().copied().expect("a code"),
                Some(Got::Publish(_)) => {}
                other => panic!("{other:?} for SUBSCRIBE {filter}"),
            }
        }
    }

    /// Waits for the end of the connection, whatever comes before.
    pub fn await_end(&mut self) {
        while !self.is_closed {
            assert!(self.read(PATIENCE), "the broker says nothing");
            self.inbox.clear();
        }
    }

    /// Sends one of the four acknowledgements.
    pub fn ack(&mut self, kind: AckKind, id: u16) {
        let ack = Ack::new(packet_id(id), ReasonCode::Success);
        self.send(&match kind {
            AckKind::PubAck => Packet::PubAck(ack),
            AckKind::PubRec => Packet::PubRec(ack),
            AckKind::PubRel => Packet::PubRel(ack),
            AckKind::PubComp => Packet::PubComp(ack),
        });
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) {
        let _ = self.stream.tcp().shutdown(Shutdown::Write);
    }

    /// Takes what waits for this client, as far as it waited when this was called; `None` when the connection ended.
    ///
    /// Two pings: deliveries leave behind the answer to the first and before that to the second.
    pub fn ping(&mut self) -> Option<Vec<Got>> {
        let mut before = Vec::new();
        for _ in 0..2 {
            self.send(&Packet::PingReq);
            loop {
                match self.take()? {
                    Got::PingResp => break,
                    other => before.push(other),
                }
            }
        }
        Some(before)
    }

    /// The next packet; `None` when the connection has ended.
    ///
    /// # Panics
    /// When neither comes within [`PATIENCE`].
    pub fn take(&mut self) -> Option<Got> {
        let packet = self.take_within(PATIENCE);
        assert!(
            packet.is_some() || self.is_closed,
            "the broker says nothing"
        );
        packet
    }

    /// The next packet, if one comes within `time`.
    pub fn take_within(&mut self, time: Duration) -> Option<Got> {
        let watch = Stopwatch::start();
        loop {
            if let Some(packet) = self.parse() {
                return Some(packet);
            }
            let left = time.checked_sub(watch.elapsed())?;
            if self.is_closed || !self.read(left) {
                return None;
            }
        }
    }

    /// The next packet, which is a PUBLISH.
    pub fn take_publish(&mut self) -> GotPublish {
        match self.take() {
            Some(Got::Publish(publish)) => *publish,
            other => panic!("{other:?} in place of a PUBLISH"),
        }
    }

    /// Everything up to the end of the connection.
    pub fn take_all(&mut self) -> Vec<Got> {
        std::iter::from_fn(|| self.take()).collect()
    }

    /// Whether the broker has hung up, as far as was read.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn parse(&mut self) -> Option<Got> {
        let bytes = self.inbox.get(self.start..).unwrap_or_default();
        match decode(bytes, self.version, usize::MAX) {
            Ok(Decoded::Packet { packet, length }) => {
                self.start += length;
                Some(got(&packet))
            }
            Ok(Decoded::Incomplete { .. }) => None,
            Err(error) => panic!("the broker wrote {bytes:02x?}: {error}"),
        }
    }

    /// Reads once; `false` when nothing came in time.
    fn read(&mut self, time: Duration) -> bool {
        self.inbox.drain(..self.start);
        self.start = 0;
        let time = Some(time.max(Duration::from_millis(1)));
        let socket = self.stream.tcp();
        socket.set_read_timeout(time).expect("an open socket");
        let mut bytes = [0; 64 << 10];
        match self.stream.read(&mut bytes) {
            Ok(count) if count > 0 => {
                self.inbox.extend(bytes.iter().take(count));
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                false
            }
            _ => {
                self.is_closed = true;
                true
            }
        }
    }
}

fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection");
    stream.set_nodelay(true).expect("an open socket");
    stream
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}

/// Real time, for what must end and what must not take long.
#[derive(Copy, Clone, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts at zero.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "tests on real sockets run in real time; this is their only clock"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// The longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);
