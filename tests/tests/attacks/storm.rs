//! C4: many clients fight for one session while messages pour in.

use crate::site::Site;
use motemq_codec::{AckKind, ReasonCode};
use motemq_tests::peer::{Got, Hello, options, subscribe};
use motemq_tests::socket::{Client, Stopwatch};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn c4_fifty_clients_fight_for_one_id_and_it_has_one_owner() {
    let site = Site::start_with("queue_messages_max = 1000000\nqueue_bytes_max = \"1GiB\"");
    let mut first = Client::connect(site.port(), &Hello::durable("prize"));
    assert_eq!(first.subscribe("c4", 1), 1);
    drop(first);
    let fight = Fight::default();
    let port = site.port();
    std::thread::scope(|scope| {
        for fighter in 0..50 {
            let fight = &fight;
            scope.spawn(move || fight.run(port, fighter));
        }
        let watch = Stopwatch::start();
        let mut publisher = Client::connect(port, &Hello::clean("publisher"));
        while watch.elapsed() < FIGHT || fight.connections.load(Ordering::Relaxed) < 100 {
            fight.publish_batch(&mut publisher);
            // The bystander, the publisher, and one owner of the prize.
            let connected = site.metric("mqtt_broker_sessions");
            assert!(connected <= 3.0, "{connected} sessions");
        }
        fight.is_over.store(true, Ordering::Release);
    });
    println!(
        "{} connections, {} messages",
        fight.connections.load(Ordering::Relaxed),
        fight.published.load(Ordering::Relaxed)
    );
    // The last one standing gets what nobody acknowledged; together they have everything that was acknowledged.
    let mut last = Client::connect(site.port(), &Hello::durable("prize"));
    let published = fight.published.load(Ordering::Relaxed);
    while fight.received.lock().unwrap().len() < published {
        let publish = last.take_publish();
        last.ack(AckKind::PubAck, publish.id);
        fight.note(&publish.payload);
    }
    // One owner: what is published now arrives once.
    let mut publisher = Client::connect(site.port(), &Hello::clean("publisher"));
    let late = last.ping().expect("nobody else wants it any more");
    assert!(
        late.iter()
            .all(|got| matches!(got, Got::Publish(publish) if publish.dup)),
        "{late:?}"
    );
    publisher.publish("c4", "the end", 1, 1);
    assert_eq!(last.take_publish().payload, "the end");
    assert_eq!(last.ping(), Some(Vec::new()));
    drop((last, publisher));
    site.await_metric("mqtt_broker_connections", |count| count == 1.0);
    site.finish();
}

#[derive(Default)]
struct Fight {
    is_over: AtomicBool,
    connections: AtomicUsize,
    published: AtomicUsize,
    received: Mutex<BTreeSet<usize>>,
}

impl Fight {
    /// Takes the session over, changes its subscriptions, reads and acknowledges until it is taken away.
    fn run(&self, port: u16, fighter: usize) {
        while !self.is_over.load(Ordering::Acquire) {
            let (mut client, is_present) = Client::connect_for_any(port, &Hello::durable("prize"));
            if client.is_closed() {
                // Taken over before its CONNACK was out.
                continue;
            }
            assert!(is_present);
            self.connections.fetch_add(1, Ordering::Relaxed);
            let own = format!("own/{fighter}");
            client.send(&subscribe(
                2,
                &[("c4", options(1)), (&own, options(0))],
                None,
            ));
            for _ in 0..50 {
                match client.take_within(Duration::from_millis(20)) {
                    Some(Got::Publish(publish)) => {
                        self.note(&publish.payload);
                        client.ack(AckKind::PubAck, publish.id);
                    }
                    Some(Got::Disconnect(code)) => {
                        assert_eq!(code, ReasonCode::SessionTakenOver);
                        break;
                    }
                    Some(Got::SubAck(..)) => {}
                    None if client.is_closed() => break,
                    None => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn publish_batch(&self, publisher: &mut Client) {
        for id in 1..=100 {
            let number = self.published.fetch_add(1, Ordering::Relaxed);
            publisher.publish("c4", &number.to_string(), 1, id);
        }
        for id in 1..=100 {
            let expected = Got::Ack("PUBACK", id, ReasonCode::Success);
            assert_eq!(publisher.take(), Some(expected));
        }
    }

    fn note(&self, payload: &str) {
        self.received
            .lock()
            .unwrap()
            .insert(payload.parse().unwrap());
    }
}

/// The table asks for 60 s.
const FIGHT: Duration = Duration::from_secs(4);
