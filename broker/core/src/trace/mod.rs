//! Traces: what operators asked to see of the packets that clients and broker exchange.
//!
//! A connection that a trace is about describes each packet where it was decoded, or encoded, and pushes it into the trace's
//! bounded queue; whoever opened the trace takes it from there. Invariants:
//! - While nobody traces, a packet costs one relaxed load and a branch.
//! - Nobody waits for who reads a trace: what finds no room is counted, and the count stands where the packets are missing.
//! - No password, token or authentication data is ever in a trace.
//!
//! Does not know: who reads, how it is shown.

mod describe;
mod packet;

pub(crate) use describe::{Fields, describe, describe_ack, describe_publish, name_of, text};
pub use packet::{TracedDirection, TracedPacket, TracedValue};

use crate::glob::glob_matches;
use crate::sync::{lock, read, write};
use crate::time::Timestamp;
use motemq_codec::TopicFilter;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::task::Waker;

/// What a trace is about. With `topic` alone it has PUBLISH packets only; with `clients`, too, those without a topic.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TraceFilter {
    /// Client identifiers, as [`glob_matches`] reads it.
    pub clients: Option<String>,
    /// A valid topic filter.
    pub topic: Option<String>,
}

impl TraceFilter {
    fn wants_client(&self, client_id: &str) -> bool {
        let clients = self.clients.as_deref();
        clients.is_none_or(|clients| glob_matches(clients, client_id))
    }

    /// Whether a packet with this topic, or without one, is wanted.
    fn wants_topic(&self, topic: Option<&str>) -> bool {
        match (&self.topic, topic) {
            (None, _) => true,
            (Some(_), None) => self.clients.is_some(),
            (Some(filter), Some(topic)) => {
                TopicFilter::parse(filter).is_ok_and(|filter| filter.matches(topic))
            }
        }
    }
}

/// What a trace may hold.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct TraceLimits {
    /// Bytes shown of a payload.
    pub payload_bytes_max: usize,
    /// Packets that wait to be read.
    pub packets_max: usize,
    /// Memory that they take.
    pub bytes_max: usize,
    /// Packets shown in a second.
    pub rate_max: u32,
}

/// What a trace has to tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Traced {
    /// A packet.
    Packet(Box<TracedPacket>),
    /// So many packets were here and are not shown.
    Lost(u64),
}

/// There are as many traces as may be.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct TooManyTraces;

/// One trace.
pub struct Trace {
    filter: TraceFilter,
    limits: TraceLimits,
    /// A leaf in the order of locks.
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Traced>,
    bytes: usize,
    /// Packets not shown so far.
    lost: u64,
    /// The second that `in_second` counts.
    second: u64,
    in_second: u32,
    /// Set only while nothing waits.
    reader: Option<Waker>,
    is_closed: bool,
}

impl Trace {
    fn new(filter: TraceFilter, limits: TraceLimits) -> Self {
        Self {
            filter,
            limits,
            queue: Mutex::default(),
        }
    }

    /// All that waits, in its order; if nothing does, wakes `reader` when something comes.
    #[must_use]
    pub fn take(&self, reader: &Waker) -> VecDeque<Traced> {
        let mut queue = lock(&self.queue);
        if queue.waiting.is_empty() {
            queue.reader = Some(reader.clone());
        }
        queue.bytes = 0;
        std::mem::take(&mut queue.waiting)
    }

    /// Packets that were not shown so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        lock(&self.queue).lost
    }

    /// Whether a packet may be pushed now. One that may not is counted.
    fn admits(&self, now: Timestamp) -> bool {
        let mut queue = lock(&self.queue);
        if queue.is_closed {
            return false;
        }
        let second = now.as_ms() / 1000;
        if second != queue.second {
            queue.second = second;
            queue.in_second = 0;
        }
        let has_room =
            queue.waiting.len() < self.limits.packets_max && queue.bytes < self.limits.bytes_max;
        if has_room && queue.in_second < self.limits.rate_max {
            queue.in_second += 1;
            return true;
        }
        queue.lost += 1;
        match queue.waiting.back_mut() {
            Some(Traced::Lost(count)) => *count += 1,
            _ => queue.waiting.push_back(Traced::Lost(1)),
        }
        let reader = queue.reader.take();
        drop(queue); // the reader may run at once and take the lock
        if let Some(reader) = reader {
            reader.wake();
        }
        false
    }

    fn push(&self, packet: TracedPacket) {
        let mut queue = lock(&self.queue);
        queue.bytes += packet.memory_bytes();
        queue.waiting.push_back(Traced::Packet(Box::new(packet)));
        let reader = queue.reader.take();
        drop(queue); // the reader may run at once and take the lock
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn is_closed(&self) -> bool {
        lock(&self.queue).is_closed
    }

    fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.is_closed = true;
        queue.waiting = VecDeque::new();
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filter = &self.filter;
        f.debug_struct("Trace").field("filter", filter).finish()
    }
}

/// The traces of a broker.
#[derive(Default)]
pub(crate) struct Traces {
    /// Another one after every change; 0 while there is no trace.
    generation: AtomicU64,
    open: RwLock<Open>,
}

#[derive(Default)]
struct Open {
    changes: u64,
    traces: Vec<Arc<Trace>>,
}

