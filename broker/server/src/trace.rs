//! Traces for operators: opened within limits, turned into server-sent events, closed when nobody reads any more.
//!
//! A trace lives as long as its [`TraceStream`]; the HTTP connection pulls it, so a reader that does not read pulls nothing,
//! and the broker counts what the bounded queue did not take (`trace.queue_packets_max`, `trace.packets_rate_max`). Each event is one JSON
//! object with a `kind`: `begin` first, then `packet`, `refused`, `closed` and `lost`, `end` last.
//!
//! Does not know: who may trace, what a packet looks like on the wire.

use crate::clock;
use crate::config::TraceConfig;
use crate::server::Server;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use motemq_core::{
    TooManyTraces, Trace, TraceFilter, TraceLimits, Traced, TracedDirection, TracedPacket,
    TracedValue,
};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// What all traces share.
#[derive(Debug)]
pub(crate) struct Traces {
    config: TraceConfig,
    open: AtomicUsize,
    refused: AtomicU64,
    lost: AtomicU64,
}

impl Traces {
    pub(crate) fn new(config: TraceConfig) -> Self {
        Self {
            config,
            open: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// The limits of each.
    pub(crate) fn config(&self) -> &TraceConfig {
        &self.config
    }

    /// Traces that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Traces refused because there were `trace.streams_max`.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Packets that traces did not show because their readers were too slow, or because there were too many in a second.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct TraceWish {
    pub(crate) filter: TraceFilter,
    pub(crate) payload_bytes_max: usize,
    pub(crate) duration: Duration,
}

/// A trace as the body of an HTTP response.
pub(crate) struct TraceStream<H> {
    server: Arc<Server>,
    trace: Arc<Trace>,
    /// Taken from the trace and not yet sent.
    waiting: VecDeque<Traced>,
    shown: u64,
    /// Packets lost as far as they were counted.
    lost: u64,
    end: Pin<Box<Sleep>>,
    /// When silence is broken, so that a reader that has gone is noticed.
    beat: Pin<Box<Sleep>>,
    has_begun: bool,
    is_ended: bool,
    /// Kept as long as the stream.
    _hold: H,
}

impl<H> TraceStream<H> {
    /// Opens a trace. `hold` is dropped with the stream.
    ///
    /// # Errors
    /// When `trace.streams_max` are open.
    pub(crate) fn open(
        server: &Arc<Server>,
        wish: TraceWish,
        hold: H,
    ) -> Result<Self, TooManyTraces> {
        let traces = server.traces();
        let limits = TraceLimits {
            payload_bytes_max: wish.payload_bytes_max,
            packets_max: traces.config.queue_packets_max as usize,
            bytes_max: traces.config.queue_bytes_max,
            rate_max: traces.config.packets_rate_max,
        };
        let streams_max = traces.config.streams_max as usize;
        let opened = server.broker().open_trace(wish.filter, limits, streams_max);
        let trace = opened.inspect_err(|TooManyTraces| {
            traces.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        traces.open.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            server: server.clone(),
            trace,
            waiting: VecDeque::new(),
            shown: 0,
            lost: 0,
            end: Box::pin(tokio::time::sleep(wish.duration)),
            beat: Box::pin(tokio::time::sleep(BEAT)),
            has_begun: false,
            is_ended: false,
            _hold: hold,
        })
    }

    /// What has come, as many events as make one write.
    fn events(&mut self, cx: &mut Context<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.has_begun {
            self.has_begun = true;
            let event = json!({"kind": "begin", "at_ms": clock::now().as_ms()});
            write_event(&event, &mut bytes);
        }
        if self.waiting.is_empty() {
            self.waiting = self.trace.take(cx.waker());
        }
        while bytes.len() < EVENTS_BYTES
            && let Some(next) = self.waiting.pop_front()
        {
            let event = match next {
                Traced::Packet(packet) => {
                    self.shown += 1;
                    packet_event(&packet)
                }
                Traced::Lost(packets) => {
                    self.count_lost();
                    json!({"kind": "lost", "at_ms": clock::now().as_ms(), "packets": packets})
                }
            };
            write_event(&event, &mut bytes);
        }
        bytes
    }

    fn end_event(&mut self) -> Vec<u8> {
        self.count_lost();
        let mut bytes = Vec::new();
        let event = json!({
            "kind": "end", "at_ms": clock::now().as_ms(), "packets": self.shown, "packets_lost": self.lost,
        });
        write_event(&event, &mut bytes);
        bytes
    }

    fn count_lost(&mut self) {
        let lost = self.trace.lost();
        let new = lost.saturating_sub(self.lost);
        self.lost = lost;
        self.server.traces().lost.fetch_add(new, Ordering::Relaxed);
    }
}

impl<H: Unpin> Body for TraceStream<H> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.is_ended {
            return Poll::Ready(None);
        }
        let is_over = this.end.as_mut().poll(cx).is_ready();
        let mut bytes = this.events(cx);
        if bytes.is_empty() && (is_over || this.server.is_stopping()) {
            this.is_ended = true;
            bytes = this.end_event();
        }
        let is_due = this.beat.as_mut().poll(cx).is_ready();
        if bytes.is_empty() && is_due {
            bytes = COMMENT.to_vec();
        }
        if bytes.is_empty() {
            return Poll::Pending;
        }
        this.beat.as_mut().reset(Instant::now() + BEAT);
        Poll::Ready(Some(Ok(Frame::data(bytes.into()))))
    }
}

impl<H> Drop for TraceStream<H> {
    fn drop(&mut self) {
        self.count_lost();
        self.server.broker().close_trace(&self.trace);
        self.server.traces().open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn write_event(event: &Value, out: &mut Vec<u8>) {
    // Writing into memory does not fail.
    let _ = write!(out, "data: {event}\n\n");
}

/// A packet under the names of the API.
fn packet_event(packet: &TracedPacket) -> Value {
    let (kind, direction) = match packet.direction {
        TracedDirection::In => ("packet", Some("in")),
        TracedDirection::Out => ("packet", Some("out")),
        TracedDirection::None => (packet.name, None),
    };
    let mut event = Map::new();
    event.insert("kind".into(), kind.into());
    event.insert("at_ms".into(), packet.at.as_ms().into());
    event.insert("client_id".into(), (*packet.client_id).into());
    event.insert("connection".into(), packet.connection.into());
    event.insert("version".into(), packet.level.into());
    if let Some(direction) = direction {
        event.insert("direction".into(), direction.into());
        event.insert("packet".into(), packet.name.into());
    }
    insert_all(&packet.fields, &mut event);
    event.into()
}

fn insert_all(fields: &[(&'static str, TracedValue)], into: &mut Map<String, Value>) {
    for (name, value) in fields {
        into.insert((*name).to_owned(), value_of(value));
    }
}

fn value_of(value: &TracedValue) -> Value {
    match value {
        TracedValue::Flag(flag) => (*flag).into(),
        TracedValue::Number(number) => (*number).into(),
        TracedValue::Word(text) => (*text).into(),
        TracedValue::Text(text) => (**text).into(),
        TracedValue::List(values) => values.iter().map(value_of).collect(),
        TracedValue::Object(fields) => {
            let mut object = Map::new();
            insert_all(fields, &mut object);
            object.into()
        }
    }
}

/// Bytes of events in one write, about.
const EVENTS_BYTES: usize = 16 << 10;
/// The longest silence.
const BEAT: Duration = Duration::from_secs(10);
/// What a reader passes over.
const COMMENT: &[u8] = b":\n\n";
