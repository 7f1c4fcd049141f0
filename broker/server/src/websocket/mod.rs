//! MQTT over WebSocket: a socket whose bytes travel in binary frames, for the driver a byte stream like any other.
//!
//! Promises:
//! - Reads are decoded in the caller's buffer; a connection at rest keeps no buffer of its own.
//! - Each write is one binary frame, its head and the caller's bytes written together, without a copy.
//! - A Ping is answered; of several that wait for the socket, the last. The end is a Close frame with the code that says
//!   why, and a moment of waiting for the client's own.
//!
//! Contract of `poll_write`: what was not taken must be offered again, with or without more behind it. The driver's output
//! buffer is such a caller.
//!
//! Does not know: MQTT, which socket or TLS is below.

#![deny(clippy::indexing_slicing)]

mod frame;
mod handshake;

pub use frame::Violation;
pub(crate) use handshake::{Agreed, HandshakeRules, Refusal, accept, agree, check_upgrade};

use crate::meters::{Layered, Layers};
use frame::{Decoder, End};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Counts the rules that clients of one listener broke.
#[derive(Debug, Default)]
pub struct ViolationCounters([AtomicU64; Violation::ALL.len()]);

impl ViolationCounters {
    fn count(&self, violation: Violation) {
        if let Some(counter) = self.0.get(violation as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often this rule was broken.
    #[must_use]
    pub fn of(&self, violation: Violation) -> u64 {
        let counter = self.0.get(violation as usize);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

/// A socket after its handshake.
#[derive(Debug)]
pub(crate) struct WebSocket<S> {
    socket: S,
    decoder: Decoder,
    counters: Arc<ViolationCounters>,
    /// Bytes that came with the handshake.
    early: Vec<u8>,
    /// The head of the frame being written.
    head: [u8; 10],
    head_written: u8,
    head_length: u8,
    /// Payload that this head has promised and the socket has not taken.
    frame_left: usize,
    /// Control frames on their way, whole or what is left of them.
    control: Vec<u8>,
    is_unflushed: bool,
    end: Ending,
}

/// How far the end has come.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Ending {
    Open,
    CloseQueued,
    /// Nothing more can be written; the client's Close is awaited.
    Shut,
}

impl<S: Layered> Layered for WebSocket<S> {
    fn layers(&self) -> Layers {
        self.socket.layers()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// `early` is what came behind the request head.
    pub(crate) fn new(
        socket: S,
        early: Vec<u8>,
        frame_bytes_max: u64,
        counters: Arc<ViolationCounters>,
    ) -> Self {
        Self {
            socket,
            decoder: Decoder::new(frame_bytes_max),
            counters,
            early,
            head: [0; 10],
            head_written: 0,
            head_length: 0,
            frame_left: 0,
            control: Vec::new(),
            is_unflushed: false,
            end: Ending::Open,
        }
    }

    /// Reads once into `area`; the outcome is how many bytes of data are at its start, `None` at the end of the stream.
    fn poll_decoded(
        &mut self,
        cx: &mut Context<'_>,
        area: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        if self.decoder.end().is_some() {
            return Poll::Ready(Ok(None));
        }
        let count = if self.early.is_empty() {
            let mut read = ReadBuf::new(area);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            read.filled().len()
        } else {
            let early = std::mem::take(&mut self.early);
            let count = early.len().min(area.len());
            let (now, later) = early.split_at(count);
            if let Some(area) = area.get_mut(..count) {
                area.copy_from_slice(now);
            }
            self.early = later.to_vec();
            count
        };
        if count == 0 {
            return Poll::Ready(Ok(None));
        }
        let kept = self
            .decoder
            .decode(area.get_mut(..count).unwrap_or_default());
        if let Some(End::Broken(violation)) = self.decoder.end() {
            self.counters.count(violation);
        }
        Poll::Ready(Ok(Some(kept)))
    }

    /// Between two frames, where control frames may go.
    fn is_between_frames(&self) -> bool {
        self.frame_left == 0 && self.head_written == self.head_length
    }

    /// Writes control frames as far as the socket takes them, and pushes them out.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.is_between_frames() {
            if self.control.is_empty() {
                match self.decoder.take_ping() {
                    Some(ping) if self.end == Ending::Open => self.control = frame::pong(&ping),
                    _ => break,
                }
            }
            match Pin::new(&mut self.socket).poll_write(cx, &self.control) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.control.drain(..count);
                    self.is_unflushed = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        if self.control.is_empty() {
            self.control = Vec::new();
        }
        if self.is_unflushed {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.is_unflushed = false,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_control(cx)?;
        // Frames without data must not keep the thread: after a few reads it is the others' turn.
        for _ in 0..READS_MAX {
            let kept = ready!(this.poll_decoded(cx, buf.initialize_unfilled()))?;
            this.poll_control(cx)?;
            match kept {
                Some(0) => {}
                Some(kept) => {
                    buf.advance(kept);
                    return Poll::Ready(Ok(()));
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.end != Ending::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        this.poll_control(cx)?;
        if !this.control.is_empty() {
            return Poll::Pending;
        }
        if this.is_between_frames() {
            (this.head, this.head_length) = frame::binary_head(bytes.len());
            this.head_written = 0;
            this.frame_left = bytes.len();
        }
        loop {
            let payload = bytes.get(..this.frame_left).unwrap_or(bytes);
            let head = this
                .head
                .get(usize::from(this.head_written)..usize::from(this.head_length))
                .unwrap_or_default();
            let socket = Pin::new(&mut this.socket);
            let count = if head.is_empty() {
                ready!(socket.poll_write(cx, payload))?
            } else {
                let both = [IoSlice::new(head), IoSlice::new(payload)];
                ready!(socket.poll_write_vectored(cx, &both))?
            };
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            let of_head = head.len().min(count);
            // At most the ten bytes of a head.
            this.head_written += of_head as u8;
            let written = count - of_head;
            this.frame_left -= written;
            if written > 0 {
                return Poll::Ready(Ok(written));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_control(cx)?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.end == Ending::Open {
            this.end = Ending::CloseQueued;
            if this.is_between_frames() {
                let code = this.decoder.end().map_or(Some(NORMAL), End::code);
                this.control.extend(frame::close(code));
            }
        }
        if this.end == Ending::CloseQueued {
            this.poll_control(cx)?;
            if this.is_between_frames() && (!this.control.is_empty() || this.is_unflushed) {
                return Poll::Pending;
            }
            ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
            this.end = Ending::Shut;
        }
        // What the client still sends is thrown away, up to its Close, or after a broken rule up to its end: closing over unread
        // bytes would reset the connection and destroy our Close.
        let mut bytes = [0; 4096];
        for _ in 0..READS_MAX {
            let is_over = match this.decoder.end() {
                Some(End::Closed(_)) => true,
                Some(End::Broken(_)) => {
                    let mut read = ReadBuf::new(&mut bytes);
                    ready!(Pin::new(&mut this.socket).poll_read(cx, &mut read))?;
                    read.filled().is_empty()
                }
                None => ready!(this.poll_decoded(cx, &mut bytes))?.is_none(),
            };
            if is_over {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Reads in one call that gain no data.
const READS_MAX: usize = 8;
/// Close code: all is well.
const NORMAL: u16 = 1000;

#[cfg(test)]
mod tests;
