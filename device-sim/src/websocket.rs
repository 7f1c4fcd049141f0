//! MQTT over WebSocket, without a socket: bytes in, bytes out, framed by `tungstenite`.
//!
//! The upgrade request is the first that comes out; what is to be sent before its answer is there waits.
//!
//! Invariants:
//! - What is sent leaves as one binary message each; pings are answered.
//! - Only binary messages are taken [MQTT5-6.0.0-1], and only with the subprotocol `mqtt`, which `tungstenite` checks.
//!
//! Does not know: sockets, TLS, links, MQTT packets.

use crate::endpoint::Endpoint;
use std::io::{self, Read, Write};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::http::HeaderValue;
use tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message};

/// What a device reads at once: most messages are smaller.
const READ_BYTES: usize = 512;
/// Larger messages end the connection, as larger packets do.
const MESSAGE_BYTES_MAX: usize = 512 * 1024;

/// One connection's framing.
pub(crate) struct WebSocket {
    state: State,
}

enum State {
    /// The answer to the upgrade request is not complete; these bytes wait for it.
    Upgrading(Box<MidHandshake<ClientHandshake<Pipe>>>, Vec<u8>),
    Open(Box<tungstenite::WebSocket<Pipe>>),
    /// The peer said goodbye, or what it said made no sense.
    Ended,
}

/// What crosses the wire, in memory.
#[derive(Debug, Default)]
struct Pipe {
    incoming: Vec<u8>,
    /// How much of it was read.
    start: usize,
    outgoing: Vec<u8>,
}

impl WebSocket {
    /// Starts the upgrade.
    pub(crate) fn new(endpoint: &Endpoint) -> io::Result<Self> {
        let mut request = endpoint
            .to_string()
            .into_client_request()
            .map_err(io::Error::other)?;
        request
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mqtt"));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let handshake = ClientHandshake::start(Pipe::default(), request, Some(config));
        let handshake = Box::new(handshake.map_err(io::Error::other)?);
        let mut websocket = Self {
            state: State::Upgrading(handshake, Vec::new()),
        };
        websocket.upgrade()?;
        Ok(websocket)
    }

