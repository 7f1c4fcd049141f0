//! The page of `/metrics`: every value of the [table], read where it is counted.
//!
//! The broker counts in plain structs; a scrape adds them up. It takes each session's lock once, for a moment, and no other lock for
//! long. How many series there are depends on the listeners, never on the clients.

mod page;
mod process;
pub mod table;

use crate::ban::Cause;
use crate::clock;
use crate::config::Protocol;
use crate::listener::{Listener, Refusal};
use crate::server::Server;
use crate::store::journal::RedbJournal;
use crate::tls_counts::Outcome;
use crate::websocket::Violation;
use motemq_codec::{ProtocolVersion, QoS};
use motemq_core::{
    Basis, Broker, Counters, Direction, DropReason, Limit, Occasion, PacketKind, Timestamp,
};
use page::Page;
use process::Process;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use table::*;

/// The text of `/metrics`.
#[must_use]
pub fn render(server: &Server) -> String {
    let mut page = Page::default();
    let listeners = server.listeners();
    process(&mut page, server);
    configuration(&mut page, server);
    connections(&mut page, server, &listeners);
    tls(&mut page, server, &listeners);
    messages(&mut page, server.broker().counters());
    state(&mut page, server.broker());
    if let Some(journal) = server.journal() {
        store(&mut page, journal);
    }
    page.into_text()
}

fn process(page: &mut Page, server: &Server) {
    let labels = [env!("CARGO_PKG_VERSION"), env!("BUILD_COMMIT")];
    page.family(&BUILD_INFO, [(labels, 1)]);
    if let Some(process) = Process::look() {
        page.plain(&CPU_SECONDS, process.cpu_s);
        page.plain(&RESIDENT_BYTES, process.resident_bytes);
        page.plain(&VIRTUAL_BYTES, process.virtual_bytes);
        page.plain(&OPEN_FDS, process.open_fds);
        let max_fds = process.max_fds.map_or(f64::INFINITY, |max| max as f64);
        page.plain(&MAX_FDS, Number(max_fds));
    }
    page.plain(&START_TIME, seconds(clock::started_at()));
    page.plain(&MEMORY_BYTES, server.memory().used_bytes());
    page.plain(&MEMORY_BYTES_MAX, server.memory().max_bytes());
    let pressure = server.broker().pressure().level() as u8;
    page.plain(&MEMORY_PRESSURE, pressure);
    let marks = server.memory().marks();
    page.family(
        &MEMORY_PRESSURE_BYTES,
        marks.map(|(level, bytes)| ([level], bytes)),
    );
    let lag = server.vitals().loop_lag().buckets();
    page.histograms(&LOOP_LAG, PER_SECOND, [([], lag)]);
    page.plain(&PANICS, server.panics());
}

fn configuration(page: &mut Page, server: &Server) {
    page.plain(&RELOAD_SUCCESSFUL, u8::from(server.is_reloaded()));
    page.plain(&RELOAD_TIME, seconds(server.vitals().configured_at()));
    let (successes, failures) = server.vitals().reloads();
    let results = [(["success"], successes), (["failure"], failures)];
    page.family(&RELOADS, results);
}

fn connections(page: &mut Page, server: &Server, listeners: &[Arc<Listener>]) {
    let by_version = || {
        listeners.iter().flat_map(|listener| {
            let (name, transport) = (name(listener), listener.transport());
            let counts = listener.connected_by_version();
            counts.map(move |(version, now, all)| ([name, transport, version], now, all))
        })
    };
    page.family(
        &CONNECTIONS,
        by_version().map(|(labels, now, _)| (labels, now)),
    );
    page.family(&OPENED, by_version().map(|(labels, _, all)| (labels, all)));
    let accepted = |listener| ([name(listener)], listener.accepted());
    page.family(&ACCEPTED, listeners.iter().map(|each| accepted(each)));
    let closed = listeners.iter().flat_map(|listener| {
        let closed = listener.closed();
        closed.map(|(reason, count)| ([name(listener), reason], count))
    });
    page.family(&CLOSED, closed);
    let refused = listeners.iter().flat_map(|listener| {
        let reasons = Refusal::ALL.into_iter();
        reasons.map(|reason| ([name(listener), reason.label()], listener.refused(reason)))
    });
    page.family(&REFUSED, refused);
    let refused = listeners.iter().flat_map(|listener| {
        let refused = listener.connects_refused();
        refused.map(|(reason, count)| ([name(listener), reason], count))
    });
    page.family(&CONNECTS_REFUSED, refused);
    page.plain(&UNAUTHENTICATED, server.unauthenticated());
    page.plain(&EVICTED, server.admission().places().evicted());
    let counters = server.broker().counters();
    page.plain(
        &KEEP_ALIVE_TIMEOUTS,
        counters.noted(Occasion::KeepAliveTimeout),
    );
    page.plain(&STALLS, server.vitals().stalls());
    page.plain(&SLOW_CONSUMERS, server.vitals().slow_consumers());
    page.plain(&TRACES, server.traces().open());
    page.plain(&TRACES_REFUSED, server.traces().refused());
    page.plain(&TRACE_PACKETS_LOST, server.traces().lost());
    page.plain(&PASSWORD_CHECKS_REFUSED, server.password_checks().refused());
    page.plain(&BANS, server.bans().list().len());
    let imposed = |cause: Cause| ([cause.label()], server.bans().imposed(cause));
    page.family(&BANS_IMPOSED, Cause::ALL.into_iter().map(imposed));
    let is_websocket = |listener: &&Arc<Listener>| listener.config().protocol == Protocol::Ws;
    let violations = listeners.iter().filter(is_websocket).flat_map(|listener| {
        let all = Violation::ALL.into_iter();
        all.map(|each| ([name(listener), each.label()], listener.violated(each)))
    });
    page.family(&WEBSOCKET_VIOLATIONS, violations);
}

