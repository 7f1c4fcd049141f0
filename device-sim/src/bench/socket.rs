//! One connection of a bench: a non-blocking socket, TLS where asked for, and bytes that wait on either side.
//!
//! A packet is handed on where it was read; only the piece of a packet that a read cut off is copied.

use super::packets::{self, ConnAck, Malformed};
use mio::net::TcpStream;
use rustls::ClientConnection;
use std::fmt;
use std::io::{self, Read, Write};

/// More than this is not added to what a blocked socket has yet to send.
const OUT_BYTES_MAX: usize = 1024 * 1024;

/// Why a connection ended, or never was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// The system could not connect, read or write.
    Io(String),
    /// TLS failed.
    Tls(String),
    /// No CONNACK, or no SUBACK, in time.
    Timeout,
    /// CONNACK refused us, with this code.
    Refused(u8),
    /// SUBACK refused the subscription, with this code.
    Subscription(u8),
    /// SUBACK granted less than was asked for.
    Granted(u8),
    /// PUBACK, PUBREC or PUBCOMP refused a message, with this code; the connection lives on.
    Message(u8),
    /// The broker takes no messages of a QoS above this.
    MaximumQos(u8),
    /// The broker takes no packets of this size.
    PacketBytes(u32),
    /// The broker sent DISCONNECT, with this code.
    Disconnected(u8),
    /// The broker closed the connection.
    Closed,
    /// The broker sent something else than MQTT; the first byte of the packet.
    Malformed(u8),
}

impl fmt::Display for Down {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(problem) => write!(formatter, "{problem}"),
            Self::Tls(problem) => write!(formatter, "TLS: {problem}"),
            Self::Timeout => write!(formatter, "the broker did not answer in time: lower -R"),
            Self::Refused(code) => write!(
                formatter,
                "the broker refused the connection (code {code}): {}",
                packets::refusal(*code)
            ),
            Self::Subscription(code) => write!(
                formatter,
                "the broker refused the subscription (code {code}): {}",
                packets::refusal(*code)
            ),
            Self::Granted(qos) => write!(
                formatter,
                "the broker granted the subscription QoS {qos} only: lower -q"
            ),
            Self::Message(code) => write!(
                formatter,
                "the broker refused a message (code {code}): {}",
                packets::refusal(*code)
            ),
            Self::MaximumQos(qos) => {
                write!(formatter, "the broker takes QoS {qos} at most: lower -q")
            }
            Self::PacketBytes(bytes) => write!(
                formatter,
                "the broker takes packets of {bytes} bytes at most: lower -s"
            ),
            Self::Disconnected(code) => write!(
                formatter,
                "the broker disconnected us (code {code}): {}",
                packets::refusal(*code)
            ),
            Self::Closed => write!(formatter, "the broker closed the connection"),
            Self::Malformed(first) => write!(
                formatter,
                "the broker sent bytes that are not MQTT (a packet that begins with {first:#04x})"
            ),
        }
    }
}

impl From<Malformed> for Down {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.0)
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// TCP is being set up.
    Connecting,
    /// CONNECT is on its way, perhaps behind a TLS handshake.
    Greeting,
    /// The broker has accepted us.
    Up,
    /// It is over.
    Down,
}

/// One connection.
pub(super) struct Socket {
    stream: Option<TcpStream>,
    tls: Option<Box<ClientConnection>>,
    pub(super) state: State,
    /// When the connection should have been begun.
    pub(super) intended_ns: u64,
    /// The beginning of a packet whose end has not come.
    pub(super) partial: Vec<u8>,
    out: Vec<u8>,
    /// Bytes of `out` that the system has taken.
    out_start: usize,
    is_blocked: bool,
    pub(super) is_dirty: bool,
}

/// What a read gave.
pub(super) enum Received {
    /// So many bytes, and there may be more.
    More(usize),
    /// So many bytes, and no more for now.
    Last(usize),
}

impl Socket {
    /// A connection whose TCP handshake has begun; `connect` goes out as soon as it can.
    pub(super) fn new(
        stream: TcpStream,
        tls: Option<Box<ClientConnection>>,
        connect: Vec<u8>,
        intended_ns: u64,
    ) -> Self {
        Self {
            stream: Some(stream),
            tls,
            state: State::Connecting,
            intended_ns,
            partial: Vec::new(),
            out: connect,
            out_start: 0,
            is_blocked: false,
            is_dirty: false,
        }
    }

    /// A connection that could not even be begun.
    pub(super) fn failed(intended_ns: u64) -> Self {
        Self {
            stream: None,
            tls: None,
            state: State::Down,
            intended_ns,
            partial: Vec::new(),
            out: Vec::new(),
            out_start: 0,
            is_blocked: false,
            is_dirty: false,
        }
    }

