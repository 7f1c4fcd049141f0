//! Publishers with their windows and schedules, subscribers with what they have seen.
//!
//! Open model: a message is due at a time that nothing can move; its latency counts from there, also when the
//! window or a full socket held it back. Closed model: a message is sent when the window allows, and its latency
//! counts from that moment. A message is on the way until it has arrived (or a later one has) where the run has both
//! ends, and at QoS 1 and 2 until it is acknowledged.
//!
//! Does not know: sockets' states, the phases of a run, reports.

use super::BenchError;
use super::engine::Sockets;
use super::label::Label;
use super::packets::{self, ConnAck, Frame, Template};
use super::plan::{INFLIGHT_MAX, Pace, Plan, Shape};
use super::socket::{Down, Handler};
use super::stream::{Arrival, Stream};
use crate::wire::Version;
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

/// A message that the generator gets round to this much later than due counts as late.
pub(super) const LATE_NS: u64 = 10_000_000;
/// Reasons that are told apart.
const REASONS_MAX: usize = 16;
/// Streams that a `sub` follows; messages of more publishers are counted, not followed.
const STREAMS_MAX: usize = 1_000_000;
/// Messages that fall due between two looks at the sockets.
const RELEASE_MAX: u32 = 64;
/// What a publisher without window keeps ready for its socket.
const AHEAD_BYTES: usize = 16 * 1024;
/// Longest time that a histogram can hold.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;
const NOBODY: u32 = u32::MAX;

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
struct Role {
    publisher: u32,
    subscriber: u32,
}

/// A message that is not yet acknowledged.
#[derive(Clone, Copy, Debug)]
struct Flight {
    sequence: u64,
    at_ns: u64,
}

struct Publisher {
    token: usize,
    template: Template,
    /// Messages handed to the socket.
    sent: u64,
    /// Messages whose time has come, in the open model.
    due: u64,
    /// Deliveries that have come, or will not any more.
    passed: u64,
    /// `passed` when the stall check last looked.
    passed_before: u64,
    flights: VecDeque<Flight>,
    window: u64,
}

impl Publisher {
    fn unacknowledged(&self) -> u64 {
        self.flights.len() as u64
    }

    /// Whether the next message's packet id belongs to no other one, however old that is.
    fn is_id_free(&self) -> bool {
        let oldest = self.flights.front();
        oldest.is_none_or(|oldest| self.sent - oldest.sequence < u64::from(INFLIGHT_MAX))
    }
}

/// What has been counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) up: u32,
    pub(super) accepted: u32,
    pub(super) lost_connections: u32,
    pub(super) subscribed: u32,
    pub(super) sessions_present: u32,
    /// Messages whose time has come, in the open model.
    pub(super) due: u64,
    pub(super) sent: u64,
    /// Messages that were due and never sent.
    pub(super) unsent: u64,
    /// Messages that came first to a full window or socket.
    pub(super) held: u64,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) received: u64,
    pub(super) received_bytes: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    /// Messages of others.
    pub(super) foreign: u64,
    pub(super) late: u64,
    /// Windows that were opened again because nothing came for a second.
    pub(super) stalls: u64,
    pub(super) pings: u64,
    pub(super) pongs: u64,
}

/// Everything that moves.
pub(super) struct Flow {
    version: Version,
    qos: u8,
    run: u32,
    shape: Shape,
    pace: Pace,
    batch: u64,
    limit: u64,
    copies: u64,
    size_max: usize,
    filter: Vec<String>,
    roles: Vec<Role>,
    publishers: Vec<Publisher>,
    streams: Streams,
    pub(super) counts: Counts,
    pub(super) failures: BTreeMap<String, u32>,
    pub(super) first_failure: Option<Down>,
    pub(super) keep_alive_s: u16,
    /// Sending goes on.
    pub(super) is_running: bool,
    /// The open model's time zero, and how many messages of all publishers have fallen due since.
    schedule_ns: u64,
    slot: u64,
    /// Messages that are due in this time are measured.
    pub(super) measured: Range<u64>,
    pub(super) connect_latency: Histogram<u64>,
    pub(super) latency: Histogram<u64>,
    pub(super) ack_latency: Histogram<u64>,
    pub(super) lag: Histogram<u64>,
    pub(super) first_up_ns: u64,
    pub(super) last_up_ns: u64,
    pub(super) last_arrival_ns: u64,
}

