use super::*;
use crate::store::engine::{Engine, EngineOptions, read_body};
use crate::store::journal::STORE_FILE;
use motemq_codec::{PacketId, QoS, SubscribeOptions};
use motemq_core::{
    Action, Attributes, ClientId, Expiry, Identity, Image, Message, MessageId, Origin,
    PublishAction, QueueId, QueueRef, RetainedEffect, SessionRow, StoredSubscription, Timestamp,
    TopicName, Urgency,
};
use redb::Database;
use redb::backends::FileBackend;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

#[test]
fn a_backup_shows_the_moment_of_its_view_and_not_what_came_later() {
    let mut store = Store::new();
    store.publish(300);
    let then = store.engine.image().clone();
    let view = Snapshot::live(store.db.clone(), Arc::default()).unwrap();
    store.publish(300);
    store.settle(0..200);
    let file = store.dir.path().join("backup.redb");
    backup(&view, &file).unwrap();
    assert_eq!(load(&file), then);
    assert!(check_file(&file).unwrap().is_sound());
    assert_ne!(store.engine.image(), &then);
    assert_eq!(names(store.dir.path()), ["backup.redb", STORE_FILE]);
}

#[test]
fn a_backup_overwrites_nothing() {
    let mut store = Store::new();
    store.publish(3);
    let file = store.dir.path().join("backup.redb");
    std::fs::write(&file, "mine").unwrap();
    let view = Snapshot::live(store.db.clone(), Arc::default()).unwrap();
    let refused = backup(&view, &file);
    assert!(matches!(refused, Err(ToolError::Exists(_))), "{refused:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

#[test]
fn a_backup_ends_without_a_trace_when_the_broker_needs_its_file() {
    let mut store = Store::new();
    store.publish(3);
    let is_wanted_back = Arc::new(AtomicBool::new(false));
    let view = Snapshot::live(store.db.clone(), is_wanted_back.clone()).unwrap();
    is_wanted_back.store(true, Ordering::Relaxed);
    let ended = backup(&view, &store.dir.path().join("backup.redb"));
    let is_interrupted = matches!(ended, Err(ToolError::Store(StoreError::Interrupted)));
    assert!(is_interrupted, "{ended:?}");
    drop(view);
    assert_eq!(names(store.dir.path()), [STORE_FILE]);
}

#[test]
fn a_check_counts_and_changes_nothing() {
    let mut store = Store::new();
    store.publish(100);
    store.settle(0..40);
    let live = check(&mut Snapshot::live(store.db.clone(), Arc::default()).unwrap()).unwrap();
    assert!(live.is_sound(), "{live:?}");
    assert_eq!((live.sessions, live.queued, live.retained), (1, 60, 2));
    let (dir, path) = store.kill();
    let before = std::fs::read(&path).unwrap();
    // The file was not closed, so redb would repair it.
    assert_eq!(check_file(&path).unwrap(), live);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    drop(dir);
}

#[test]
fn every_flipped_byte_of_a_message_is_named_by_table_and_key() {
    let mut store = Store::new();
    store.publish(400);
    let bodies = store.bodies();
    let (_dir, path) = store.close();
    // One that was folded into a table, and the last one, which is in the journal.
    for (number, table) in [(bodies[0], "bodies"), (399, "journal")] {
        let whole = std::fs::read(&path).unwrap();
        flip_payload(&path, number);
        let report = check_file(&path).unwrap();
        let told = format!("{}", DamageList(&report));
        assert!(told.contains(&format!("table {table}, key ")), "{told}");
        assert!(told.contains("table file, key "), "{told}");
        std::fs::write(&path, whole).unwrap();
    }
    assert!(check_file(&path).unwrap().is_sound());
}

#[test]
fn a_restore_keeps_the_store_that_was_there() {
    let mut store = Store::new();
    store.publish(50);
    let (backup_of, backup_path) = store.close();
    let mut other = Store::new();
    other.publish(5);
    let (dir, path) = other.close();
    let there = load(&path);
    let refused = restore(dir.path(), &backup_path, Existing::Refuse);
    assert!(
        matches!(refused, Err(ToolError::Occupied(_))),
        "{refused:?}"
    );
    assert_eq!(load(&path), there);
    let restored = restore(dir.path(), &backup_path, Existing::KeepAside).unwrap();
    assert_eq!(load(&path), load(&backup_path));
    assert_eq!(load(&restored.aside.unwrap()), there);
    let again = restore(dir.path(), &backup_path, Existing::KeepAside).unwrap();
    assert!(again.aside.unwrap().ends_with("store.redb.replaced-2"));
    drop(backup_of);
}

#[test]
fn a_damaged_backup_is_not_restored_and_nothing_changes() {
    let mut store = Store::new();
    store.publish(50);
    let (_backup, backup_path) = store.close();
    flip_payload(&backup_path, 17);
    let dir = tempfile::tempdir().unwrap();
    let refused = restore(dir.path(), &backup_path, Existing::Refuse);
    let told = format!("{}", refused.as_ref().unwrap_err());
    assert!(refused.unwrap_err().is_damage(), "{told}");
    assert!(told.contains(&backup_path.display().to_string()), "{told}");
    assert_eq!(names(dir.path()), ["lock"]);
}

#[test]
fn a_tool_refuses_a_folder_that_is_in_use() {
    let mut store = Store::new();
    store.publish(5);
    let (dir, path) = store.close();
    let _broker = FolderLock::take(dir.path()).unwrap();
    let is_locked = |error: ToolError| matches!(error, ToolError::Store(StoreError::Locked(_)));
    assert!(is_locked(compact(dir.path()).unwrap_err()));
    let refused = restore(dir.path(), &path, Existing::KeepAside);
    assert!(is_locked(refused.unwrap_err()));
}

#[test]
fn compacting_keeps_everything_in_a_smaller_file() {
    let mut store = Store::new();
    store.publish(20_000);
    store.settle(0..19_900);
    store.publish(10);
    let image = store.engine.image().clone();
    let (dir, path) = store.close();
    // Left by one that was killed.
    std::fs::write(dir.path().join("store.redb.unfinished"), "half").unwrap();
    let compacted = compact(dir.path()).unwrap();
    assert!(
        compacted.after_bytes < compacted.before_bytes / 4,
        "{compacted:?}"
    );
    assert_eq!(load(&path), image);
    assert_eq!(names(dir.path()), ["lock", STORE_FILE]);
}

#[test]
fn salvage_saves_all_but_what_is_damaged_and_leaves_the_source_alone() {
    let mut store = Store::new();
    store.publish(400);
    let image = store.engine.image().clone();
    let damaged = store.bodies()[5]; // not one of the retained ones
    let (dir, path) = store.close();
    flip_payload(&path, damaged);
    let before = std::fs::read(&path).unwrap();
    let out = dir.path().join("saved.redb");
    let salvaged = salvage(&path, &out, [9; 16]).unwrap();
    assert!(salvaged.has_losses());
    assert_eq!(salvaged.deliveries_lost, 1, "{:?}", salvaged.found);
    let mut expected = image;
    let queue = expected.queues.get_mut(&queue()).unwrap();
    queue.refs.remove(damaged).unwrap();
    assert_eq!(load(&out), expected);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn salvage_of_a_whole_store_loses_nothing() {
    let mut store = Store::new();
    store.publish(700);
    store.settle(100..250);
    let image = store.engine.image().clone();
    let (dir, path) = store.kill();
    let out = dir.path().join("saved.redb");
    let salvaged = salvage(&path, &out, [9; 16]).unwrap();
    assert!(!salvaged.has_losses(), "{salvaged:?}");
    assert_eq!(load(&out), image);
    // A broker goes on from there: its next record gets the next position.
    let db = open(&out);
    let (engine, boot) = Engine::open(&db, OPTIONS).unwrap();
    assert_eq!(boot, 2);
    assert_eq!(engine.last_position(), salvaged.found.position);
}

#[test]
fn salvage_survives_any_single_damaged_page() {
    let mut store = Store::new();
    store.publish(600);
    let (dir, path) = store.close();
    let whole = std::fs::read(&path).unwrap();
    let mut saved = 0;
    let mut hopeless = 0;
    let is_used = |page: &usize| whole[page * 4096..(page + 1) * 4096] != [0; 4096];
    for page in (1..whole.len() / 4096).filter(is_used) {
        let mut bytes = whole.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
        let damaged = dir.path().join("damaged.redb");
        std::fs::write(&damaged, bytes).unwrap();
        let out = dir.path().join(format!("saved-{page}.redb"));
        match salvage(&damaged, &out, [9; 16]) {
            Ok(salvaged) => {
                assert!(check_file(&out).unwrap().is_sound());
                // Nothing is made up.
                assert!(salvaged.saved.queued <= 600);
                saved += u32::from(salvaged.saved.queued > 0);
            }
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                hopeless += 1;
            }
        }
    }
    assert!(saved > 4 * hopeless, "{saved} saved, {hopeless} hopeless");
}

/// A store with one session that subscribes to everything.
struct Store {
    dir: TempDir,
    db: Arc<Database>,
    engine: Engine,
    published: u64,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut how = File::options();
        how.read(true).write(true).create_new(true);
        let file = how.open(dir.path().join(STORE_FILE)).unwrap();
        let backend = FileBackend::new(file).unwrap();
        let db = Database::builder().create_with_backend(backend).unwrap();
        Engine::create(&db, [3; 16]).unwrap();
        let (engine, _) = Engine::open(&db, OPTIONS).unwrap();
        let mut this = Self {
            dir,
            db: Arc::new(db),
            engine,
            published: 0,
        };
        let row = SessionRow {
            queue: queue(),
            client_id: ClientId::new("meter-reader"),
            identity: Identity::Anonymous,
            attributes: Attributes::none(),
            epoch: 1,
            expiry: Expiry::AfterSeconds(3600),
            disconnected_at: Some(Timestamp::from_ms(5)),
            sent_below: 0,
            will: None,
        };
        let subscribed = Action::Subscribed {
            queue: queue(),
            subscriptions: vec![StoredSubscription {
                filter: "#".into(),
                options: SubscribeOptions::default(),
                subscription_id: None,
            }],
        };
        this.commit(&[Action::SessionPut(Box::new(row)), subscribed]);
        this
    }

    /// Publishes messages, ten to a commit; sequence and payload are their number, two topics are retained.
    fn publish(&mut self, count: u64) {
        let numbers: Vec<_> = (self.published..self.published + count).collect();
        for numbers in numbers.chunks(10) {
            let actions: Vec<_> = numbers.iter().map(|number| publish(*number)).collect();
            self.commit(&actions);
        }
        self.published += count;
    }

    fn settle(&mut self, sequences: std::ops::Range<u64>) {
        let settle = |sequence| Action::Settle {
            queue: queue(),
            sequence,
        };
        let actions: Vec<_> = sequences.map(settle).collect();
        for actions in actions.chunks(100) {
            self.commit(actions);
        }
    }

    fn commit(&mut self, actions: &[Action]) {
        let elapsed = || Duration::ZERO;
        self.engine.commit(&self.db, actions, &elapsed).unwrap();
    }

    /// Numbers of messages in the table `bodies`.
    fn bodies(&self) -> Vec<u64> {
        let txn = redb::ReadableDatabase::begin_read(&*self.db).unwrap();
        let bodies = txn.open_table(crate::store::tables::BODIES).unwrap();
        let positions = redb::ReadableTable::iter(&bodies).unwrap();
        let positions = positions.map(|row| row.unwrap().0.value());
        let key = self.engine.key();
        let number = |position| read_body(&self.db, key, position).unwrap().id.sequence;
        positions.map(number).collect()
    }

    fn close(self) -> (TempDir, PathBuf) {
        drop(self.engine);
        drop(self.db);
        let path = self.dir.path().join(STORE_FILE);
        (self.dir, path)
    }

    /// The file as it is while the store is open, as after `kill -9`.
    fn kill(self) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(STORE_FILE);
        std::fs::copy(self.dir.path().join(STORE_FILE), &path).unwrap();
        (dir, path)
    }
}

