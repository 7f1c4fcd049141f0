//! What a listener counts of its TLS handshakes, and the stream that counts their bytes.
//!
//! Does not know: what is said in them.

use crate::meters::{Layered, Layers};
use motemq_core::Histogram;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Handshakes of one listener.
#[derive(Debug)]
pub(crate) struct TlsCounts {
    /// Completed ones, by [`Outcome`] and version.
    completed: [[AtomicU64; 2]; 2],
    durations: [Histogram; 3],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// How a handshake ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Completed, with certificates.
    Full,
    /// Completed, with a session from before.
    Resumed,
    /// Not completed.
    Failed,
}

impl Outcome {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Full, Self::Resumed, Self::Failed];

    /// The value of the metric's `result` label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Failed => "failed",
        }
    }
}

impl Default for TlsCounts {
    fn default() -> Self {
        Self {
            completed: Default::default(),
            durations: std::array::from_fn(|_| Histogram::of_durations()),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }
}

impl TlsCounts {
    /// Counts a handshake that was completed, over a stream that has carried nothing else.
    pub(crate) fn note_completed<S>(
        &self,
        session: &ServerConnection,
        stream: &Counted<S>,
        duration: Duration,
    ) {
        let outcome = match session.handshake_kind() {
            Some(HandshakeKind::Resumed) => Outcome::Resumed,
            _ => Outcome::Full,
        };
        let is_13 = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let of_outcome = &self.completed[outcome as usize % 2];
        of_outcome[usize::from(is_13)].fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(stream.bytes_in, Ordering::Relaxed);
        self.bytes_out
            .fetch_add(stream.bytes_out, Ordering::Relaxed);
        self.note_duration(outcome, duration);
    }

    /// Counts how long a handshake took.
    pub(crate) fn note_duration(&self, outcome: Outcome, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.durations[outcome as usize].observe(us);
    }

    /// Completed handshakes: outcome, version, how many.
    pub(crate) fn completed(&self) -> impl Iterator<Item = (Outcome, &'static str, u64)> {
        [Outcome::Full, Outcome::Resumed]
            .into_iter()
            .flat_map(|outcome| {
                ["1.2", "1.3"]
                    .into_iter()
                    .zip(&self.completed[outcome as usize % 2])
                    .map(move |(version, count)| (outcome, version, count.load(Ordering::Relaxed)))
            })
    }

    /// Completed handshakes of one kind.
    pub(crate) fn completed_as(&self, kind: Outcome) -> u64 {
        let of_kind = self.completed().filter(|(outcome, ..)| *outcome == kind);
        of_kind.map(|(.., count)| count).sum()
    }

    /// How long handshakes took, in microseconds.
    pub(crate) fn durations(&self, outcome: Outcome) -> &Histogram {
        &self.durations[outcome as usize]
    }

    /// Bytes of completed handshakes, in and out.
    pub(crate) fn bytes(&self) -> [(&'static str, u64); 2] {
        let of = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed);
        [("in", of(&self.bytes_in)), ("out", of(&self.bytes_out))]
    }
}

/// A stream that counts its bytes.
#[derive(Debug)]
pub(crate) struct Counted<S> {
    stream: S,
    /// Read so far.
    pub(crate) bytes_in: u64,
    /// Written so far.
    pub(crate) bytes_out: u64,
}

impl<S> Counted<S> {
    /// A stream that has carried nothing.
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    fn note_written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &written {
            self.bytes_out += *count as u64;
        }
        written
    }
}

impl<S: Layered> Layered for Counted<S> {
    fn layers(&self) -> Layers {
        self.stream.layers()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.bytes_in += (buffer.filled().len() - before) as u64;
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.note_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
