//! One connection of a device: MQTT bytes, TLS, the link and the socket.
//!
//! Bytes touch the socket only after they crossed the link, and reach the device only after they crossed it the
//! other way. No more than [`RECEIVE_WINDOW_BYTES`] wait on the way down: beyond that the broker's socket backs up.
//!
//! Does not know: schedules, readings, when to connect.

use crate::connects::Handshake;
use crate::link::{Direction, Link};
use crate::wire::{self, Reader, WireError};
use rustls::{ClientConnection, HandshakeKind};
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a device's TCP stack would hold for it.
const RECEIVE_WINDOW_BYTES: usize = 8 * 1024;

/// An open connection.
pub(crate) struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    pub(crate) reader: Reader,
    /// What has crossed the link and waits for the socket.
    pub(crate) outgoing: Vec<u8>,
    /// `None` once the broker has accepted us, else until when it may.
    pub(crate) answer_by: Option<Duration>,
    /// When the device learns that the broker closed its side, after what that sent before; `None` while it is open.
    pub(crate) ends_at: Option<Duration>,
}

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum Failure {
    Io,
    Tls,
    Wire,
    Refused(u8),
    Unanswered,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl From<rustls::Error> for Failure {
    fn from(_: rustls::Error) -> Self {
        Self::Tls
    }
}

impl From<WireError> for Failure {
    fn from(_: WireError) -> Self {
        Self::Wire
    }
}

impl Connection {
    /// A connection that waits for CONNACK until `answer_by`.
    pub(crate) fn new(
        stream: TcpStream,
        tls: Option<Box<ClientConnection>>,
        answer_by: Duration,
    ) -> Self {
        Self {
            stream,
            tls,
            reader: Reader::default(),
            outgoing: Vec::new(),
            answer_by: Some(answer_by),
            ends_at: None,
        }
    }

    /// The device's side sends MQTT bytes.
    pub(crate) fn write(
        &mut self,
        link: &mut Link,
        now: Duration,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        match &mut self.tls {
            None => link.push(Direction::Up, now, bytes),
            Some(tls) => tls.writer().write_all(bytes)?,
        }
        self.flush_tls(link, now)
    }

    /// Puts what TLS wants to send on the link.
    pub(crate) fn flush_tls(&mut self, link: &mut Link, now: Duration) -> Result<(), Failure> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        let mut records = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut records)?;
        }
        link.push(Direction::Up, now, &records);
        Ok(())
    }

    /// The device's side receives bytes.
    pub(crate) fn decrypt(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        let Some(tls) = &mut self.tls else {
            self.reader.push(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            let state = tls.process_new_packets()?;
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            if !plain.is_empty() {
                tls.reader().read_exact(&mut plain)?;
                self.reader.push(&plain);
            }
            if state.peer_has_closed() {
                // It learned so from bytes that have crossed the link.
                self.ends_at = Some(Duration::ZERO);
            }
        }
        Ok(())
    }

    pub(crate) fn link_to_socket(
        &mut self,
        link: &mut Link,
        now: Duration,
        context: &mut Context<'_>,
    ) -> Result<(), Failure> {
        loop {
            if self.outgoing.is_empty() {
                let Some(segment) = link.pop(Direction::Up, now) else {
                    return Ok(());
                };
                self.outgoing = segment.into();
            }
            let stream = Pin::new(&mut self.stream);
            match stream.poll_write(context, &self.outgoing) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(written)) => drop(self.outgoing.drain(..written)),
                Poll::Ready(Err(_)) => {
                    self.outgoing.clear();
                    self.end(link, now);
                }
            }
            if self.outgoing.is_empty() {
                self.outgoing = Vec::new();
            }
        }
    }

    pub(crate) fn socket_to_link(
        &mut self,
        link: &mut Link,
        now: Duration,
        context: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Result<(), Failure> {
        while self.ends_at.is_none() && link.queued_bytes(Direction::Down) < RECEIVE_WINDOW_BYTES {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    link.push(Direction::Down, now, buffer.filled());
                }
                Poll::Ready(_) => self.end(link, now),
            }
        }
        Ok(())
    }

    /// The broker is gone; the device hears of it by a segment without payload, which crosses no dead link.
    fn end(&mut self, link: &mut Link, now: Duration) {
        if self.ends_at.is_none() {
            self.ends_at = Some(if link.is_dead(now) {
                Duration::MAX
            } else {
                link.carry(Direction::Down, now, 0)
            });
        }
    }

    /// Breaks off without a word: the broker sees a reset.
    pub(crate) fn break_off(self) {
        // Without it the broker sees the end of the stream.
        let _ = self.stream.set_zero_linger();
    }

    /// How the connection was set up.
    pub(crate) fn handshake(&self) -> Handshake {
        let kind = self.tls.as_ref().map(|tls| tls.handshake_kind());
        match kind {
            None => Handshake::Plain,
            Some(Some(HandshakeKind::Resumed)) => Handshake::Resumed,
            Some(_) => Handshake::Full,
        }
    }

    /// Says goodbye without the link's delays.
    pub(crate) fn say_farewell(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let mut bytes = wire::disconnect()?;
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(&bytes)?;
            tls.send_close_notify();
            bytes.clear();
            while tls.wants_write() {
                tls.write_tls(&mut bytes)?;
            }
        }
        match Pin::new(&mut self.stream).poll_write(context, &bytes) {
            Poll::Ready(Err(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }
}
