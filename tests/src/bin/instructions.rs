//! Runs one piece of a message's path so often, for counting its instructions: `instructions SCENARIO ITERATIONS`.
//!
//! `scripts/instructions.py` runs it under callgrind with two iteration counts; the difference is what the iterations
//! cost, start-up cancels out. Each scenario is one thread without sockets, clock or disk. Does not know: callgrind.

use motemq::store::engine::{Engine, EngineOptions};
use motemq_codec::{
    Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS,
    RetainHandling, Subscribe, SubscribeFilter, SubscribeFilters, SubscribeOptions, UserProperties,
};
use motemq_core::{
    Action, Broker, ClientId, Connection, ConnectionRules, Event, Expiry, Identity, Limits,
    Message, MessageId, Origin, PublishAction, QueueId, QueueRef, RetainedEffect, SessionRow,
    Timestamp, TopicName, Urgency, Verdict,
};
use redb::Database;
use redb::backends::InMemoryBackend;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scenario, iterations] = arguments.as_slice() else {
        return usage();
    };
    let Ok(iterations) = iterations.parse() else {
        return usage();
    };
    match scenario.as_str() {
        "decode" => decode(iterations),
        "match" => match_topic(iterations),
        "deliver" => deliver(iterations, QoS::AtMostOnce),
        "deliver_q1" => deliver(iterations, QoS::AtLeastOnce),
        "commit" => commit(iterations),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: instructions decode|match|deliver|deliver_q1|commit ITERATIONS");
    ExitCode::from(2)
}

/// One small 3.1.1 PUBLISH of QoS 0, from bytes to a packet.
fn decode(iterations: u64) {
    let wire = encoded(&publish(QoS::AtMostOnce));
    for _ in 0..iterations {
        assert!(motemq_codec::decode(black_box(&wire), VERSION, PACKET_BYTES_MAX).is_ok());
    }
}

/// Who receives one topic, among 10,000 filters of 100 sessions; without the publisher's cache.
fn match_topic(iterations: u64) {
    let broker = Broker::without_store(Arc::new(Limits::default()));
    let mut clients = Vec::new();
    for number in 0..100 {
        let mut client = Client::connect(&broker, &format!("client-{number}"));
        let filters: Vec<String> = (0..100).map(|filter| filter_of(number, filter)).collect();
        client.subscribe(&broker, &filters, QoS::AtMostOnce);
        clients.push(client);
    }
    assert_eq!(broker.subscriptions(), 10_000);
    let topics: Vec<String> = (0..TOPICS)
        .map(|topic| format!("site/{}/meter/{topic}/power", topic % 99 + 1))
        .collect();
    for topic in topics.iter().cycle().take(count(iterations)) {
        // One session takes the whole site, client 0 every power reading.
        assert_eq!(
            broker.receivers(black_box(topic), None).list.len(),
            RECEIVERS
        );
    }
}

/// Of a client's 100 filters, one takes its whole site, one takes a measurement that nobody publishes from all sites,
/// and the others are single topics. Client 0 takes every power reading.
fn filter_of(client: u64, filter: u64) -> String {
    match (client, filter) {
        (0, 0) => "site/+/meter/+/power".to_owned(),
        (_, 0) => format!("site/{client}/#"),
        (_, 1) => format!("site/+/meter/+/voltage/{client}"),
        _ => format!("site/{client}/meter/{}/state", filter * 100 + client),
    }
}

