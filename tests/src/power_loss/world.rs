//! One store through many lives, each ended by a power loss.

use super::{Chance, Disk, Totals, Workload};
use motemq::store::StoreError;
use motemq::store::engine::{Engine, EngineOptions, read_body};
use motemq::store::tables::{BODIES, INBOUND, QUEUES, RETAINED, SESSIONS, SUBSCRIPTIONS};
use motemq_core::{Action, Image, Message, PublishAction, QueueId, RetainedEffect};
use redb::{Database, ReadableDatabase, ReadableTableMetadata};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// What an image may not show.
#[derive(Clone, Debug)]
pub enum Violation {
    /// Something acknowledged is missing.
    Lost(String),
    /// It does not open, or holds something that was not written.
    Corrupt(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(story) => write!(f, "lost: {story}"),
            Self::Corrupt(story) => write!(f, "corrupt: {story}"),
        }
    }
}

impl From<StoreError> for Violation {
    fn from(error: StoreError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

/// What an image must hold: one of these.
#[derive(Clone, Debug, Default)]
struct Expected {
    acknowledged: Image,
    acknowledged_last: u64,
    /// The commit that the power loss met.
    in_flight: Option<(Image, u64)>,
}

/// A store, its model and its bad luck.
#[derive(Debug)]
pub struct World {
    chance: Chance,
    workload: Workload,
    options: EngineOptions,
    cache_bytes: usize,
    lies_per_mille: u64,
    image: Vec<u8>,
    expected: Expected,
    /// The message stored at each position.
    messages: HashMap<u64, Arc<Message>>,
    /// The starts that were counted.
    boot: u32,
}

/// What an open store showed.
struct Recovered {
    /// Operations until it was open.
    operations: u64,
    is_in_flight: bool,
}

impl World {
    /// The world of `seed`.
    #[must_use]
    pub fn new(seed: u64, lies_per_mille: u64) -> Self {
        let mut chance = Chance::new(seed);
        let options = EngineOptions {
            two_phase_commit: seed.is_multiple_of(2),
            journal_bytes_max: chance.pick(&[1 << 10, 8 << 10, 64 << 10, 512 << 10]),
            fold_rows_max: chance.pick(&[1, 7, 60, 2000]),
            fold_time_max: Duration::from_millis(chance.pick(&[0, 3, 50])),
        };
        Self {
            workload: Workload::new(Chance::new(seed ^ 0x5eed)),
            cache_bytes: chance.pick(&[0, 64 << 10, 1 << 20]),
            chance,
            options,
            lies_per_mille,
            image: Vec::new(),
            expected: Expected::default(),
            messages: HashMap::new(),
            boot: 0,
        }
    }

    /// Lives until the end, checking every image.
    ///
    /// # Errors
    /// At the first image that is not as it must be.
    pub fn live(&mut self, totals: &mut Totals) -> Result<(), Violation> {
        let mut disk = self.create()?;
        for _ in 0..LIVES {
            let mut next = None;
            for _ in 0..IMAGES_PER_LIFE {
                let image = disk.torn(&mut self.chance);
                let recovered = self.verify(&image, totals)?;
                totals.images += 1;
                let operations = recovered.operations;
                next = Some((image.clone(), recovered));
                for _ in 0..DOUBLES_PER_IMAGE {
                    let twice = self.interrupt(image.clone(), operations)?;
                    let recovered = self.verify(&twice, totals)?;
                    totals.doubles += 1;
                    if self.chance.per_mille(300) {
                        next = Some((twice, recovered));
                    }
                }
            }
            if let Some((image, recovered)) = next {
                self.adopt(image, &recovered);
            }
            disk = self.work(totals)?;
        }
        if self.lies_per_mille == 0 && self.chance.per_mille(300) {
            let image = disk.torn(&mut self.chance);
            let recovered = self.verify(&image, totals)?;
            self.adopt(image, &recovered);
            self.drain()?;
        }
        Ok(())
    }

    /// The store as its file gets its final name: made, closed, and whatever was synced by then.
    fn create(&mut self) -> Result<Disk, Violation> {
        let disk = self.disk(Vec::new());
        let db = self.database(&disk)?;
        let key = u128::from(self.chance.below(u64::MAX)).to_le_bytes();
        Engine::create(&db, key)?;
        drop(db);
        Ok(disk)
    }

    fn adopt(&mut self, image: Vec<u8>, recovered: &Recovered) {
        self.image = image;
        let in_flight = self.expected.in_flight.take();
        if let (true, Some((image, last))) = (recovered.is_in_flight, in_flight) {
            self.expected.acknowledged = image;
            self.expected.acknowledged_last = last;
        }
        let Self {
            expected, messages, ..
        } = self;
        let live: std::collections::HashSet<_> = positions(&expected.acknowledged).collect();
        messages.retain(|position, _| live.contains(position));
    }

    /// Opens the store, commits, and ends with the power cut, somewhere.
    fn work(&mut self, totals: &mut Totals) -> Result<Disk, Violation> {
        let image = std::mem::take(&mut self.image);
        let disk = self.disk(image);
        let db = self.database(&disk)?;
        let (mut engine, boot) = Engine::open(&db, self.options)?;
        self.boot = boot;
        // As the broker does: it goes on from what it was given.
        self.expected.acknowledged = engine.image().clone();
        let patience = self.chance.pick(&[5, 60, 600]);
        disk.cut_after(self.chance.below(patience));
        for _ in 0..self.chance.pick(&[3, 20, 60]) {
            if let Err(error) = self.commit(&db, &mut engine) {
                if !disk.is_off() {
                    return Err(error);
                }
                break;
            }
            totals.commits += 1;
        }
        if self.chance.per_mille(500) {
            disk.cut(); // before the orderly close, which may meet the cut otherwise
        }
        drop(db);
        disk.cut();
        Ok(disk)
    }

    fn commit(&mut self, db: &Database, engine: &mut Engine) -> Result<(), Violation> {
        let first = self.expected.acknowledged_last + 1;
        let (actions, next) = self.workload.batch(&self.expected.acknowledged, first);
        self.commit_actions(db, engine, &actions, next)
    }

    fn commit_actions(
        &mut self,
        db: &Database,
        engine: &mut Engine,
        actions: &[Action],
        next: Image,
    ) -> Result<(), Violation> {
        let first = self.expected.acknowledged_last + 1;
        for (position, action) in (first..).zip(actions) {
            if let Action::Publish(publish) = action {
                self.messages.insert(position, publish.message.clone());
            }
        }
        let last = first + actions.len() as u64 - 1;
        self.expected.in_flight = Some((next, last));
        let ticks = Cell::new(0);
        let elapsed = || {
            ticks.set(ticks.get() + 1);
            Duration::from_millis(ticks.get())
        };
        let committed = engine.commit(db, actions, &elapsed)?;
        if committed.first != first {
            let story = format!("committed at {}, not at {first}", committed.first);
            return Err(Violation::Corrupt(story));
        }
        if let Some((image, last)) = self.expected.in_flight.take() {
            self.expected.acknowledged = image;
            self.expected.acknowledged_last = last;
        }
        Ok(())
    }

    /// Opens `image` and lets the power fail meanwhile, perhaps again and again.
    fn interrupt(&mut self, mut image: Vec<u8>, operations: u64) -> Result<Vec<u8>, Violation> {
        loop {
            let disk = self.disk(image);
            disk.cut_after(self.chance.below(operations));
            guarded(|| {
                if let Ok(db) = self.database(&disk) {
                    let _ = Engine::open(&db, self.options);
                }
                Ok(())
            })?;
            disk.cut();
            image = disk.torn(&mut self.chance);
            if self.chance.per_mille(650) {
                return Ok(image);
            }
        }
    }

    /// Opens a copy of `image` and compares all of it.
    fn verify(&mut self, image: &[u8], totals: &mut Totals) -> Result<Recovered, Violation> {
        let commits = if self.chance.per_mille(250) {
            self.chance.between(1, 3)
        } else {
            0
        };
        let disk = Disk::new(image.to_vec(), 0, self.chance.clone());
        guarded(|| {
            let db = self.database(&disk)?;
            let (mut engine, boot) = Engine::open(&db, self.options)?;
            let operations = disk.operations();
            if boot <= self.boot {
                return Err(Violation::Lost(format!(
                    "start {boot} came after start {}",
                    self.boot
                )));
            }
            let is_in_flight = self.choose(engine.last_position())?;
            let expected = match &self.expected.in_flight {
                Some((image, _)) if is_in_flight => image,
                _ => &self.expected.acknowledged,
            };
            compare(expected, engine.image())?;
            totals.bodies += check_bodies(&db, &engine, &self.messages)?;
            totals.in_flight += u64::from(is_in_flight);
            for _ in 0..commits {
                Self::commit_further(&self.workload, &db, &mut engine)?;
            }
            if commits > 0 {
                // What became dead in one commit is gone with the next.
                engine.commit(&db, &[filler()], &|| Duration::ZERO)?;
                check_leaks(&db, &engine)?;
            }
            Ok(Recovered {
                operations,
                is_in_flight,
            })
        })
    }

    /// Whether the image is the one with the commit in flight.
    fn choose(&self, last: u64) -> Result<bool, Violation> {
        let acknowledged = self.expected.acknowledged_last;
        match &self.expected.in_flight {
            _ if last == acknowledged => Ok(false),
            Some((_, in_flight)) if last == *in_flight => Ok(true),
            _ if last < acknowledged => Err(Violation::Lost(format!(
                "it ends at {last}, acknowledged was {acknowledged}"
            ))),
            _ => Err(Violation::Corrupt(format!(
                "it ends at {last}, acknowledged was {acknowledged}, nothing like it was in flight"
            ))),
        }
    }

    fn commit_further(
        workload: &Workload,
        db: &Database,
        engine: &mut Engine,
    ) -> Result<(), Violation> {
        let mut workload = workload.clone();
        let (actions, next) = workload.batch(engine.image(), engine.last_position() + 1);
        engine.commit(db, &actions, &|| Duration::ZERO)?;
        compare(&next, engine.image())
    }

    /// Ends everything, and looks for what stays behind in the tables.
    fn drain(&mut self) -> Result<(), Violation> {
        let image = std::mem::take(&mut self.image);
        let disk = self.disk(image);
        let db = self.database(&disk)?;
        let (mut engine, _) = Engine::open(&db, self.options)?;
        let mut actions: Vec<_> = engine
            .image()
            .sessions
            .keys()
            .chain(engine.image().subscriptions.keys())
            .map(|queue| Action::SessionEnded { queue: *queue })
            .collect();
        for (_, message) in engine.image().retained.values() {
            actions.push(Action::Publish(PublishAction {
                message: message.clone(),
                refs: Vec::new(),
                retained: RetainedEffect::Clear,
                inbound: None,
                will_of: None,
            }));
        }
        actions.push(filler());
        engine.commit(&db, &actions, &|| Duration::ZERO)?;
        let last = engine.last_position();
        for _ in 0..self.options.journal_bytes_max / FILLER_BYTES as u64 + last {
            engine.commit(&db, &[filler()], &|| Duration::ZERO)?;
        }
        check_empty(&db)
    }

    fn disk(&mut self, image: Vec<u8>) -> Disk {
        let chance = Chance::new(self.chance.below(u64::MAX));
        Disk::new(image, self.lies_per_mille, chance)
    }

    fn database(&self, disk: &Disk) -> Result<Database, Violation> {
        open_database(disk, self.cache_bytes)
    }

    /// A store that lived without trouble and was closed: its file, its model and its messages.
    pub(super) fn closed(seed: u64, commits: u64) -> Result<Closed, Violation> {
        let mut world = Self::new(seed, 0);
        let disk = world.create()?;
        let db = world.database(&disk)?;
        let (mut engine, _) = Engine::open(&db, world.options)?;
        for _ in 0..commits {
            world.commit(&db, &mut engine)?;
        }
        let image = engine.image().clone();
        drop(db);
        Ok(Closed {
            file: disk.visible(),
            image,
            last: engine.last_position(),
            messages: world.messages,
            options: world.options,
        })
    }
}

/// A store at rest.
pub(super) struct Closed {
    pub(super) file: Vec<u8>,
    pub(super) image: Image,
    pub(super) last: u64,
    pub(super) messages: HashMap<u64, Arc<Message>>,
    pub(super) options: EngineOptions,
}

pub(super) fn open_database(disk: &Disk, cache_bytes: usize) -> Result<Database, Violation> {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    // As the server does.
    builder.set_check_integrity_on_open(true);
    let db = builder.create_with_backend(disk.clone());
    db.map_err(|error| Violation::Corrupt(format!("redb: {error}")))
}

/// Runs `check`; a panic is corruption too.
pub(super) fn guarded<T>(check: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation::Corrupt(format!(
            "panic: {}",
            text.unwrap_or_default()
        )))
    })
}

