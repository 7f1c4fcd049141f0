//! Keeps clients of the API and of metrics from holding it: so many connections at a time, each for so long (attack class D7).
//!
//! Promises: a connection more than `connections_max` waits in the system's backlog; one that is older than `timeout` is closed,
//! wherever it stands, so that nobody has a place by saying little. What takes longer than that, a stream or a job, holds its
//! [`Lease`] meanwhile; no more than `http.streams_max` do.
//!
//! Does not know: HTTP.

use super::error::ApiError;
use crate::auth::PeerAddress;
use crate::config::HttpConfig;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// A listener that gives out so many connections at a time.
pub(crate) struct Guarded<L> {
    listener: L,
    places: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    timeout: Duration,
}

impl<L: Listener> Guarded<L> {
    /// Over `listener`.
    pub(crate) fn new(listener: L, config: &HttpConfig) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(config.max_connections as usize)),
            streams: Arc::new(Semaphore::new(config.streams_max as usize)),
            timeout: Duration::from_secs(config.connection_timeout_s.into()),
        }
    }
}

impl<L: Listener> Listener for Guarded<L> {
    type Io = GuardedStream<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, L::Addr) {
        // The semaphore is never closed.
        let place = self.places.clone().acquire_owned().await.ok();
        let (stream, address) = self.listener.accept().await;
        let guarded = GuardedStream {
            stream,
            timeout: self.timeout,
            end: Box::pin(tokio::time::sleep(self.timeout)),
            lease: Lease {
                address: PeerAddress::Unknown,
                holds: Arc::default(),
                streams: self.streams.clone(),
            },
            _place: place,
        };
        (guarded, address)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// A connection's right to last.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    address: PeerAddress,
    holds: Arc<AtomicUsize>,
    streams: Arc<Semaphore>,
}

impl Lease {
    /// Where the connection comes from.
    pub(crate) fn address(&self) -> PeerAddress {
        self.address
    }

    /// The connection lasts at least as long as what is returned.
    pub(crate) fn hold(&self) -> Result<Hold, ApiError> {
        let Ok(place) = self.streams.clone().try_acquire_owned() else {
            return Err(ApiError::busy(
                "too many streams and jobs are under way (http.streams_max)",
            )
            .with_hint("end one, wait for one, or raise http.streams_max"));
        };
        self.holds.fetch_add(1, Ordering::Relaxed);
        Ok(Hold {
            holds: self.holds.clone(),
            _place: place,
        })
    }
}

/// Keeps a connection open.
#[derive(Debug)]
pub(crate) struct Hold {
    holds: Arc<AtomicUsize>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<L> Connected<IncomingStream<'_, Guarded<L>>> for Lease
where
    L: Listener,
    L::Addr: Clone + Into<PeerAddress>,
{
    fn connect_info(stream: IncomingStream<'_, Guarded<L>>) -> Self {
        Self {
            address: stream.remote_addr().clone().into(),
            ..stream.io().lease.clone()
        }
    }
}

/// A connection that ends in time.
pub(crate) struct GuardedStream<S> {
    stream: S,
    timeout: Duration,
    end: Pin<Box<Sleep>>,
    lease: Lease,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> GuardedStream<S> {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.end.as_mut().poll(cx).is_ready() {
            if self.lease.holds.load(Ordering::Relaxed) == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.end.as_mut().reset(Instant::now() + self.timeout);
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_end(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GuardedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_end(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