/// What is missing at the end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Missing {
    /// Deliveries that should have come.
    pub(super) expected: u64,
    /// Those that have not.
    pub(super) lost: u64,
    /// Those of them whose messages were acknowledged.
    pub(super) lost_acknowledged: u64,
    /// Publisher and sequence of the first of them, or of the first lost.
    pub(super) first: Option<(u32, u64)>,
}

enum Streams {
    /// Both ends are here: subscriber times publishers plus publisher, or one each.
    Known(Vec<Stream>),
    /// By subscriber, run and publisher.
    Unknown(HashMap<(u32, u32, u32), Stream>),
}

impl Flow {
    /// Nobody has connected yet.
    pub(super) fn new(plan: &Plan, run: u32) -> Result<Self, BenchError> {
        let (publishers, subscribers) = (plan.publishers() as usize, plan.subscribers() as usize);
        let streams = match plan.shape {
            Shape::Sub => Streams::Unknown(HashMap::new()),
            Shape::Conn | Shape::Pub => Streams::Known(Vec::new()),
            Shape::RoundTrip | Shape::Pairs => known(publishers),
            Shape::FanIn | Shape::FanOut => known(publishers * subscribers),
        };
        let filter = match plan.shape {
            Shape::Conn | Shape::Pub => Vec::new(),
            Shape::FanIn => vec![plan.filter_of_all()],
            Shape::FanOut => vec![plan.topic("pub", 0)],
            Shape::Sub => (0..plan.count)
                .map(|index| plan.topic("sub", index))
                .collect(),
            Shape::RoundTrip | Shape::Pairs => (0..plan.count)
                .map(|index| plan.topic("pub", index))
                .collect(),
        };
        Ok(Self {
            version: plan.version,
            qos: plan.qos,
            run,
            shape: plan.shape,
            pace: plan.pace,
            batch: plan.batch.into(),
            limit: if plan.limit == 0 {
                u64::MAX
            } else {
                plan.limit
            },
            copies: plan.copies(),
            size_max: 0,
            filter,
            roles: Vec::with_capacity(plan.connections() as usize),
            publishers: Vec::with_capacity(publishers),
            streams,
            counts: Counts::default(),
            failures: BTreeMap::new(),
            first_failure: None,
            keep_alive_s: plan.keep_alive_s,
            is_running: false,
            schedule_ns: 0,
            slot: 0,
            measured: 0..0,
            connect_latency: histogram()?,
            latency: histogram()?,
            ack_latency: histogram()?,
            lag: histogram()?,
            first_up_ns: 0,
            last_up_ns: 0,
            last_arrival_ns: 0,
        })
    }

    /// The next connection to be opened is this client.
    pub(super) fn expect(
        &mut self,
        plan: &Plan,
        publisher: Option<u32>,
        subscriber: Option<u32>,
    ) -> Result<(), BenchError> {
        if let Some(index) = publisher {
            let label = Label {
                run: self.run,
                publisher: index,
                sequence: 0,
                at_ns: 0,
            };
            let topic = plan.topic("pub", index);
            let template = Template::new(plan, &topic, &label).map_err(crate::SimError::from)?;
            self.size_max = self.size_max.max(template.len());
            self.publishers.push(Publisher {
                token: self.roles.len(),
                template,
                sent: 0,
                due: 0,
                passed: 0,
                passed_before: 0,
                flights: VecDeque::new(),
                window: plan.inflight.into(),
            });
        }
        self.roles.push(Role {
            publisher: publisher.unwrap_or(NOBODY),
            subscriber: subscriber.unwrap_or(NOBODY),
        });
        Ok(())
    }

    /// Sending begins.
    pub(super) fn start(&mut self, sockets: &mut Sockets, now_ns: u64) {
        self.is_running = true;
        self.schedule_ns = now_ns;
        for index in 0..self.publishers.len() {
            self.refill(sockets, index, now_ns);
        }
    }

    /// Open model: sends what is due; when there is more to send. Closed model without window: fills the sockets.
    pub(super) fn release(&mut self, sockets: &mut Sockets, now_ns: u64) -> u64 {
        if !self.is_running || self.publishers.is_empty() || self.is_at_limit() {
            return u64::MAX;
        }
        if self.pace == Pace::Unpaced {
            return self.top_up(sockets, now_ns);
        }
        for _ in 0..RELEASE_MAX {
            let due_ns = self.due_ns(self.slot);
            if self.counts.due >= self.limit {
                return u64::MAX;
            }
            if due_ns > now_ns {
                return due_ns;
            }
            self.release_slot(sockets, due_ns, now_ns);
        }
        now_ns
    }

