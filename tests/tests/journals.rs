//! Both journals keep the promises of the store seam: the same tests over the simulated one and the one on redb.
//!
//! What only the redb journal has follows after them: formats, locks, a full store.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests may fail by panicking"
)]

use motemq::store::StoreError;
use motemq::store::engine::EngineOptions;
use motemq::store::file::FileLimits;
use motemq::store::journal::{Opened, RedbJournal, StoreDurability, StoreOptions};
use motemq::store::tables::META;
use motemq_codec::{
    Ack, Connect, ConnectProperties, Decoded, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilter, SubscribeFilters,
    SubscribeOptions, UserProperties, decode,
};
use motemq_core::{
    Action, AssignedIds, Attributes, Broker, ClientId, Connection, ConnectionRules, Event, Expiry,
    Identity, Image, Journal, Limits, Message, PublishAction, QueueId, QueueRef, Record,
    RecordState, RetainedEffect, Room, SessionRow, SimDisk, SimJournal, SimJournalRules, Timestamp,
    TopicName, Verdict,
};
use motemq_tests::measured;
use redb::ReadableDatabase;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;
use tempfile::TempDir;

/// A journal under test.
trait Bench: Sized {
    /// An empty one. Records stay pending for a moment, so that they can be elided.
    fn fresh() -> Self;
    fn journal(&self) -> Arc<dyn Journal>;
    fn boot(&self) -> u32;
    /// Lets it work: commits what waits, answers what is asked.
    fn work(&self);
    /// Ends it and opens what it left.
    fn reopen(self) -> (Self, Image);
}

struct Simulated(Arc<SimJournal>);

impl Bench for Simulated {
    fn fresh() -> Self {
        Self(SimJournal::new(
            SimJournalRules::default(),
            SimDisk::default(),
        ))
    }

    fn journal(&self) -> Arc<dyn Journal> {
        self.0.clone()
    }

    fn boot(&self) -> u32 {
        1
    }

    fn work(&self) {
        self.0.begin_commit(usize::MAX);
        self.0.end_commit();
        while self.0.answer_read() {}
    }

    fn reopen(self) -> (Self, Image) {
        let disk = self.0.lose_power(0);
        let image = disk.image();
        (
            Self(SimJournal::new(SimJournalRules::default(), disk)),
            image,
        )
    }
}

struct OnRedb {
    dir: TempDir,
    opened: Opened,
}

impl Bench for OnRedb {
    fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(dir.path(), options()).unwrap();
        Self { dir, opened }
    }

    fn journal(&self) -> Arc<dyn Journal> {
        self.opened.journal.clone()
    }

    fn boot(&self) -> u32 {
        self.opened.boot
    }

    fn work(&self) {
        std::thread::yield_now();
    }

    fn reopen(self) -> (Self, Image) {
        let Self { dir, opened } = self;
        opened.journal.stop();
        drop(opened);
        let opened = open(dir.path(), options()).unwrap();
        let image = opened.image.clone();
        (Self { dir, opened }, image)
    }
}

fn open(dir: &Path, options: StoreOptions) -> Result<Opened, StoreError> {
    RedbJournal::open(
        dir,
        options,
        [7; 16],
        || Duration::ZERO,
        |error| panic!("{error}"),
    )
}

fn options() -> StoreOptions {
    StoreOptions {
        engine: EngineOptions {
            journal_bytes_max: 16 << 10,
            ..EngineOptions::default()
        },
        file: FileLimits {
            reserve_bytes: 0,
            store_bytes_max: 0,
        },
        commit_delay: Duration::from_millis(50),
        queue_bytes_max: 16 << 20,
        cache_bytes: 1 << 20,
        injected_sync_delay: Duration::ZERO,
        durability: StoreDurability::Commit,
    }
}

