//! What finding receivers costs: the trie, the subscription table, the retained messages, and a mailbox's way from push to
//! acknowledgement.

#![expect(clippy::unwrap_used, reason = "a benchmark may fail loudly")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use motemq_codec::{QoS, RetainHandling, SubscribeOptions};
use motemq_core::{
    Broker, Limits, Mailbox, Message, Retained, Router, Subscription, TopicName, TopicTrie,
};
use motemq_tests::measured::{Client, NOW, PAYLOAD, encoded, message, publish};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = trie, router, retained, mailbox
}
criterion_main!(benches);

/// Look-ups of topics in turn, each of which one filter matches, at three sizes.
fn trie(criterion: &mut Criterion) {
    for filters in [2_000, 20_000, 200_000] {
        let mut trie = TopicTrie::default();
        for number in 0..filters {
            *trie.entry(&filter(number)) = number;
        }
        // A step that visits all, far from one another.
        let topics: Vec<String> = (0..filters).map(|n| topic(n * 7_919 % filters)).collect();
        let mut next = topics.iter().cycle();
        criterion.bench_function(&format!("trie, match 1 of {filters}"), |bencher| {
            bencher.iter(|| {
                let mut found = 0;
                trie.matches(next.next().unwrap(), |number| found += *number);
                black_box(found)
            });
        });
    }
    let filters: Vec<String> = (0..2_000).map(filter).collect();
    criterion.bench_function("trie, insert and remove 2000", |bencher| {
        bencher.iter_batched_ref(
            TopicTrie::<u32>::default,
            |trie| {
                for filter in &filters {
                    *trie.entry(filter) = 1;
                }
                for filter in &filters {
                    black_box(trie.remove(filter));
                }
            },
            BatchSize::LargeInput,
        );
    });
}

/// A fleet that subscribes to one topic and leaves it again, and a look-up of that topic.
fn router(criterion: &mut Criterion) {
    let broker = Broker::without_store(Arc::new(Limits::default()));
    let ids: Vec<String> = (0..10_000)
        .map(|number| format!("client-{number}"))
        .collect();
    let _clients: Vec<Client> = ids.iter().map(|id| Client::connect(&broker, id)).collect();
    let mailboxes: Vec<Arc<Mailbox>> = ids
        .iter()
        .map(|id| broker.session(id).unwrap().mailbox().clone())
        .collect();
    let subscriptions: Vec<Subscription> = mailboxes
        .iter()
        .map(|mailbox| Subscription {
            mailbox: mailbox.clone(),
            options: OPTIONS,
            subscription_id: None,
        })
        .collect();
    criterion.bench_function("router, 10000 on and off one filter", |bencher| {
        bencher.iter_batched_ref(
            || (Router::default(), subscriptions.clone()),
            |(router, subscriptions)| {
                for subscription in subscriptions.drain(..) {
                    router.subscribe("fleet/news", subscription);
                }
                for mailbox in &mailboxes {
                    router.unsubscribe("fleet/news", mailbox.queue());
                }
                assert!(router.is_empty());
            },
            BatchSize::LargeInput,
        );
    });
    let mut router = Router::default();
    for subscription in subscriptions {
        router.subscribe("fleet/#", subscription.clone());
        router.subscribe("fleet/news", subscription);
    }
    criterion.bench_function("router, 10000 receivers by 2 filters", |bencher| {
        bencher.iter(|| black_box(router.receivers("fleet/news", None)));
    });
}

/// 100 of 200,000 retained messages, by a wildcard.
fn retained(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut retained = Retained::default();
    for number in 0..200_000 {
        let topic = format!("site/{}/meter/{}", number / 100, number % 100);
        retained.set(retained_message(&topic), &limits).unwrap();
    }
    let filters: Vec<String> = (0..2_000)
        .map(|number| format!("site/{}/meter/+", number * 7_919 % 2_000))
        .collect();
    let mut next = filters.iter().cycle();
    criterion.bench_function("retained, 100 of 200000", |bencher| {
        bencher.iter(|| {
            let found = retained.matching(next.next().unwrap(), NOW);
            assert_eq!(found.len(), 100);
            found
        });
    });
}

/// A QoS 1 message from its bytes through a mailbox to the subscriber's acknowledgement.
fn mailbox(criterion: &mut Criterion) {
    let broker = Broker::without_store(Arc::new(Limits::default()));
    let mut publisher = Client::connect(&broker, "publisher");
    let mut subscriber = Client::connect(&broker, "subscriber");
    let filters = ["site/+/meter/+/power".to_owned()];
    subscriber.subscribe(&broker, &filters, QoS::AtLeastOnce);
    let publish = encoded(&publish(QoS::AtLeastOnce));
    criterion.bench_function("mailbox, push, take and settle", |bencher| {
        bencher.iter(|| {
            publisher.handle(&broker, &publish);
            subscriber.handle(&broker, &[]);
            let id = subscriber.output.len() - PAYLOAD.len() - 2;
            let id = [subscriber.output[id], subscriber.output[id + 1]];
            subscriber.handle(&broker, &[0x40, 2, id[0], id[1]]);
        });
    });
}

/// Filters of the kinds that fleets have; the last part of each matches one [`topic`].
fn filter(number: u32) -> String {
    let site = number % 97;
    match number % 10 {
        0..=3 => format!("site/{site}/n{number}/t/v"),
        4..=6 => format!("site/{site}/n{number}/+/v"),
        7..=8 => format!("site/{site}/n{number}/#"),
        _ => format!("site/+/n{number}/t/+"),
    }
}

fn topic(number: u32) -> String {
    format!("site/{}/n{number}/t/v", number % 97)
}

fn retained_message(topic: &str) -> Arc<Message> {
    Arc::new(Message {
        topic: TopicName::new(topic),
        qos: QoS::AtMostOnce,
        retain: true,
        ..message(0)
    })
}

const OPTIONS: SubscribeOptions = SubscribeOptions {
    qos: QoS::AtLeastOnce,
    no_local: false,
    retain_as_published: false,
    retain_handling: RetainHandling::SendAlways,
};