    /// Nothing more falls due from `end_ns` on; what is due before is sent, at once or when the window allows.
    pub(super) fn stop(&mut self, sockets: &mut Sockets, now_ns: u64, end_ns: u64) {
        let is_open = self.pace != Pace::Unpaced && !self.publishers.is_empty();
        while is_open && self.due_ns(self.slot) < end_ns && self.counts.due < self.limit {
            let due_ns = self.due_ns(self.slot);
            self.release_slot(sockets, due_ns, now_ns);
        }
        self.is_running = false;
    }

    /// Gives up what is due and not sent.
    pub(super) fn give_up_unsent(&mut self) {
        for publisher in &mut self.publishers {
            self.counts.unsent += publisher.due.saturating_sub(publisher.sent);
            publisher.due = publisher.due.min(publisher.sent);
        }
    }

    /// The next message of the schedule has fallen due.
    fn release_slot(&mut self, sockets: &mut Sockets, due_ns: u64, now_ns: u64) {
        let lag_ns = now_ns.saturating_sub(due_ns);
        if self.measured.contains(&due_ns) {
            record(&mut self.lag, lag_ns);
            self.counts.late += u64::from(lag_ns > LATE_NS);
        }
        let index = (self.slot % self.publishers.len() as u64) as usize;
        self.slot += 1;
        self.counts.due += 1;
        self.publishers[index].due += 1;
        self.send_due(sockets, index);
        let publisher = &self.publishers[index];
        self.counts.held += u64::from(publisher.sent < publisher.due);
    }

    /// Opens windows in which nothing has moved since the last call, so that a loss does not end the flow.
    pub(super) fn open_stalled(&mut self, sockets: &mut Sockets, now_ns: u64) {
        if self.copies == 0 || !self.is_running {
            return;
        }
        for index in 0..self.publishers.len() {
            let publisher = &mut self.publishers[index];
            let target = publisher.sent * self.copies;
            let is_stalled = publisher.passed == publisher.passed_before
                && publisher.passed < target
                && publisher.sent - publisher.passed / self.copies + self.batch > publisher.window;
            publisher.passed_before = publisher.passed;
            if is_stalled && self.pace == Pace::Unpaced {
                publisher.passed = target;
                self.counts.stalls += 1;
                self.refill(sockets, index, now_ns);
            }
        }
    }

    /// Whether the messages that may be sent have been.
    pub(super) fn is_at_limit(&self) -> bool {
        self.counts.sent >= self.limit
    }

    /// Whether everything that was due has been sent.
    pub(super) fn is_all_sent(&self) -> bool {
        self.counts.sent + self.counts.unsent >= self.counts.due
    }

