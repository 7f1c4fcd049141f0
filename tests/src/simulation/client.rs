//! A correct client, as a state machine beside its connection: what it must remember by the specification.

use super::dice::Dice;
use super::ledger::PublishId;
use motemq_codec::{AckKind, PacketId, ProtocolVersion, QoS};
use std::collections::{BTreeMap, VecDeque};

/// How a client connects.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Sessions that outlive the connection.
    Durable,
    /// Sessions that end with it.
    Clean,
    /// MQTT 5: now this, now that, with short expiries.
    Fickle,
}

/// An exchange towards the broker.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Its packet id.
    pub packet_id: u16,
    /// The message.
    pub publish: PublishId,
    /// QoS 2: PUBREC came, PUBREL is owed or sent.
    pub is_released: bool,
    /// QoS 2: how often PUBREL was sent.
    pub releases: u32,
}

/// What a reply of the broker must answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    /// PUBACK.
    PubAck(u16),
    /// PUBREC.
    PubRec(u16),
    /// PUBCOMP.
    PubComp(u16),
    /// SUBACK.
    SubAck(u16),
    /// UNSUBACK.
    UnsubAck(u16),
}

/// A SUBSCRIBE or UNSUBSCRIBE under way.
#[derive(Clone, Debug)]
pub struct Changing {
    /// Its packet id.
    pub packet_id: u16,
    /// The filters, with the QoS asked for.
    pub filters: Vec<(String, QoS)>,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    /// Its client identifier.
    pub name: String,
    /// Its version.
    pub version: ProtocolVersion,
    /// How it connects.
    pub kind: Kind,
    /// Its present connection.
    pub link: Option<usize>,
    /// CONNACK came.
    pub is_online: bool,
    /// It must begin anew: it has dropped its state.
    pub must_clean: bool,
    /// Counts its sessions, as far as it knows.
    pub incarnation: u32,
    /// Connections within this session.
    pub connections: u32,
    /// Unfinished exchanges, in order.
    pub outbound: VecDeque<Outbound>,
    /// QoS 2 packet ids received and not released, with the message.
    pub inbound: BTreeMap<u16, PublishId>,
    /// Acknowledgements to send, in order.
    pub acks: VecDeque<(AckKind, PacketId, bool)>,
    /// Replies that must come, in order.
    pub expected: VecDeque<Expected>,
    /// Subscriptions under way.
    pub changing: Vec<Changing>,
    /// Filters it has, as far as it knows.
    pub filters: BTreeMap<String, QoS>,
    /// Counts by topic and QoS.
    pub sequences: BTreeMap<(String, u8), u64>,
    /// What it asked for in the last CONNECT.
    pub asked: Asked,
    /// Counts wills.
    pub wills: u64,
    /// A connection that may have begun a new session, and whose CONNACK was not read.
    pub stale_since: Option<usize>,
}

/// What a CONNECT asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Clean Start.
    pub clean_start: bool,
    /// Session expiry in seconds, as it will be in force; 0 ends with the connection.
    pub expiry_s: u32,
    /// The will, by its place in the ledger.
    pub will: Option<usize>,
}

impl Client {
    /// A client that has never connected.
    #[must_use]
    pub fn new(number: usize, version: ProtocolVersion, kind: Kind) -> Self {
        Self {
            name: format!("c{number}"),
            version,
            kind,
            link: None,
            is_online: false,
            must_clean: false,
            incarnation: 0,
            connections: 0,
            outbound: VecDeque::new(),
            inbound: BTreeMap::new(),
            acks: VecDeque::new(),
            expected: VecDeque::new(),
            changing: Vec::new(),
            filters: BTreeMap::new(),
            sequences: BTreeMap::new(),
            asked: Asked::default(),
            wills: 0,
            stale_since: None,
        }
    }

    /// Forgets its session.
    pub fn forget_session(&mut self) {
        self.incarnation += 1;
        self.connections = 0;
        self.outbound.clear();
        self.inbound.clear();
        self.filters.clear();
    }

    /// Whether there is anything to resume.
    #[must_use]
    pub fn has_state(&self) -> bool {
        !(self.outbound.is_empty() && self.inbound.is_empty() && self.filters.is_empty())
    }

    /// Its connection is gone.
    pub fn cut(&mut self) {
        self.link = None;
        self.is_online = false;
        self.acks.clear();
        self.expected.clear();
        self.changing.clear();
        if self.asked.expiry_s == 0 {
            self.forget_session();
        }
    }

    /// The smallest packet id that is free: ids are reused as soon as they may be.
    #[must_use]
    pub fn free_packet_id(&self) -> u16 {
        (1..u16::MAX)
            .find(|id| {
                self.outbound.iter().all(|known| known.packet_id != *id)
                    && self.changing.iter().all(|known| known.packet_id != *id)
            })
            .unwrap_or(u16::MAX)
    }

    /// The exchange with this packet id.
    pub fn exchange(&mut self, packet_id: u16) -> Option<&mut Outbound> {
        self.outbound
            .iter_mut()
            .find(|known| known.packet_id == packet_id)
    }

    /// What it will ask for when it connects: clean start, session expiry.
    pub fn wish(&self, dice: &mut Dice, expiry_max_s: u32) -> (bool, u32) {
        let (clean_start, expiry_s) = match (self.kind, self.version) {
            (Kind::Clean, ProtocolVersion::V5) => (dice.chance(500), 0),
            (Kind::Clean, _) => (true, 0),
            (Kind::Durable, ProtocolVersion::V5) => (dice.chance(20), dice.pick(&[50_000, 80_000])),
            (Kind::Durable, _) => (false, expiry_max_s),
            (Kind::Fickle, _) => (dice.chance(200), dice.pick(&[0, 5, 20, 60, 1000, 50_000])),
        };
        // 3.1.1 knows only the two together.
        match self.version {
            ProtocolVersion::V5 => (clean_start || self.must_clean, expiry_s),
            _ => (clean_start, expiry_s),
        }
    }
}