    /// Where packets to be sent are appended.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub(super) fn out_bytes(&self) -> usize {
        self.out.len() - self.out_start
    }

    /// Whether more may be added to what waits.
    pub(super) fn has_room(&self) -> bool {
        self.state == State::Up && (!self.is_blocked || self.out_bytes() < OUT_BYTES_MAX)
    }

    /// Whether the system takes no more bytes for now.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// The socket has become writable: TCP stands, or there is room again. `true` when it was blocked and is not now.
    pub(super) fn writable(&mut self) -> Result<bool, Down> {
        let Some(stream) = &self.stream else {
            return Ok(false);
        };
        if self.state == State::Connecting {
            if let Some(error) = stream.take_error().map_err(io_error)? {
                return Err(io_error(error));
            }
            match stream.peer_addr() {
                Ok(_) => self.state = State::Greeting,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(io_error(error)),
            }
        }
        let was_blocked = self.is_blocked;
        self.flush()?;
        Ok(was_blocked && !self.is_blocked)
    }

    /// Sends what the system takes.
    pub(super) fn flush(&mut self) -> Result<(), Down> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        if self.state == State::Connecting {
            return Ok(());
        }
        if let Some(tls) = &mut self.tls {
            let unsent = self.out.get(self.out_start..).unwrap_or_default();
            tls.writer().write_all(unsent).map_err(io_error)?;
            self.out.clear();
            self.out_start = 0;
            self.is_blocked = false;
            while tls.wants_write() {
                match tls.write_tls(stream) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.is_blocked = true;
                        return Ok(());
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(io_error(error)),
                }
            }
            return Ok(());
        }
        while let Some(unsent @ [_, ..]) = self.out.get(self.out_start..) {
            match stream.write(unsent) {
                Ok(sent) => self.out_start += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    self.out.drain(..self.out_start);
                    self.out_start = 0;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error(error)),
            }
        }
        self.is_blocked = false;
        self.out.clear();
        self.out_start = 0;
        Ok(())
    }

    /// Reads into `buffer`, which is larger than what TLS may hold back.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<Received, Down> {
        let Some(stream) = &mut self.stream else {
            return Ok(Received::Last(0));
        };
        let Some(tls) = &mut self.tls else {
            return loop {
                match stream.read(buffer) {
                    Ok(0) => break Err(Down::Closed),
                    // A full buffer means that there may be more; a short read emptied the socket.
                    Ok(length) if length == buffer.len() => break Ok(Received::More(length)),
                    Ok(length) => break Ok(Received::Last(length)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        break Ok(Received::Last(0));
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break Err(io_error(error)),
                }
            };
        };
        match tls.read_tls(stream) {
            Ok(0) => return Err(Down::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Received::Last(0));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error(error)),
        }
        tls.process_new_packets()
            .map_err(|error| Down::Tls(error.to_string()))?;
        let length = match tls.reader().read(buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(io_error(error)),
        };
        if tls.wants_write() {
            self.flush()?;
        }
        Ok(Received::More(length))
    }

    /// Ends the connection and frees what it holds.
    pub(super) fn close(&mut self) {
        self.state = State::Down;
        self.stream = None;
        self.tls = None;
        self.partial = Vec::new();
        self.out = Vec::new();
        self.out_start = 0;
    }
}

fn io_error(error: io::Error) -> Down {
    Down::Io(match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: is the broker running?".to_owned(),
        io::ErrorKind::AddrNotAvailable => {
            "no source port or address left: give more source addresses with --ifaddr".to_owned()
        }
        _ => error.to_string(),
    })
}

impl From<io::Error> for Down {
    fn from(error: io::Error) -> Self {
        io_error(error)
    }
}

/// What the flow does with connections and packets.
pub(super) trait Handler {
    /// The broker has accepted a connection.
    fn up(
        &mut self,
        sockets: &mut super::engine::Sockets,
        token: usize,
        connack: &ConnAck,
        now_ns: u64,
    ) -> Result<(), Down>;

    /// A packet has come.
    fn packet(
        &mut self,
        sockets: &mut super::engine::Sockets,
        token: usize,
        frame: packets::Frame<'_>,
        now_ns: u64,
    ) -> Result<(), Down>;

    /// A socket that was blocked has room again.
    fn unblocked(&mut self, sockets: &mut super::engine::Sockets, token: usize, now_ns: u64);

    /// A connection has ended, or could not be made.
    fn down(&mut self, token: usize, was_up: bool, why: Down);
}