/// A PUBLISH from its bytes to the bytes for one subscriber; with QoS 1 also both acknowledgements.
fn deliver(iterations: u64, qos: QoS) {
    let broker = Broker::without_store(Arc::new(Limits::default()));
    let mut publisher = Client::connect(&broker, "publisher");
    let mut subscriber = Client::connect(&broker, "subscriber");
    subscriber.subscribe(&broker, &["site/+/meter/+/power".to_owned()], qos);
    let wire = encoded(&publish(qos));
    for _ in 0..iterations {
        publisher.handle(&broker, black_box(&wire));
        subscriber.handle(&broker, &[]);
        assert!(subscriber.output.len() >= PAYLOAD.len());
        if qos == QoS::AtLeastOnce {
            let length = subscriber.output.len();
            let id = &subscriber.output[length - PAYLOAD.len() - 2..length - PAYLOAD.len()];
            let ack = [0x40, 2, id[0], id[1]];
            subscriber.handle(&broker, &ack);
            assert_eq!(publisher.output, [0x40, 2, 0, 1]);
        }
    }
}

/// Commits of 100 messages for one queue each, and of the acknowledgements of the 100 before, folding included.
fn commit(iterations: u64) {
    let backend = Database::builder().create_with_backend(InMemoryBackend::new());
    let db = must(backend);
    must(Engine::create(&db, [7; 16]));
    let options = EngineOptions {
        journal_bytes_max: 1 << 20,
        ..EngineOptions::default()
    };
    let (mut engine, _) = must(Engine::open(&db, options));
    let queue = QueueId::session(1);
    let session = Action::SessionPut(Box::new(session_row(queue)));
    must(engine.commit(&db, &[session], &|| Duration::ZERO));
    // Beyond the start of folding, so that every later commit does the same work.
    for batch in 0..WARM_UP_BATCHES + iterations {
        let actions = batch_of(queue, batch);
        must(engine.commit(&db, black_box(&actions), &|| Duration::ZERO));
    }
    assert!(engine.journal_bytes() < options.journal_bytes_max / 2);
}

fn batch_of(queue: QueueId, batch: u64) -> Vec<Action> {
    let sequences = batch * BATCH..(batch + 1) * BATCH;
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
    let settled = sequences.filter_map(|sequence| sequence.checked_sub(BATCH));
    publishes
        .chain(settled.map(|sequence| Action::Settle { queue, sequence }))
        .collect()
}

fn message(sequence: u64) -> Message {
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
        epoch: 1,
        expiry: Expiry::Never,
        disconnected_at: None,
        sent_below: 0,
        will: None,
    }
}

/// A connected client; its socket is a buffer.
struct Client {
    connection: Connection,
    output: Vec<u8>,
}

impl Client {
    fn connect(broker: &Broker, client_id: &str) -> Self {
        let rules = ConnectionRules {
            qos_max: QoS::ExactlyOnce,
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
            identity: Identity::Anonymous,
            entropy: 0,
        };
        connection.handle_verdict(verdict, broker, NOW, output);
        client.handle(broker, &[]);
        assert_eq!(client.output, [0x20, 2, 0, 0], "CONNACK");
        client
    }

    fn subscribe(&mut self, broker: &Broker, filters: &[String], qos: QoS) {
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
    fn handle(&mut self, broker: &Broker, bytes: &[u8]) {
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
        self.connection.flush_tally(broker);
    }
}

fn publish(qos: QoS) -> Packet<'static> {
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

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut wire = Vec::new();
    must(packet.encode(VERSION, &mut wire));
    wire
}

fn count(iterations: u64) -> usize {
    must(usize::try_from(iterations))
}

#[expect(
    clippy::panic,
    reason = "a measurement that did not do its work is worthless"
)]
fn must<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

const VERSION: ProtocolVersion = ProtocolVersion::V3_1_1;
const TOPIC: &str = "site/17/meter/42/power";
const PAYLOAD: &[u8] = &[b'x'; 32];
const PACKET_ID: PacketId = const { PacketId::new(1).unwrap() };
const PACKET_BYTES_MAX: usize = 1 << 20;
const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);
/// Topics looked up in turn, so that the layout of one look-up does not decide.
const TOPICS: u64 = 1_000;
/// The sessions that receive each topic.
const RECEIVERS: usize = 2;
/// Messages in a commit.
const BATCH: u64 = 100;
const WARM_UP_BATCHES: u64 = 100;
