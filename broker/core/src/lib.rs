//! The MoteMQ broker as data: sessions, routing, retained messages and the durability contract.
//!
//! Promises: no I/O, no clock, no threads, no randomness. Time and randomness are arguments; what must happen outside
//! leaves as a value or through one of the three seams: publish ([`Broker::publish`]), mailbox ([`Mailbox`]) and store
//! ([`Journal`]). The same code runs under the server's tasks and, in virtual time, under the simulation.
//!
//! Lock order (never held across a suspension, always taken in this order): session registry, session, deadlines, retained
//! stripe, router, retained, share group, mailbox, record, journal, wake-up; a trace's queue under any of them. The history is
//! taken with none held.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod acl;
mod action;
mod broker;
mod connection;
mod counters;
mod deadline;
mod enrolment;
mod glob;
mod histogram;
mod history;
mod image;
mod journal;
mod level_tree;
mod limits;
mod login;
mod mailbox;
mod message;
mod pressure;
mod profile;
mod queue_refs;
mod rate;
mod record;
mod retained;
mod router;
mod session;
mod share_group;
mod short_text;
mod sim_journal;
mod slab;
mod subscribers;
mod sync;
mod time;
mod trace;
mod trie;
mod wakeup;

pub use acl::{Acl, AclError, AclFault, Decision, Grant, PublishRights, Rights, import_mosquitto};
pub use action::{
    Action, PublishAction, QueueId, QueueRef, RetainedEffect, SessionRow, StoredSubscription, Will,
};
pub use broker::{
    Broker, OperatorMessage, PublishSource, Receipt, SessionFacts, SessionTotals,
    SubscriptionFacts, SystemRefresh,
};
pub use connection::{
    AssignedIds, Close, ConnectRequest, Connection, ConnectionRules, Denial, DeniedAction, Event,
    ExchangeAnswer, ExchangeStage, ExchangeStep, Meters, Progress, Verdict, Violation,
};
pub use counters::{Basis, Counters, Direction, DropReason, Limit, Occasion, PacketKind, Tally};
pub use enrolment::Enrolment;
pub use glob::glob_matches;
pub use histogram::{Buckets, Histogram};
pub use history::{
    ClientMatch, EventFilter, EventKind, HISTORY_BYTES_MAX, History, HistoryEvent, LossReason,
    Snapshot,
};
pub use image::{Image, QueueImage, StoredRef};
pub use journal::{BacklogRequest, Journal, JournalFailure, NO_POSITION, NoJournal, Room};
pub use limits::{Limits, QueueFull, RateFull, ShareRedispatch, ShareStrategy};
pub use login::{Attributes, Login, Principal, Scope};
pub use mailbox::{Load, Mailbox, Outgoing};
pub use message::{ClientId, Expiry, Identity, Message, MessageId, Origin, TopicName, Urgency};
pub use pressure::{Pressure, PressureLevel};
pub use profile::{LimitSet, Profile};
pub use queue_refs::QueueRefs;
pub use rate::{RateLimit, SharedRate};
pub use record::{Record, RecordState};
pub use retained::Retained;
pub use router::{Receiver, Receivers, Router, Subscription};
pub use session::Session;
pub use share_group::ShareGroup;
pub use sim_journal::{SimDisk, SimJournal, SimJournalRules};
pub use time::Timestamp;
pub use trace::{
    TooManyTraces, Trace, TraceFilter, TraceLimits, Traced, TracedDirection, TracedPacket,
    TracedValue,
};
pub use trie::TopicTrie;
pub use wakeup::Wakeup;