    /// Whether everything sent has arrived and is acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        let is_acknowledged =
            self.qos == 0 || self.counts.acknowledged + self.counts.refused >= self.counts.sent;
        self.is_all_sent()
            && is_acknowledged
            && self.counts.received >= self.counts.sent * self.copies
    }

    /// What has not arrived.
    pub(super) fn missing(&self) -> Missing {
        let mut missing = Missing::default();
        match &self.streams {
            Streams::Known(streams) if self.copies > 0 => {
                for (position, stream) in streams.iter().enumerate() {
                    self.add_missing(
                        &mut missing,
                        position % self.publishers.len().max(1),
                        stream,
                    );
                }
                // A refused message is acknowledged in no sense, but lies before some that are.
                let excess = self.counts.refused * self.copies;
                missing.lost_acknowledged = missing.lost_acknowledged.saturating_sub(excess);
            }
            Streams::Known(_) => {}
            Streams::Unknown(streams) => {
                for ((_, _, publisher), stream) in streams {
                    let lost = stream.missing_before(stream.next());
                    missing.lost += lost;
                    let first = stream.first_missing_before(stream.next());
                    let first = first.map(|sequence| (*publisher, sequence));
                    missing.first = missing.first.or(first);
                }
                missing.expected = self.counts.received + missing.lost;
            }
        }
        missing
    }

    fn add_missing(&self, missing: &mut Missing, index: usize, stream: &Stream) {
        let publisher = &self.publishers[index];
        let promised = match (self.qos, publisher.flights.front()) {
            (0, _) => 0,
            (_, Some(oldest)) => oldest.sequence,
            (_, None) => publisher.sent,
        };
        missing.expected += publisher.sent;
        missing.lost += stream.missing_before(publisher.sent);
        let lost_acknowledged = stream.missing_before(promised);
        if missing.lost_acknowledged == 0 {
            let end = if lost_acknowledged > 0 {
                promised
            } else {
                publisher.sent
            };
            let first = stream.first_missing_before(end);
            let first = first.map(|sequence| (index as u32, sequence));
            missing.first = if lost_acknowledged > 0 {
                first
            } else {
                missing.first.or(first)
            };
        }
        missing.lost_acknowledged += lost_acknowledged;
    }

    /// How many different publishers have been heard.
    pub(super) fn streams(&self) -> usize {
        match &self.streams {
            Streams::Known(streams) => streams.len(),
            Streams::Unknown(streams) => streams.len(),
        }
    }

    /// When the message in this place of the schedule is due.
    fn due_ns(&self, slot: u64) -> u64 {
        let Pace::Every(interval) = self.pace else {
            return 0;
        };
        let after = u128::from(slot) * interval.as_nanos() / self.publishers.len().max(1) as u128;
        self.schedule_ns + u64::try_from(after).unwrap_or(u64::MAX / 2)
    }

    /// Sends messages whose time has come, as far as window and socket allow.
    fn send_due(&mut self, sockets: &mut Sockets, index: usize) {
        loop {
            let publisher = &self.publishers[index];
            let is_due = publisher.sent < publisher.due;
            let is_open = publisher.is_id_free() && publisher.unacknowledged() < publisher.window;
            let has_room = sockets.get(publisher.token).has_room();
            if !is_due || !is_open || !has_room || self.is_at_limit() {
                return;
            }
            let slot = publisher.sent * self.publishers.len() as u64 + index as u64;
            let due_ns = self.due_ns(slot);
            self.send(sockets, index, due_ns);
        }
    }

    /// Closed model: sends batches as long as the window is open.
    fn refill(&mut self, sockets: &mut Sockets, index: usize, now_ns: u64) {
        if self.pace != Pace::Unpaced {
            return self.send_due(sockets, index);
        }
        if !self.is_running {
            return;
        }
        loop {
            let publisher = &self.publishers[index];
            let mut on_the_way = publisher.unacknowledged();
            match self.copies {
                0 if self.qos == 0 => return,
                0 => {}
                1 => on_the_way = on_the_way.max(publisher.sent.saturating_sub(publisher.passed)),
                copies => {
                    let arrived = publisher.passed / copies;
                    on_the_way = on_the_way.max(publisher.sent.saturating_sub(arrived));
                }
            }
            let is_full = on_the_way + self.batch > publisher.window;
            if is_full || !sockets.get(publisher.token).has_room() {
                return;
            }
            for _ in 0..self.batch {
                if self.is_at_limit() || !self.publishers[index].is_id_free() {
                    return;
                }
                self.send(sockets, index, now_ns);
            }
        }
    }

    /// QoS 0 without anybody to receive it has no window but the socket.
    fn top_up(&mut self, sockets: &mut Sockets, now_ns: u64) -> u64 {
        if self.copies > 0 || self.qos > 0 {
            return u64::MAX;
        }
        let mut more_at = u64::MAX;
        for index in 0..self.publishers.len() {
            let token = self.publishers[index].token;
            while !self.is_at_limit() {
                let socket = sockets.get(token);
                if !socket.has_room() || socket.is_blocked() {
                    break;
                }
                more_at = now_ns;
                if socket.out_bytes() >= AHEAD_BYTES {
                    break;
                }
                self.send(sockets, index, now_ns);
            }
        }
        more_at
    }

    fn send(&mut self, sockets: &mut Sockets, index: usize, at_ns: u64) {
        let publisher = &mut self.publishers[index];
        let sequence = publisher.sent;
        let out = sockets.out(publisher.token);
        publisher
            .template
            .append(out, packet_id(sequence), sequence, at_ns);
        publisher.sent += 1;
        if self.qos > 0 {
            publisher.flights.push_back(Flight { sequence, at_ns });
        }
        self.counts.sent += 1;
    }

    /// A message is done with: PUBACK, PUBCOMP, or a refusal.
    fn acknowledged(
        &mut self,
        sockets: &mut Sockets,
        token: usize,
        id: u16,
        code: u8,
        now_ns: u64,
    ) {
        let index = self.roles[token].publisher as usize;
        let Some(publisher) = self.publishers.get_mut(index) else {
            return;
        };
        let is_it = |flight: &Flight| packet_id(flight.sequence) == id;
        let Some(position) = publisher.flights.iter().position(is_it) else {
            return;
        };
        let Some(flight) = publisher.flights.remove(position) else {
            return;
        };
        if code >= 0x80 {
            self.counts.refused += 1;
            publisher.passed += self.copies;
            self.count_failure(&Down::Message(code));
        } else {
            self.counts.acknowledged += 1;
            if self.measured.contains(&flight.at_ns) {
                record(&mut self.ack_latency, now_ns.saturating_sub(flight.at_ns));
            }
        }
        self.last_arrival_ns = now_ns;
        self.refill(sockets, index, now_ns);
    }

    fn received(
        &mut self,
        sockets: &mut Sockets,
        token: usize,
        frame: Frame<'_>,
        now_ns: u64,
    ) -> Result<(), Down> {
        let message = packets::publish(self.version, frame.first, frame.body)?;
        match message.qos {
            0 => {}
            1 => sockets
                .out(token)
                .extend_from_slice(&packets::answer(0x40, message.id)),
            _ => sockets
                .out(token)
                .extend_from_slice(&packets::answer(0x50, message.id)),
        }
        self.last_arrival_ns = now_ns;
        let subscriber = self.roles[token].subscriber;
        let label = Label::read(message.payload);
        let stream = label.and_then(|label| Some((label, self.stream(subscriber, &label)?)));
        let Some((label, stream)) = stream else {
            self.counts.foreign += 1;
            return Ok(());
        };
        let passed = match stream.arrived(label.sequence) {
            Arrival::InOrder { passed } => passed,
            Arrival::Late => {
                self.counts.reordered += 1;
                0
            }
            Arrival::Repeated => {
                self.counts.duplicated += 1;
                return Ok(());
            }
        };
        self.counts.received += 1;
        self.counts.received_bytes += frame.length as u64;
        let measured_at = if self.shape == Shape::Sub {
            now_ns
        } else {
            label.at_ns
        };
        if self.measured.contains(&measured_at) {
            record(&mut self.latency, now_ns.saturating_sub(label.at_ns));
        }
        if let Some(publisher) = self.publishers.get_mut(label.publisher as usize) {
            publisher.passed += passed;
            self.refill(sockets, label.publisher as usize, now_ns);
        }
        Ok(())
    }

    /// What this subscriber has seen of the message's publisher; `None` when the message is not of this run.
    fn stream(&mut self, subscriber: u32, label: &Label) -> Option<&mut Stream> {
        let publisher = label.publisher;
        match &mut self.streams {
            Streams::Known(streams) => {
                if label.run != self.run || publisher as usize >= self.publishers.len() {
                    return None;
                }
                let position = match self.shape {
                    Shape::RoundTrip | Shape::Pairs if subscriber != publisher => return None,
                    Shape::RoundTrip | Shape::Pairs => subscriber as usize,
                    _ => subscriber as usize * self.publishers.len() + publisher as usize,
                };
                streams.get_mut(position)
            }
            Streams::Unknown(streams) => {
                let key = (subscriber, label.run, publisher);
                if streams.len() >= STREAMS_MAX && !streams.contains_key(&key) {
                    return None;
                }
                let begun = || Stream::from(label.sequence);
                Some(streams.entry(key).or_insert_with(begun))
            }
        }
    }

    fn count_failure(&mut self, why: &Down) {
        let reason = why.to_string();
        let is_known = self.failures.contains_key(&reason);
        let reason = if is_known || self.failures.len() < REASONS_MAX {
            reason
        } else {
            "other reasons".to_owned()
        };
        *self.failures.entry(reason).or_default() += 1;
    }

    /// What is wrong with a broker's limits for this run.
    fn limited(&self, connack: &ConnAck, publishes: bool) -> Option<Down> {
        if publishes && connack.maximum_qos < self.qos {
            return Some(Down::MaximumQos(connack.maximum_qos));
        }
        let size_max = u32::try_from(self.size_max).unwrap_or(u32::MAX);
        (connack.packet_bytes_max < size_max).then_some(Down::PacketBytes(connack.packet_bytes_max))
    }
}

