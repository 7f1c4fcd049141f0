//! What a commit costs without the disk: messages into one queue with the acknowledgements of those before, folding included.

#![expect(clippy::unwrap_used, reason = "a benchmark may fail loudly")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use motemq::store::engine::{Engine, EngineOptions};
use motemq_codec::QoS;
use motemq_core::{
    Action, ClientId, Expiry, Identity, Message, MessageId, Origin, PublishAction, QueueId,
    QueueRef, RetainedEffect, SessionRow, Timestamp, TopicName, Urgency,
};
use redb::{Database, backends::InMemoryBackend};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

criterion_group!(benches, commit);
criterion_main!(benches);

fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit");
    for messages in [1, 10, 100, 1000] {
        let db = Database::builder().create_with_backend(InMemoryBackend::new());
        let db = db.unwrap();
        Engine::create(&db, [7; 16]).unwrap();
        let options = EngineOptions {
            journal_bytes_max: 1 << 20,
            ..EngineOptions::default()
        };
        let (mut engine, _) = Engine::open(&db, options).unwrap();
        let queue = QueueId::session(1);
        let session = Action::SessionPut(Box::new(session(queue)));
        engine.commit(&db, &[session], &|| Duration::ZERO).unwrap();
        let mut sequence = 0;
        group.throughput(Throughput::Elements(messages));
        group.bench_function(BenchmarkId::new("messages", messages), |bencher| {
            bencher.iter(|| {
                let actions = batch(queue, sequence, messages);
                sequence += messages;
                engine
                    .commit(&db, black_box(&actions), &|| Duration::ZERO)
                    .unwrap()
            });
        });
    }
    group.finish();
}

/// `messages` deliveries from `first` on, and the ends of as many before them.
fn batch(queue: QueueId, first: u64, messages: u64) -> Vec<Action> {
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
    let ended = sequences.filter_map(|sequence| sequence.checked_sub(messages));
    publishes
        .chain(ended.map(|sequence| Action::Settle { queue, sequence }))
        .collect()
}

fn message(sequence: u64) -> Message {
    Message {
        topic: TopicName::new("sensors/12345/temp/c"),
        payload: [b'x'; 32].into(),
        forwarded: [].into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        publisher: ClientId::new("publisher"),
        origin: Origin::Client,
        hops: 0,
        received_at: Timestamp::default(),
        expires_at: None,
        urgency: Urgency::default(),
        id: MessageId {
            connection: 1,
            sequence,
        },
        attempts: 0,
    }
}

fn session(queue: QueueId) -> SessionRow {
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
