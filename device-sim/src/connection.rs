//! One connection of a device: MQTT bytes, WebSocket, TLS, the link and the socket.
//!
//! Bytes touch the socket only after they crossed the link, and reach the device only after they crossed it the
//! other way. No more than [`RECEIVE_WINDOW_BYTES`] wait on the way down: beyond that the broker's socket backs up.
//!
//! Does not know: schedules, readings, when to connect.

use crate::connects::Handshake;
use crate::keep_alive::{Demand, KeepAlive};
use crate::link::{Direction, Link};
use crate::websocket::WebSocket;
use crate::wire::{self, Reader, Version, WireError};
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
    websocket: Option<Box<WebSocket>>,
    pub(crate) reader: Reader,
    /// Counts from when the broker accepted us.
    keep_alive: Option<KeepAlive>,
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
    /// The broker did not answer in time.
    Unanswered,
    /// The broker said why it ended the connection.
    Disconnected(u8),
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
        websocket: Option<Box<WebSocket>>,
        version: Version,
        answer_by: Duration,
    ) -> Self {
        Self {
            stream,
            tls,
            websocket,
            reader: Reader::new(version),
            keep_alive: None,
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
        match &mut self.websocket {
            None => self.write_secured(link, now, bytes),
            Some(websocket) => {
                websocket.send(bytes)?;
                self.flush(link, now)
            }
        }
    }

    /// Puts what WebSocket and TLS want to send on the link.
    pub(crate) fn flush(&mut self, link: &mut Link, now: Duration) -> Result<(), Failure> {
        let websocket = self.websocket.as_mut();
        let frames = websocket.map(|websocket| websocket.take_outgoing());
        self.write_secured(link, now, &frames.unwrap_or_default())
    }

    fn write_secured(
        &mut self,
        link: &mut Link,
        now: Duration,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let Some(tls) = &mut self.tls else {
            link.push(Direction::Up, now, bytes);
            return Ok(());
        };
        tls.writer().write_all(bytes)?;
        let mut records = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut records)?;
        }
        link.push(Direction::Up, now, &records);
        Ok(())
    }

    /// The device's side receives bytes.
    pub(crate) fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        if self.tls.is_none() {
            return self.receive_plain(bytes);
        }
        while !bytes.is_empty() {
            let Some(tls) = &mut self.tls else {
                return Ok(());
            };
            tls.read_tls(&mut bytes)?;
            let state = tls.process_new_packets()?;
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            if state.peer_has_closed() {
                // It learned so from bytes that have crossed the link.
                self.ends_at = Some(Duration::ZERO);
            }
            if !plain.is_empty() {
                tls.reader().read_exact(&mut plain)?;
                self.receive_plain(&plain)?;
            }
        }
        Ok(())
    }

    fn receive_plain(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let reader = &mut self.reader;
        match &mut self.websocket {
            None => reader.push(bytes),
            Some(websocket) => {
                websocket.receive(bytes, |bytes| reader.push(bytes))?;
                if websocket.is_ended() {
                    self.ends_at = Some(Duration::ZERO);
                }
            }
        }
        Ok(())
    }

    /// The broker has accepted us: from now on silence counts.
    pub(crate) fn accepted(&mut self, keep_alive: KeepAlive) {
        self.answer_by = None;
        self.keep_alive = Some(keep_alive);
    }

    /// A packet left; `is_owed` says whether the broker owes us an answer.
    pub(crate) fn sent(&mut self, now: Duration, is_owed: bool) {
        if let Some(keep_alive) = &mut self.keep_alive {
            keep_alive.sent(now, is_owed);
        }
    }

    /// A packet arrived.
    pub(crate) fn heard(&mut self, now: Duration, is_answer_to_ping: bool, is_owed: bool) {
        if let Some(keep_alive) = &mut self.keep_alive {
            keep_alive.heard(now, is_answer_to_ping, is_owed);
        }
    }

    /// Pings when it is time; fails when the broker is silent for too long.
    pub(crate) fn keep_alive(&mut self, link: &mut Link, now: Duration) -> Result<(), Failure> {
        if self.answer_by.is_some_and(|answer_by| answer_by <= now) {
            return Err(Failure::Unanswered);
        }
        let keep_alive = self.keep_alive.as_mut();
        match keep_alive.map_or(Demand::Nothing, |keep_alive| keep_alive.demand(now)) {
            Demand::Nothing => Ok(()),
            Demand::Ping => self.write(link, now, &wire::pingreq()?),
            Demand::GiveUp => Err(Failure::Unanswered),
        }
    }

    /// When [`Connection::keep_alive`] has something to do.
    pub(crate) fn keep_alive_at(&self) -> Option<Duration> {
        let keep_alive = self.keep_alive.as_ref();
        self.answer_by
            .or_else(|| keep_alive.and_then(KeepAlive::next_at))
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
        if let Some(websocket) = &mut self.websocket {
            websocket.send(&bytes)?;
            bytes = websocket.take_outgoing();
        }
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