impl Handler for Flow {
    fn up(
        &mut self,
        sockets: &mut Sockets,
        token: usize,
        connack: &ConnAck,
        now_ns: u64,
    ) -> Result<(), Down> {
        let role = self.roles[token];
        self.counts.up += 1;
        let publisher = self.publishers.get_mut(role.publisher as usize);
        let publishes = publisher.is_some();
        if let Some(publisher) = publisher {
            publisher.window = publisher.window.min(connack.receive_maximum.into());
        }
        if let Some(why) = self.limited(connack, publishes) {
            return Err(why);
        }
        self.counts.accepted += 1;
        self.counts.sessions_present += u32::from(connack.session_present);
        if let Some(seconds) = connack.keep_alive_s {
            self.keep_alive_s = seconds;
        }
        if self.first_up_ns == 0 {
            self.first_up_ns = now_ns;
        }
        self.last_up_ns = now_ns;
        let took_ns = now_ns.saturating_sub(sockets.get(token).intended_ns);
        record(&mut self.connect_latency, took_ns);
        let filters = self.filter.len().max(1);
        if let Some(filter) = self.filter.get(role.subscriber as usize % filters)
            && role.subscriber != NOBODY
        {
            let packet = packets::subscribe(self.version, filter, self.qos)
                .map_err(|error| Down::Io(error.to_string()))?;
            sockets.out(token).extend_from_slice(&packet);
        }
        Ok(())
    }