macro_rules! for_both_journals {
    ($($name:ident),*) => {
        mod simulated {
            $(#[test] fn $name() { super::$name::<super::Simulated>(); })*
        }
        mod on_redb {
            $(#[test] fn $name() { super::$name::<super::OnRedb>(); })*
        }
    };
}

for_both_journals!(
    records_become_durable_in_order_and_whole,
    a_reopened_journal_gives_the_same_facts,
    a_pending_record_is_elided_when_its_receiver_has_acknowledged,
    a_backlog_is_read_back_exactly_and_in_order,
    a_backlog_survives_a_reopening
);

fn records_become_durable_in_order_and_whole<B: Bench>() {
    let bench = B::fresh();
    let records: Vec<_> = actions(300).into_iter().map(Record::new).collect();
    for record in &records {
        bench.journal().submit(record.clone());
        assert!(record.position().is_none() || record.state() == RecordState::Durable);
    }
    until(&bench, || {
        records
            .iter()
            .all(|record| record.state() == RecordState::Durable)
    });
    let positions: Vec<_> = records
        .iter()
        .map(|record| record.position().unwrap())
        .collect();
    assert!(
        positions.is_sorted_by(|before, after| before < after),
        "{positions:?}"
    );
}

fn a_reopened_journal_gives_the_same_facts<B: Bench>() {
    let mut bench = B::fresh();
    let mut model = Image::default();
    for round in 0..8 {
        let actions = actions(40 + round);
        let records: Vec<_> = actions.iter().cloned().map(Record::new).collect();
        records
            .iter()
            .for_each(|record| bench.journal().submit(record.clone()));
        until(&bench, || {
            records
                .iter()
                .all(|record| record.state() == RecordState::Durable)
        });
        for (record, action) in records.iter().zip(&actions) {
            model.apply(record.position().unwrap(), action, &mut |_| ());
        }
        let (reopened, image) = bench.reopen();
        assert_eq!(image, model, "round {round}");
        bench = reopened;
    }
}

fn a_pending_record_is_elided_when_its_receiver_has_acknowledged<B: Bench>() {
    let bench = B::fresh();
    let broker = broker(&bench, Image::default());
    let mut subscriber = Client::connect(&bench, &broker, "subscriber");
    subscriber.subscribe(&bench, &broker);
    let mut publisher = Client::connect(&bench, &broker, "publisher");
    publisher.publish(&broker, 1);
    subscriber.run(&broker);
    let delivered = subscriber.take_published();
    assert_eq!(delivered.len(), 1);
    subscriber.acknowledge(&broker, delivered[0].0);
    publisher.run(&broker);
    // The acknowledgement is there although nothing was committed since.
    assert_eq!(publisher.acknowledged, [1]);
    drop((publisher, subscriber, broker));
    let (_bench, image) = bench.reopen();
    assert!(image.queues.values().all(|queue| queue.refs.is_empty()));
}

fn a_backlog_is_read_back_exactly_and_in_order<B: Bench>() {
    let bench = B::fresh();
    let broker = broker(&bench, Image::default());
    fill(&bench, &broker);
    drain_and_check(&bench, &broker);
}

fn a_backlog_survives_a_reopening<B: Bench>() {
    let bench = B::fresh();
    let first = broker(&bench, Image::default());
    fill(&bench, &first);
    drop(first);
    let (bench, image) = bench.reopen();
    let second = broker(&bench, image);
    drain_and_check(&bench, &second);
}

/// A durable session that is away, and messages for it.
fn fill<B: Bench>(bench: &B, broker: &Broker) {
    let mut subscriber = Client::connect(bench, broker, "subscriber");
    subscriber.subscribe(bench, broker);
    subscriber.vanish(broker);
    let mut publisher = Client::connect(bench, broker, "publisher");
    for number in 1..=MESSAGES {
        publisher.publish(broker, number);
        until(bench, || {
            publisher.run(broker);
            publisher.acknowledged.len() == usize::from(number)
        });
    }
    publisher.vanish(broker);
}

fn drain_and_check<B: Bench>(bench: &B, broker: &Broker) {
    let mut subscriber = Client::connect(bench, broker, "subscriber");
    assert!(subscriber.session_present);
    let mut received = Vec::new();
    until(bench, || {
        subscriber.run(broker);
        for (packet_id, payload) in subscriber.take_published() {
            received.push(payload);
            subscriber.acknowledge(broker, packet_id);
        }
        received.len() >= usize::from(MESSAGES)
    });
    let sent: Vec<_> = (1..=MESSAGES).map(payload).collect();
    assert_eq!(received, sent);
}

fn until<B: Bench>(bench: &B, mut is_done: impl FnMut() -> bool) {
    while !is_done() {
        bench.work();
    }
}

fn broker<B: Bench>(bench: &B, image: Image) -> Broker {
    let limits = Limits {
        // Every body must be read back.
        mailbox_memory_bytes: 0,
        ..Limits::default()
    };
    Broker::new(Arc::new(limits), bench.journal(), image, bench.boot(), NOW)
}

/// An MQTT 5 client with a durable session, and its connection in the broker.
struct Client {
    connection: Connection,
    flag: Arc<Flag>,
    session_present: bool,
    is_connected: bool,
    is_subscribed: bool,
    acknowledged: Vec<u16>,
    published: Vec<(PacketId, Vec<u8>)>,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Client {
    fn connect<B: Bench>(bench: &B, broker: &Broker, client_id: &str) -> Self {
        let rules = ConnectionRules {
            qos_max: QoS::ExactlyOnce,
            listener: None,
            publish_rate: None,
            assigned_ids: AssignedIds::Random,
        };
        let mut client = Self {
            connection: Connection::new(rules, broker, NOW),
            flag: Arc::default(),
            session_present: false,
            is_connected: false,
            is_subscribed: false,
            acknowledged: Vec::new(),
            published: Vec::new(),
        };
        let connect = Connect {
            version: ProtocolVersion::V5,
            client_id,
            clean_start: false,
            keep_alive_s: 0,
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties {
                session_expiry_s: Some(3600),
                ..ConnectProperties::default()
            },
        };
        client.write(broker, &Packet::Connect(Box::new(connect)));
        until(bench, || {
            client.run(broker);
            client.is_connected
        });
        client
    }

    fn subscribe<B: Bench>(&mut self, bench: &B, broker: &Broker) {
        let filters = [SubscribeFilter {
            filter: "t/#",
            options: SubscribeOptions {
                qos: QoS::AtLeastOnce,
                ..SubscribeOptions::default()
            },
        }];
        let subscribe = Subscribe {
            packet_id: PacketId::new(9).unwrap(),
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::from_list(&filters),
        };
        self.write(broker, &Packet::Subscribe(subscribe));
        until(bench, || {
            self.run(broker);
            self.is_subscribed
        });
    }

    fn publish(&mut self, broker: &Broker, number: u16) {
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "t/1",
            packet_id: PacketId::new(number),
            properties: PublishProperties::default(),
            payload: &payload(number),
        };
        self.write(broker, &Packet::Publish(publish));
    }

    fn acknowledge(&mut self, broker: &Broker, packet_id: PacketId) {
        self.write(
            broker,
            &Packet::PubAck(Ack::new(packet_id, ReasonCode::Success)),
        );
    }

    fn vanish(mut self, broker: &Broker) {
        self.connection.finish(broker, NOW);
    }

    fn write(&mut self, broker: &Broker, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(ProtocolVersion::V5, &mut bytes).unwrap();
        let mut out = Vec::new();
        let (progress, event) = self.connection.handle_bytes(&bytes, broker, NOW, &mut out);
        assert_eq!(progress.consumed, bytes.len());
        if let Some(Event::Authenticate(_)) = event {
            let verdict = Verdict::Accepted {
                login: Identity::Anonymous.into(),
                entropy: 0,
            };
            self.connection
                .handle_verdict(verdict, broker, NOW, &mut out);
        }
        self.read(&out);
        self.run(broker);
    }

    fn run(&mut self, broker: &Broker) {
        let mut out = Vec::new();
        self.connection
            .begin(&Waker::from(self.flag.clone()), &mut out);
        while self
            .connection
            .poll_output(broker, NOW, usize::MAX, &mut out)
        {}
        self.read(&out);
        assert!(
            self.connection.closed().is_none(),
            "{:?}",
            self.connection.closed()
        );
    }

    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Ok(Decoded::Packet { packet, length }) =
                decode(bytes, ProtocolVersion::V5, usize::MAX)
            else {
                panic!("the broker wrote {bytes:02x?}");
            };
            match packet {
                Packet::ConnAck(ack) => {
                    assert_eq!(ack.code, ReasonCode::Success);
                    self.is_connected = true;
                    self.session_present = ack.session_present;
                }
                Packet::SubAck(_) => self.is_subscribed = true,
                Packet::PubAck(ack) => {
                    assert!(!ack.code.is_error(), "{:?}", ack.code);
                    self.acknowledged.push(ack.packet_id.get());
                }
                Packet::Publish(publish) => {
                    self.published
                        .push((publish.packet_id.unwrap(), publish.payload.to_vec()));
                }
                other => panic!("unexpected: {other:?}"),
            }
            bytes = &bytes[length..];
        }
    }

    fn take_published(&mut self) -> Vec<(PacketId, Vec<u8>)> {
        std::mem::take(&mut self.published)
    }
}