fn tls(page: &mut Page, server: &Server, listeners: &[Arc<Listener>]) {
    let of_tls = || {
        let all = listeners.iter();
        all.filter_map(|listener| Some((name(listener), listener, listener.tls()?)))
    };
    let handshakes = of_tls().flat_map(|(name, listener, _)| {
        let completed = listener.tls_counts().completed();
        let completed = completed
            .map(move |(outcome, version, count)| ([name, outcome.label(), version], count));
        let failed = (
            [name, Outcome::Failed.label(), "none"],
            listener.tls_failed(),
        );
        completed.chain([failed])
    });
    page.family(&HANDSHAKES, handshakes);
    let durations = of_tls().flat_map(|(name, listener, _)| {
        Outcome::ALL.into_iter().map(move |outcome| {
            let durations = listener.tls_counts().durations(outcome);
            ([name, outcome.label()], durations.buckets())
        })
    });
    page.histograms(&HANDSHAKE_SECONDS, PER_SECOND, durations);
    let bytes = of_tls().flat_map(|(name, listener, _)| {
        let bytes = listener.tls_counts().bytes().into_iter();
        bytes.map(move |(direction, count)| ([name, direction], count))
    });
    page.family(&HANDSHAKE_BYTES, bytes);
    let ends = of_tls().flat_map(|(name, _, tls)| {
        let ends = tls.ends();
        ends.map(move |(what, end_s)| ([name, what.label()], end_s))
    });
    page.family(&CERT_EXPIRY, ends);
    let now = clock::now();
    let expiring = [("7d", 7), ("30d", 30), ("90d", 90)]
        .map(|(within, days)| ([within], server.vitals().certificates_ending(now, days)));
    page.family(&CLIENT_CERTS_EXPIRING, expiring);
    let overdue = of_tls().map(|(name, _, tls)| ([name], u8::from(tls.is_crl_overdue())));
    page.family(&CRL_OVERDUE, overdue);
    let lists = || of_tls().filter_map(|(name, _, tls)| Some(([name], tls.allow_list()?)));
    let admitted = lists().map(|(labels, list)| (labels, list.len()));
    page.family(&ALLOW_LIST_CERTIFICATES, admitted);
    let broken = lists().map(|(labels, list)| (labels, u8::from(list.fault().is_some())));
    page.family(&ALLOW_LIST_BROKEN, broken);
    let counters = server.broker().counters();
    let noted = |(label, occasion)| ([label], counters.noted(occasion));
    let requests = [
        ("relayed", Occasion::EnrolmentRelayed),
        ("refused", Occasion::EnrolmentRefused),
    ];
    page.family(&ENROLMENT_REQUESTS, requests.map(noted));
    let answers = [
        ("delivered", Occasion::EnrolmentAnswered),
        ("unclaimed", Occasion::EnrolmentUnclaimed),
    ];
    page.family(&ENROLMENT_ANSWERS, answers.map(noted));
}