    fn packet(
        &mut self,
        sockets: &mut Sockets,
        token: usize,
        frame: Frame<'_>,
        now_ns: u64,
    ) -> Result<(), Down> {
        match frame.first >> 4 {
            3 => self.received(sockets, token, frame, now_ns)?,
            4 | 7 => {
                let (id, code) = packets::answered(frame.first, frame.body)?;
                self.acknowledged(sockets, token, id, code, now_ns);
            }
            5 => {
                let (id, code) = packets::answered(frame.first, frame.body)?;
                if code >= 0x80 {
                    self.acknowledged(sockets, token, id, code, now_ns);
                } else {
                    let pubrel = packets::answer(0x62, id);
                    sockets.out(token).extend_from_slice(&pubrel);
                }
            }
            6 => {
                let (id, _) = packets::answered(frame.first, frame.body)?;
                let pubcomp = packets::answer(0x70, id);
                sockets.out(token).extend_from_slice(&pubcomp);
            }
            9 => {
                let (_, code) = packets::answered(frame.first, frame.body)?;
                match code {
                    0x80.. => return Err(Down::Subscription(code)),
                    _ if code < self.qos => return Err(Down::Granted(code)),
                    _ => self.counts.subscribed += 1,
                }
            }
            13 => self.counts.pongs += 1,
            14 => {
                let code = frame.body.first().copied().unwrap_or_default();
                return Err(Down::Disconnected(code));
            }
            _ => return Err(Down::Malformed(frame.first)),
        }
        Ok(())
    }

    fn unblocked(&mut self, sockets: &mut Sockets, token: usize, now_ns: u64) {
        let index = self.roles[token].publisher as usize;
        if index < self.publishers.len() {
            self.refill(sockets, index, now_ns);
        }
    }

    fn down(&mut self, _token: usize, was_up: bool, why: Down) {
        if was_up {
            self.counts.up -= 1;
            self.counts.lost_connections += 1;
        }
        self.count_failure(&why);
        self.first_failure.get_or_insert(why);
    }
}

fn known(streams: usize) -> Streams {
    Streams::Known((0..streams).map(|_| Stream::default()).collect())
}

/// Never 0, and not in use by another message: windows are smaller.
fn packet_id(sequence: u64) -> u16 {
    (sequence % u64::from(INFLIGHT_MAX)) as u16 + 1
}

fn histogram() -> Result<Histogram<u64>, BenchError> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3)
        .map_err(|_| crate::SimError::Internal("no histogram").into())
}

fn record(histogram: &mut Histogram<u64>, nanoseconds: u64) {
    histogram.saturating_record(nanoseconds.max(1));
}