/// Compares but for what a restart may forget: empty lists, and sequences of deliveries that are gone.
pub(super) fn compare(expected: &Image, found: &Image) -> Result<(), Violation> {
    let differs = |what: &str, expected: &dyn fmt::Debug, found: &dyn fmt::Debug| {
        let story = format!("{what}: expected {expected:?}, found {found:?}");
        Err(Violation::Corrupt(
            story.chars().take(STORY_CHARS).collect(),
        ))
    };
    if expected.sessions != found.sessions {
        return differs("sessions", &expected.sessions, &found.sessions);
    }
    let subscriptions = |image: &Image| {
        let mut all = image.subscriptions.clone();
        all.retain(|_, known| !known.is_empty());
        all
    };
    if subscriptions(expected) != subscriptions(found) {
        return differs(
            "subscriptions",
            &expected.subscriptions,
            &found.subscriptions,
        );
    }
    for queue in expected.queues.keys().chain(found.queues.keys()) {
        let known = expected.queues.get(queue).cloned().unwrap_or_default();
        let stored = found.queues.get(queue).cloned().unwrap_or_default();
        let above = stored.refs.keys().next_back().map_or(0, |last| last + 1);
        let is_sane = (above..=known.next_sequence).contains(&stored.next_sequence);
        if known.refs != stored.refs || !is_sane {
            return differs(&format!("queue {queue:?}"), &known, &stored);
        }
    }
    if expected.inbound != found.inbound {
        return differs("inbound ids", &expected.inbound, &found.inbound);
    }
    if expected.retained != found.retained {
        return differs("retained", &expected.retained, &found.retained);
    }
    if expected.next_queue != found.next_queue {
        return differs("next queue", &expected.next_queue, &found.next_queue);
    }
    Ok(())
}