fn messages(page: &mut Page, counters: &Counters) {
    let bytes = |direction: Direction| ([direction.label()], counters.bytes(direction));
    page.family(&BYTES, Direction::ALL.map(bytes));
    let kinds = [
        (Direction::In, PacketKind::IN),
        (Direction::Out, PacketKind::OUT),
    ];
    let packets = kinds.into_iter().flat_map(|(direction, kinds)| {
        kinds.map(|kind| {
            let labels = [direction.label(), kind.label()];
            (labels, counters.packets(direction, kind))
        })
    });
    page.family(&PACKETS, packets);
    let publishes = by_qos_and_version().map(|(labels, (direction, qos, version))| {
        (labels, counters.publishes(direction, qos, version))
    });
    page.family(&PUBLISHES, publishes);
    let payloads = by_qos_and_version().map(|(labels, (direction, qos, version))| {
        (labels, counters.payload_bytes(direction, qos, version))
    });
    page.family(&PAYLOAD_BYTES, payloads);
    page.plain(&PUBLISHES_REFUSED, counters.noted(Occasion::PublishRefused));
    let dropped = |reason: DropReason| ([reason.label()], counters.dropped(reason));
    page.family(&DROPPED, DropReason::ALL.map(dropped));
    let reached = |limit: Limit| ([limit.label()], counters.reached(limit));
    page.family(&LIMITS, Limit::ALL.map(reached));
    let denied = [
        ("publish", Occasion::PublishDenied),
        ("subscribe", Occasion::SubscribeDenied),
        ("connect", Occasion::ConnectDenied),
        ("will", Occasion::WillDenied),
    ];
    let noted = |(label, occasion)| ([label], counters.noted(occasion));
    page.family(&ACL_DENIED, denied.map(noted));
    let acknowledged = |basis: Basis| ([basis.label()], counters.acknowledgements(basis));
    page.family(&ACKNOWLEDGEMENTS, Basis::ALL.map(acknowledged));
    let latency = |(label, qos)| ([label], counters.delivery_latency(qos).buckets());
    page.histograms(&DELIVERY_LATENCY, PER_SECOND, QUALITIES.map(latency));
    let [_, at_least_once, exactly_once] = QUALITIES;
    let round_trip = |(label, qos)| ([label], counters.ack_round_trip(qos).buckets());
    let round_trips = [at_least_once, exactly_once].map(round_trip);
    page.histograms(&ACK_ROUND_TRIP, PER_SECOND, round_trips);
    page.plain(&ALIAS_BYTES_SAVED, counters.alias_bytes_saved());
    page.plain(&WILLS, counters.noted(Occasion::WillPublished));
}

fn state(page: &mut Page, broker: &Broker) {
    let totals = broker.session_totals();
    let counters = broker.counters();
    let in_flight = [
        (["in"], counters.in_flight_in()),
        (["out"], totals.in_flight as u64),
    ];
    page.family(&IN_FLIGHT, in_flight);
    let offline = totals.sessions - totals.connected;
    let sessions = [(["connected"], totals.connected), (["offline"], offline)];
    page.family(&SESSIONS, sessions);
    page.plain(&TAKEOVERS, counters.noted(Occasion::Takeover));
    page.plain(&SESSIONS_EXPIRED, counters.noted(Occasion::SessionExpired));
    page.plain(&QUEUE_MESSAGES, totals.queued_messages);
    page.plain(&QUEUE_BYTES, totals.queued_bytes);
    page.plain(&QUEUE_MESSAGES_MAX, totals.queued_messages_max);
    page.plain(&QUEUE_BYTES_MAX, totals.queued_bytes_max);
    let now = clock::now();
    let oldest = totals.oldest_at.map(|at| now.since(at).as_secs_f64());
    page.plain(&QUEUE_OLDEST, oldest.unwrap_or(0.0));
    page.plain(&SUBSCRIPTIONS, broker.subscriptions());
    let (messages, bytes) = broker.retained_size();
    page.plain(&RETAINED_MESSAGES, messages);
    page.plain(&RETAINED_BYTES, bytes);
}

fn store(page: &mut Page, journal: &RedbJournal) {
    let counters = journal.counters();
    let durations = counters.commit_us.buckets();
    page.histograms(&COMMIT_SECONDS, PER_SECOND, [([], durations)]);
    let records = counters.commit_records.buckets();
    page.histograms(&COMMIT_RECORDS, 1.0, [([], records)]);
    page.plain(&STORE_RECORDS, counters.records.load(Ordering::Relaxed));
    page.plain(
        &STORE_BODIES_READ,
        counters.bodies_read.load(Ordering::Relaxed),
    );
    page.plain(&STORE_FULL, journal.times_full());
    page.plain(&STORE_FILE_BYTES, journal.file_bytes());
    page.plain(
        &STORE_JOURNAL_BYTES,
        counters.journal_bytes.load(Ordering::Relaxed),
    );
    page.plain(&STORE_QUEUE_BYTES, journal.queue_bytes());
}

fn name(listener: &Listener) -> &str {
    &listener.config().name
}

type Traffic = (Direction, QoS, ProtocolVersion);

fn by_qos_and_version() -> impl Iterator<Item = ([&'static str; 3], Traffic)> {
    Direction::ALL.into_iter().flat_map(|direction| {
        QUALITIES.into_iter().flat_map(move |(qos_label, qos)| {
            VERSIONS.into_iter().map(move |(version_label, version)| {
                let labels = [direction.label(), qos_label, version_label];
                (labels, (direction, qos, version))
            })
        })
    })
}

fn seconds(at: Timestamp) -> f64 {
    at.as_ms() as f64 / 1e3
}

/// A number that may be infinite, as the text format writes it.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.is_infinite() {
            true => f.write_str("+Inf"),
            false => self.0.fmt(f),
        }
    }
}

/// Histograms of durations count microseconds.
const PER_SECOND: f64 = 1e6;
const QUALITIES: [(&str, QoS); 3] = [
    ("0", QoS::AtMostOnce),
    ("1", QoS::AtLeastOnce),
    ("2", QoS::ExactlyOnce),
];
const VERSIONS: [(&str, ProtocolVersion); 3] = [
    ("3.1", ProtocolVersion::V3_1),
    ("3.1.1", ProtocolVersion::V3_1_1),
    ("5", ProtocolVersion::V5),
];
