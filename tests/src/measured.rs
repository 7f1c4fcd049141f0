//! What the benchmarks and the instruction counts run: clients without sockets, and a journal without a disk.
//!
//! Does not know: what is measured.

use motemq::store::engine::{Engine, EngineOptions};
use motemq_codec::{
    Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS,
    RetainHandling, Subscribe, SubscribeFilter, SubscribeFilters, SubscribeOptions, UserProperties,
};
use motemq_core::{
    Action, AssignedIds, Attributes, Broker, ClientId, Connection, ConnectionRules, Event, Expiry,
    Identity, Message, MessageId, Origin, PublishAction, QueueId, QueueRef, RetainedEffect,
    SessionRow, SharedRate, Timestamp, TopicName, Urgency, Verdict,
};
use redb::Database;
use redb::backends::InMemoryBackend;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// A new store in memory, whose journal folds soon.
///
/// # Panics
/// When redb fails.
#[must_use]
pub fn open_engine() -> (Database, Engine) {
    let db = must(Database::builder().create_with_backend(InMemoryBackend::new()));
    must(Engine::create(&db, [7; 16]));
    let options = EngineOptions {
        journal_bytes_max: JOURNAL_BYTES_MAX,
        ..EngineOptions::default()
    };
    let (engine, _) = must(Engine::open(&db, options));
    (db, engine)
}

/// Adds a durable session; its queue.
///
/// # Panics
/// When redb fails.
pub fn add_queue(db: &Database, engine: &mut Engine) -> QueueId {
    let queue = QueueId::session(1);
    let session = Action::SessionPut(Box::new(session_row(queue)));
    must(engine.commit(db, &[session], &|| Duration::ZERO));
    queue
}

/// `messages` deliveries to a queue from the sequence `first` on, and the acknowledgements of as many before them.
#[must_use]
pub fn batch_of(queue: QueueId, first: u64, messages: u64) -> Vec<Action> {
    let sequences = first..first + messages;
    let publishes = sequences.clone().map(|sequence| {
        Action::Publish(PublishAction {
            message: Arc::new(message(sequence)),
            refs: vec![QueueRef {
                queue,
                sequence,
                qos: QoS::AtLeastOnce,
                retain: false,
                subscription_ids: None,
            }],
            retained: RetainedEffect::None,
            inbound: None,
            will_of: None,
        })
    });
    let settled = sequences.filter_map(|sequence| sequence.checked_sub(messages));
    publishes
        .chain(settled.map(|sequence| Action::Settle { queue, sequence }))
        .collect()
}

/// A message of QoS 1.
#[must_use]
pub fn message(sequence: u64) -> Message {
    Message {
        topic: TopicName::new(TOPIC),
        payload: PAYLOAD.into(),
        forwarded: [].into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        publisher: ClientId::new("publisher"),
        origin: Origin::Client,
        hops: 0,
        received_at: NOW,
        expires_at: None,
        urgency: Urgency::default(),
        id: MessageId {
            connection: 1,
            sequence,
        },
        attempts: 0,
    }
}

fn session_row(queue: QueueId) -> SessionRow {
    SessionRow {
        queue,
        client_id: ClientId::new("subscriber"),
        identity: Identity::Anonymous,
        attributes: Attributes::none(),
        epoch: 1,
        expiry: Expiry::Never,
        disconnected_at: None,
        sent_below: 0,
        will: None,
    }
}

/// A connected client; its socket is a buffer.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    /// What the last run wrote.
    pub output: Vec<u8>,
}

impl Client {
    /// Connects an anonymous client with a clean session.
    ///
    /// # Panics
    /// When it is not let in.
    #[must_use]
    pub fn connect(broker: &Broker, client_id: &str) -> Self {
        Self::connect_as(broker, client_id, Identity::Anonymous, None)
    }

    /// Connects a client with a clean session, through a listener whose clients may publish so much.
    ///
    /// # Panics
    /// When it is not let in.
    #[must_use]
    pub fn connect_as(
        broker: &Broker,
        client_id: &str,
        identity: Identity,
        publish_rate: Option<Arc<SharedRate>>,
    ) -> Self {
        let rules = ConnectionRules {
            qos_max: QoS::ExactlyOnce,
            listener: None,
            publish_rate,
            assigned_ids: AssignedIds::Random,
        };
        let mut client = Self {
            connection: Connection::new(rules, broker, NOW),
            output: Vec::new(),
        };
        let connect = Packet::Connect(Box::new(Connect {
            version: VERSION,
            client_id,
            clean_start: true,
            keep_alive_s: 60,
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties::default(),
        }));
        let connect = encoded(&connect);
        let (connection, output) = (&mut client.connection, &mut client.output);
        let (_, event) = connection.handle_bytes(&connect, broker, NOW, output);
        assert!(matches!(event, Some(Event::Authenticate(_))));
        let verdict = Verdict::Accepted {
            login: identity.into(),
            entropy: 0,
        };
        connection.handle_verdict(verdict, broker, NOW, output);
        client.handle(broker, &[]);
        assert_eq!(client.output, [0x20, 2, 0, 0], "CONNACK");
        client
    }

    /// Subscribes.
    ///
    /// # Panics
    /// When the answer is no SUBACK.
    pub fn subscribe(&mut self, broker: &Broker, filters: &[String], qos: QoS) {
        let filters: Vec<SubscribeFilter<'_>> = filters
            .iter()
            .map(|filter| SubscribeFilter {
                filter,
                options: SubscribeOptions {
                    qos,
                    no_local: false,
                    retain_as_published: false,
                    retain_handling: RetainHandling::SendAlways,
                },
            })
            .collect();
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: PACKET_ID,
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::from_list(&filters),
        });
        self.handle(broker, &encoded(&subscribe));
        assert_eq!(self.output.first(), Some(&0x90), "SUBACK");
    }

    /// One run of the server's driver: bytes in, bytes out.
    ///
    /// # Panics
    /// When not all bytes are taken.
    pub fn handle(&mut self, broker: &Broker, bytes: &[u8]) {
        self.output.clear();
        self.connection.begin(Waker::noop(), &mut self.output);
        if !bytes.is_empty() {
            let (progress, _) = self
                .connection
                .handle_bytes(bytes, broker, NOW, &mut self.output);
            assert_eq!(progress.consumed, bytes.len());
        }
        while self
            .connection
            .poll_output(broker, NOW, usize::MAX, &mut self.output)
        {}
        self.connection.flush_tally(broker, || NOW);
    }
}

/// A PUBLISH to [`TOPIC`].
#[must_use]
pub fn publish(qos: QoS) -> Packet<'static> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: TOPIC,
        packet_id: (qos != QoS::AtMostOnce).then_some(PACKET_ID),
        properties: PublishProperties::default(),
        payload: PAYLOAD,
    })
}

/// As bytes.
#[must_use]
pub fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut wire = Vec::new();
    must(packet.encode(VERSION, &mut wire));
    wire
}

#[expect(
    clippy::panic,
    reason = "a measurement that did not do its work is worthless"
)]
/// The value.
///
/// # Panics
/// When there is none.
pub fn must<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

/// The version that the clients speak.
pub const VERSION: ProtocolVersion = ProtocolVersion::V3_1_1;
/// Where messages go.
pub const TOPIC: &str = "site/17/meter/42/power";
/// What they carry.
pub const PAYLOAD: &[u8] = &[b'x'; 32];
/// The time, always.
pub const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);
/// The limit of the journal.
pub const JOURNAL_BYTES_MAX: u64 = 1 << 20;
const PACKET_ID: PacketId = const { PacketId::new(1).unwrap() };