fn payload(number: u16) -> Vec<u8> {
    let length = if number.is_multiple_of(10) {
        20_000
    } else {
        number % 300
    };
    (0..length).map(|at| (at ^ number) as u8).collect()
}

/// Facts about three sessions; the newest delivery of each stays.
fn actions(count: u64) -> Vec<Action> {
    let mut actions: Vec<_> = (0..3).map(session).collect();
    for number in 0..count {
        let refs = (0..3).map(|queue| QueueRef {
            queue: QueueId::session(queue),
            sequence: number,
            qos: QoS::ExactlyOnce,
            retain: number % 7 == 0,
            subscription_ids: (number % 3 == 0).then(|| [1, 2].into()),
        });
        actions.push(Action::Publish(PublishAction {
            message: Arc::new(message(number)),
            refs: refs.collect(),
            retained: match number % 5 {
                0 => RetainedEffect::Set,
                1 => RetainedEffect::Clear,
                _ => RetainedEffect::None,
            },
            inbound: PacketId::new(number as u16).map(|id| (QueueId::session(1), id)),
            will_of: None,
        }));
        let queue = QueueId::session(number % 3);
        if number > 0 {
            actions.push(Action::Settle {
                queue,
                sequence: number - 1,
            });
        }
        actions.push(Action::Release {
            queue,
            sequence: number,
        });
    }
    actions
}