fn positions(image: &Image) -> impl Iterator<Item = u64> {
    image
        .queues
        .values()
        .flat_map(|queue| queue.refs.values().map(|stored| stored.position))
}

/// Reads back the body of every live delivery; says how many there were.
pub(super) fn check_bodies(
    db: &Database,
    engine: &Engine,
    messages: &HashMap<u64, Arc<Message>>,
) -> Result<u64, Violation> {
    let live: std::collections::BTreeSet<_> = positions(engine.image()).collect();
    for position in &live {
        let found = read_body(db, engine.key(), *position)?;
        if messages
            .get(position)
            .is_none_or(|written| **written != found)
        {
            return Err(Violation::Corrupt(format!("another body at {position}")));
        }
    }
    check_leaks(db, engine)?;
    Ok(live.len() as u64)
}

/// Every body in the store is some delivery's.
fn check_leaks(db: &Database, engine: &Engine) -> Result<(), Violation> {
    let live: std::collections::BTreeSet<_> = positions(engine.image()).collect();
    let txn = db.begin_read().map_err(StoreError::from)?;
    let bodies = txn.open_table(BODIES).map_err(StoreError::from)?;
    for row in bodies.range::<u64>(..).map_err(StoreError::from)? {
        let position = row.map_err(StoreError::from)?.0.value();
        if !live.contains(&position) {
            return Err(Violation::Corrupt(format!(
                "nobody needs the body at {position}"
            )));
        }
    }
    Ok(())
}