impl Traces {
    /// Whether there is a trace.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.generation.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn open(
        &self,
        filter: TraceFilter,
        limits: TraceLimits,
        traces_max: usize,
    ) -> Result<Arc<Trace>, TooManyTraces> {
        let mut open = write(&self.open);
        if open.traces.len() >= traces_max {
            return Err(TooManyTraces);
        }
        let trace = Arc::new(Trace::new(filter, limits));
        open.traces.push(trace.clone());
        self.note_change(&mut open);
        Ok(trace)
    }

    pub(crate) fn close(&self, trace: &Arc<Trace>) {
        let mut open = write(&self.open);
        open.traces.retain(|known| !Arc::ptr_eq(known, trace));
        self.note_change(&mut open);
        drop(open);
        trace.close();
    }

    fn note_change(&self, open: &mut Open) {
        open.changes += 1;
        let generation = match open.traces.is_empty() {
            true => 0,
            false => open.changes,
        };
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// Those that the client of this identifier is in; all, while it is not known (`""`). With the generation of that.
    fn of(&self, client_id: &str) -> (Vec<Arc<Trace>>, u64) {
        let open = read(&self.open);
        let is_wanted =
            |trace: &&Arc<Trace>| client_id.is_empty() || trace.filter.wants_client(client_id);
        let traces = open.traces.iter().filter(is_wanted).cloned().collect();
        (traces, self.generation.load(Ordering::Relaxed))
    }
}

/// The traces that one connection is in; at least one.
#[derive(Debug)]
pub(crate) struct ConnectionTraces {
    traces: Vec<Arc<Trace>>,
    client_id: Box<str>,
    now: Timestamp,
    /// A DISCONNECT on its way out.
    farewell: Vec<(Arc<Trace>, TracedPacket)>,
}

impl ConnectionTraces {
    /// Takes up what has changed since the generation `as_of`, for the client of this identifier; `""` while it is not known.
    pub(crate) fn refresh(
        this: &mut Option<Box<Self>>,
        as_of: &mut u64,
        known: &Traces,
        client_id: &str,
        now: Timestamp,
    ) {
        if *as_of != known.generation.load(Ordering::Relaxed) {
            let farewell = this.take().map(|this| this.farewell).unwrap_or_default();
            let (traces, generation) = known.of(client_id);
            *as_of = generation;
            *this = (!traces.is_empty()).then(|| {
                Box::new(Self {
                    traces,
                    client_id: client_id.into(),
                    now,
                    farewell,
                })
            });
        }
        Self::set_client(this, client_id);
        if let Some(this) = this {
            this.now = now;
        }
    }

    /// The client's identifier is known now, or another one.
    pub(crate) fn set_client(this: &mut Option<Box<Self>>, client_id: &str) {
        let Some(traces) = this else { return };
        if *traces.client_id != *client_id {
            traces.client_id = client_id.into();
            let is_wanted = |trace: &Arc<Trace>| trace.filter.wants_client(client_id);
            traces.traces.retain(is_wanted);
            if traces.traces.is_empty() {
                *this = None;
            }
        }
    }

    /// Whether nobody traces it any more.
    pub(crate) fn are_closed(&self) -> bool {
        self.traces.iter().all(|trace| trace.is_closed())
    }

    /// What happens from here on happens at `now`.
    pub(crate) fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Shows a packet in every trace that wants it. `fields` describes it, with so many bytes of its payload at most.
    pub(crate) fn show(&self, header: &Header<'_>, fields: impl Fn(usize) -> Fields) {
        for trace in &self.traces {
            if self.is_wanted(trace, header) && trace.admits(self.now) {
                trace.push(self.packet(trace, header, &fields));
            }
        }
    }

    /// As [`show`](Self::show), but when the connection has [ended](Self::finish): the time of it is not known here.
    pub(crate) fn show_last(&mut self, header: &Header<'_>, fields: impl Fn(usize) -> Fields) {
        let wanted = |trace: &&Arc<Trace>| self.is_wanted(trace, header);
        let farewell = self.traces.iter().filter(wanted);
        self.farewell = farewell
            .map(|trace| (trace.clone(), self.packet(trace, header, &fields)))
            .collect();
    }

    /// Shows what was to be shown last.
    pub(crate) fn finish(&mut self) {
        for (trace, mut packet) in std::mem::take(&mut self.farewell) {
            packet.at = self.now;
            if trace.admits(self.now) {
                trace.push(packet);
            }
        }
    }

    fn is_wanted(&self, trace: &Trace, header: &Header<'_>) -> bool {
        // Without an identifier it has not been asked yet.
        let is_client = !self.client_id.is_empty() || trace.filter.wants_client("");
        is_client && trace.filter.wants_topic(header.topic)
    }

    fn packet(
        &self,
        trace: &Trace,
        header: &Header<'_>,
        fields: &impl Fn(usize) -> Fields,
    ) -> TracedPacket {
        TracedPacket {
            at: self.now,
            client_id: self.client_id.clone(),
            connection: header.connection,
            level: header.level,
            direction: header.direction,
            name: header.name,
            fields: fields(trace.limits.payload_bytes_max),
        }
    }
}

/// What is said of a packet before it is described.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Header<'a> {
    pub(crate) connection: u64,
    pub(crate) level: u8,
    pub(crate) direction: TracedDirection,
    pub(crate) name: &'static str,
    pub(crate) topic: Option<&'a str>,
}