fn session(number: u64) -> Action {
    Action::SessionPut(Box::new(SessionRow {
        queue: QueueId::session(number),
        client_id: ClientId::new("client"),
        identity: Identity::Anonymous,
        attributes: Attributes::none(),
        epoch: 1,
        expiry: Expiry::Never,
        disconnected_at: None,
        sent_below: 0,
        will: None,
    }))
}

fn message(number: u64) -> Message {
    Message {
        topic: TopicName::new(&format!("t/{}", number % 4)),
        payload: vec![number as u8; 100].into(),
        qos: QoS::ExactlyOnce,
        received_at: NOW,
        ..measured::message(number)
    }
}

#[test]
fn a_later_format_is_refused_by_number() {
    let dir = tempfile::tempdir().unwrap();
    close(open(dir.path(), options()).unwrap());
    let db = redb::Database::open(dir.path().join("store.redb")).unwrap();
    let format = {
        let meta = db.begin_read().unwrap().open_table(META).unwrap();
        let bytes = meta.get("format").unwrap().unwrap().value().to_vec();
        u32::from_le_bytes(*bytes.first_chunk().unwrap())
    };
    let txn = db.begin_write().unwrap();
    let later = (format + 1).to_le_bytes();
    txn.open_table(META)
        .unwrap()
        .insert("format", later.as_slice())
        .unwrap();
    txn.commit().unwrap();
    drop(db);
    match open(dir.path(), options()) {
        Err(StoreError::Format { found, known }) => {
            assert_eq!((found, known), (format + 1, format))
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_store_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), options()).unwrap();
    assert!(matches!(
        open(dir.path(), options()),
        Err(StoreError::Locked(_))
    ));
    close(first);
    close(open(dir.path(), options()).unwrap());
}

