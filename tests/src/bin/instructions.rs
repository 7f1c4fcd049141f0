//! Runs one piece of a message's path so often, for counting its instructions: `instructions SCENARIO ITERATIONS`.
//!
//! `scripts/instructions.py` runs it under callgrind with two iteration counts; the difference is what the iterations
//! cost, start-up cancels out. Each scenario is one thread without sockets, clock or disk. Does not know: callgrind.

use motemq_codec::QoS;
use motemq_core::{Acl, Broker, Identity, Limits, RateLimit, SharedRate};
use motemq_tests::measured::{
    Client, JOURNAL_BYTES_MAX, PAYLOAD, VERSION, add_queue, batch_of, encoded, must, open_engine,
    publish,
};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
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
        "deliver" => deliver(iterations, QoS::AtMostOnce, &Guard::Off),
        "deliver_guarded" => deliver(iterations, QoS::AtMostOnce, &Guard::On),
        "deliver_q1" => deliver(iterations, QoS::AtLeastOnce, &Guard::Off),
        "commit" => commit(iterations),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: instructions decode|match|deliver|deliver_guarded|deliver_q1|commit ITERATIONS"
    );
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

/// Whether an ACL of 200 rules is asked and every rate and count is limited.
#[derive(PartialEq, Eq)]
enum Guard {
    Off,
    On,
}

/// A PUBLISH from its bytes to the bytes for one subscriber; with QoS 1 also both acknowledgements.
fn deliver(iterations: u64, qos: QoS, guard: &Guard) {
    let is_guarded = *guard == Guard::On;
    let limits = match is_guarded {
        true => guarded_limits(),
        false => Limits::default(),
    };
    let broker = Broker::without_store(Arc::new(limits));
    let identity = |name: &str| match is_guarded {
        true => Identity::User(name.into()),
        false => Identity::Anonymous,
    };
    let rate = is_guarded.then(|| Arc::new(SharedRate::new(FAR_AWAY)));
    if is_guarded {
        broker.set_acl(Arc::new(must(Acl::parse(&acl_of_200_rules()))));
    }
    let connect = |name: &str| Client::connect_as(&broker, name, identity(name), rate.clone());
    let mut publisher = connect("publisher");
    let mut subscriber = connect("subscriber");
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

/// Everything limited, nothing reached.
fn guarded_limits() -> Limits {
    Limits {
        publish_rate: FAR_AWAY,
        identity_publish_rate: FAR_AWAY,
        identity_sessions_max: 1_000,
        identity_connections_max: 1_000,
        client_retained_messages_max: 1_000,
        client_retained_bytes_max: 1 << 20,
        ..Limits::default()
    }
}

/// Half of them about the two clients.
fn acl_of_200_rules() -> String {
    let mut text = String::from("[everyone]\n");
    for number in 0..50 {
        text += &format!("deny publish secret/{number}/#\ndeny subscribe secret/{number}/#\n");
    }
    for number in 0..49 {
        text += &format!("[user other-{number}]\nallow all site/{number}/#\nallow all %c/#\n");
    }
    text + "[user publisher]\nallow publish site/#\n[user subscriber]\nallow subscribe site/#\n"
}

/// Commits of 100 messages for one queue each, and of the acknowledgements of the 100 before, folding included.
fn commit(iterations: u64) {
    let (db, mut engine) = open_engine();
    let queue = add_queue(&db, &mut engine);
    // Beyond the start of folding, so that every later commit does the same work.
    for batch in 0..WARM_UP_BATCHES + iterations {
        let actions = batch_of(queue, batch * BATCH, BATCH);
        must(engine.commit(&db, black_box(&actions), &|| Duration::ZERO));
    }
    assert!(engine.journal_bytes() < JOURNAL_BYTES_MAX / 2);
}

fn count(iterations: u64) -> usize {
    must(usize::try_from(iterations))
}

const PACKET_BYTES_MAX: usize = 1 << 20;
/// A rate that is not reached.
const FAR_AWAY: RateLimit = RateLimit {
    messages: 1_000_000_000,
    bytes: 1 << 40,
};
/// Topics looked up in turn, so that the layout of one look-up does not decide.
const TOPICS: u64 = 1_000;
/// The sessions that receive each topic.
const RECEIVERS: usize = 2;
/// Messages in a commit.
const BATCH: u64 = 100;
const WARM_UP_BATCHES: u64 = 100;