    /// Frames bytes of MQTT.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.state {
            State::Upgrading(_, waiting) => {
                waiting.extend_from_slice(bytes);
                Ok(())
            }
            State::Open(_) if bytes.is_empty() => Ok(()),
            State::Open(websocket) => websocket
                .send(Message::binary(bytes.to_vec()))
                .map_err(io::Error::other),
            State::Ended => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Takes bytes from the wire and passes on the bytes of MQTT in them.
    pub(crate) fn receive(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        if let Some(pipe) = self.pipe() {
            pipe.incoming.extend_from_slice(bytes);
        }
        self.upgrade()?;
        let State::Open(websocket) = &mut self.state else {
            return Ok(());
        };
        loop {
            match websocket.read() {
                Ok(Message::Binary(bytes)) => take(&bytes),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Text(_)) => return Err(io::ErrorKind::InvalidData.into()),
                Ok(Message::Close(_)) => break,
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Sends the answers to pings.
                    return websocket.flush().map_err(io::Error::other);
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        self.state = State::Ended;
        Ok(())
    }

    /// Whether the peer has closed.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// What is to go to the wire now.
    pub(crate) fn take_outgoing(&mut self) -> Vec<u8> {
        let pipe = self.pipe();
        pipe.map(|pipe| std::mem::take(&mut pipe.outgoing))
            .unwrap_or_default()
    }

    fn pipe(&mut self) -> Option<&mut Pipe> {
        match &mut self.state {
            State::Upgrading(handshake, _) => Some(handshake.get_mut().get_mut()),
            State::Open(websocket) => Some(websocket.get_mut()),
            State::Ended => None,
        }
    }

    /// Goes on with the upgrade, if that is not done.
    fn upgrade(&mut self) -> io::Result<()> {
        let state = std::mem::replace(&mut self.state, State::Ended);
        let State::Upgrading(handshake, waiting) = state else {
            self.state = state;
            return Ok(());
        };
        match handshake.handshake() {
            Ok((websocket, _)) => {
                self.state = State::Open(Box::new(websocket));
                self.send(&waiting)
            }
            Err(HandshakeError::Interrupted(handshake)) => {
                self.state = State::Upgrading(Box::new(handshake), waiting);
                Ok(())
            }
            Err(HandshakeError::Failure(error)) => Err(io::Error::other(error)),
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut unread = self.incoming.get(self.start..).unwrap_or_default();
        if unread.is_empty() {
            self.incoming = Vec::new();
            self.start = 0;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = unread.read(buffer)?;
        self.start += length;
        Ok(length)
    }
}

impl Write for Pipe {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tungstenite::handshake::derive_accept_key;

    #[test]
    fn the_upgrade_asks_for_mqtt_and_what_is_sent_meanwhile_follows_it() {
        let mut websocket = WebSocket::new(&endpoint()).unwrap();
        let request = String::from_utf8(websocket.take_outgoing()).unwrap();
        assert!(request.starts_with("GET /mqtt HTTP/1.1\r\nHost: localhost:8083\r\n"));
        assert!(request.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"));
        websocket.send(b"abc").unwrap();
        assert_eq!(websocket.take_outgoing(), b"");
        // tungstenite takes many tiny pieces for an attack.
        for bytes in answer(&request, "mqtt").as_bytes().chunks(5) {
            assert_eq!(receive(&mut websocket, bytes), b"");
        }
        assert_eq!(
            unmasked(&websocket.take_outgoing()),
            (0x82, b"abc".to_vec())
        );
    }

    #[test]
    fn messages_are_taken_however_the_bytes_are_split() {
        let stream = b"\x82\x03abc\x02\x01d\x80\x01e\x89\x01p\x82\x02fg";
        for piece in 1..=stream.len() {
            let mut websocket = open();
            let mut received = Vec::new();
            for bytes in stream.chunks(piece) {
                received.extend(receive(&mut websocket, bytes));
            }
            assert_eq!(received, b"abcdefg", "pieces of {piece}");
            let pong = unmasked(&websocket.take_outgoing());
            assert_eq!(pong, (0x8A, b"p".to_vec()));
        }
    }

    #[test]
    fn text_other_subprotocols_and_nonsense_end_the_connection() {
        let mut websocket = WebSocket::new(&endpoint()).unwrap();
        let request = String::from_utf8(websocket.take_outgoing()).unwrap();
        let answer = answer(&request, "chat");
        assert!(websocket.receive(answer.as_bytes(), |_| ()).is_err());
        for wrong in [&b"\x81\x01a"[..], b"\x83\x01a", b"\x82\x80\0\0\0\0"] {
            assert!(open().receive(wrong, |_| ()).is_err(), "{wrong:?}");
        }
        let mut websocket = WebSocket::new(&endpoint()).unwrap();
        let refusal = b"HTTP/1.1 404 Not Found\r\n\r\n";
        assert!(websocket.receive(refusal, |_| ()).is_err());
    }

    #[test]
    fn a_close_ends_the_connection() {
        let mut websocket = open();
        assert_eq!(receive(&mut websocket, b"\x82\x01x\x88\x02\x03\xe8"), b"x");
        assert!(websocket.is_ended());
        assert!(websocket.send(b"y").is_err());
    }

    fn open() -> WebSocket {
        let mut websocket = WebSocket::new(&endpoint()).unwrap();
        let request = String::from_utf8(websocket.take_outgoing()).unwrap();
        receive(&mut websocket, answer(&request, "mqtt").as_bytes());
        websocket
    }

    fn endpoint() -> Endpoint {
        "ws://localhost".parse().unwrap()
    }

    fn receive(websocket: &mut WebSocket, bytes: &[u8]) -> Vec<u8> {
        let mut received = Vec::new();
        websocket
            .receive(bytes, |bytes| received.extend_from_slice(bytes))
            .unwrap();
        received
    }

    fn answer(request: &str, protocol: &str) -> String {
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
            .unwrap();
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        )
    }

    /// First byte and payload of a short masked frame.
    fn unmasked(frame: &[u8]) -> (u8, Vec<u8>) {
        let mask = &frame[2..6];
        let bytes = frame[6..].iter().zip(mask.iter().cycle());
        (frame[0], bytes.map(|(byte, mask)| byte ^ mask).collect())
    }
}