#[test]
fn an_emptied_file_is_not_started_with() {
    let dir = tempfile::tempdir().unwrap();
    close(open(dir.path(), options()).unwrap());
    std::fs::write(dir.path().join("store.redb"), []).unwrap();
    assert!(open(dir.path(), options()).is_err());
    assert!(open(dir.path(), options()).is_err(), "nor the second time");
}

#[test]
fn the_lock_is_held_until_the_file_is_closed() {
    // The lock once ended with the writer while the reader still had the database, whose close writes to the file.
    let dir = tempfile::tempdir().unwrap();
    let mut model = Image::default();
    for number in 0..30 {
        let opened = loop {
            match open(
                dir.path(),
                StoreOptions {
                    commit_delay: Duration::ZERO,
                    ..options()
                },
            ) {
                Ok(opened) => break opened,
                Err(StoreError::Locked(_)) => std::thread::yield_now(),
                Err(error) => panic!("start {number}: {error}"),
            }
        };
        assert_eq!(opened.image, model, "start {number}");
        let action = session(number);
        let record = Record::new(action.clone());
        opened.journal.submit(record.clone());
        close(opened);
        assert_eq!(record.state(), RecordState::Durable);
        model.apply(record.position().unwrap(), &action, &mut |_| ());
    }
}

#[test]
fn a_store_at_its_cap_is_full_and_takes_more_after_deletes() {
    let cap = 12 << 20;
    let dir = tempfile::tempdir().unwrap();
    let opened = open(
        dir.path(),
        StoreOptions {
            file: FileLimits {
                reserve_bytes: 1 << 20,
                store_bytes_max: cap,
            },
            commit_delay: Duration::ZERO,
            ..options()
        },
    )
    .unwrap();
    let journal = opened.journal.clone();
    let submit = |action: Action| {
        let record = Record::new(action);
        journal.submit(record.clone());
        while matches!(record.state(), RecordState::Pending | RecordState::Writing) {
            std::thread::yield_now();
        }
        assert_eq!(
            record.state(),
            RecordState::Durable,
            "an acknowledgement is always possible"
        );
    };
    submit(session(1));
    for round in 0..2 {
        let mut stored = 0;
        while journal.room() == Room::Open {
            submit(large(round * 10_000 + stored));
            stored += 1;
            assert!(
                stored < 1000,
                "round {round}: the cap of {cap} bytes is not seen"
            );
        }
        assert_eq!(journal.room(), Room::Full);
        assert!(
            stored > 20,
            "round {round}: full after {stored} messages of 100 kB"
        );
        // The file may be longer than it is on disk: redb grows it sparsely.
        let file = std::fs::metadata(dir.path().join("store.redb")).unwrap();
        let (length, on_disk) = (file.len(), file.blocks() * 512);
        assert!(
            on_disk <= cap + (4 << 20),
            "round {round}: {on_disk} bytes ({length} long) with a cap of {cap}"
        );
        for number in 0..stored {
            submit(Action::Settle {
                queue: QueueId::session(1),
                sequence: round * 10_000 + number,
            });
        }
        // Space comes back with the commits that fold the deletes.
        let mut commits = 0;
        while journal.room() == Room::Full {
            submit(session(1));
            commits += 1;
            assert!(
                commits < 5000,
                "round {round}: full for ever after everything was deleted"
            );
        }
    }
    drop(journal);
    close(opened);
}

fn large(sequence: u64) -> Action {
    Action::Publish(PublishAction {
        message: Arc::new(Message {
            payload: vec![sequence as u8; 100_000].into(),
            ..message(sequence)
        }),
        refs: vec![QueueRef {
            queue: QueueId::session(1),
            sequence,
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: None,
        }],
        retained: RetainedEffect::None,
        inbound: None,
        will_of: None,
    })
}

fn close(opened: Opened) {
    opened.journal.stop();
}

const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);
const MESSAGES: u16 = 60;