fn publish(number: u64) -> Action {
    let effect = match number {
        0 | 1 => RetainedEffect::Set,
        _ => RetainedEffect::None,
    };
    Action::Publish(PublishAction {
        message: Arc::new(Message {
            topic: TopicName::new(&format!("plant/{}", number % 7)),
            payload: payload(number).into_bytes().into(),
            forwarded: Box::default(),
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: ClientId::new("meter-7"),
            origin: Origin::Client,
            hops: 0,
            received_at: Timestamp::from_ms(7),
            expires_at: None,
            urgency: Urgency(0),
            id: MessageId {
                connection: 1,
                sequence: number,
            },
            attempts: 0,
        }),
        refs: vec![QueueRef {
            queue: queue(),
            sequence: number,
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: None,
        }],
        retained: effect,
        inbound: PacketId::new(u16::try_from(number % 3).unwrap()).map(|id| (queue(), id)),
        will_of: None,
    })
}

fn payload(number: u64) -> String {
    format!("<payload {number:06}>{}", "x".repeat(100))
}

/// Flips a byte in every copy of a message that a broker would read.
fn flip_payload(path: &Path, number: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    let wanted = payload(number).into_bytes();
    let found: Vec<_> = (0..bytes.len() - wanted.len())
        .filter(|at| bytes[*at..*at + wanted.len()] == wanted)
        .collect();
    assert!(!found.is_empty());
    for at in found {
        bytes[at + 20] ^= 1;
    }
    std::fs::write(path, bytes).unwrap();
}

fn load(path: &Path) -> Image {
    let snapshot = Snapshot::of_file(path).unwrap();
    snapshot.load().unwrap().image().clone()
}

fn open(path: &Path) -> Database {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let backend = FileBackend::new(file).unwrap();
    Database::builder().create_with_backend(backend).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn queue() -> QueueId {
    QueueId::session(1)
}

/// Small, so that most of what is written is folded.
const OPTIONS: EngineOptions = EngineOptions {
    two_phase_commit: false,
    journal_bytes_max: 64 << 10,
    fold_rows_max: 2000,
    fold_time_max: Duration::from_millis(5),
};