fn check_empty(db: &Database) -> Result<(), Violation> {
    let count = || -> Result<[(&str, u64); 6], StoreError> {
        let txn = db.begin_read()?;
        Ok([
            ("bodies", txn.open_table(BODIES)?.len()?),
            ("queues", txn.open_table(QUEUES)?.len()?),
            ("sessions", txn.open_table(SESSIONS)?.len()?),
            ("subscriptions", txn.open_table(SUBSCRIPTIONS)?.len()?),
            ("inbound", txn.open_table(INBOUND)?.len()?),
            ("retained", txn.open_table(RETAINED)?.len()?),
        ])
    };
    for (table, rows) in count()? {
        if rows > 0 {
            return Err(Violation::Corrupt(format!(
                "{rows} rows stay behind in {table}"
            )));
        }
    }
    Ok(())
}

fn filler() -> Action {
    Action::Unsubscribed {
        queue: QueueId::session(u64::from(u32::MAX)),
        filters: vec!["f".repeat(FILLER_BYTES).into()],
    }
}

/// Power losses per world.
const LIVES: usize = 25;
/// Images drawn from each power loss.
const IMAGES_PER_LIFE: usize = 3;
/// Power losses during the recovery of each image.
const DOUBLES_PER_IMAGE: usize = 1;
/// The length of the filter in an action that only fills the journal.
const FILLER_BYTES: usize = 500;
/// A story is cut after so many characters.
const STORY_CHARS: usize = 2000;
