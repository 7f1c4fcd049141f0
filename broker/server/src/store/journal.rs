//! The journal seam on redb: one writer thread with group commit, one reader thread for backlogs.
//!
//! While one commit runs, records collect; the next commit takes them all. Records that every durable receiver has
//! acknowledged meanwhile are elided and cost nothing. `commit_delay_ms` lets more collect on slow disks.
//!
//! Failures: a full disk is waited out (the database is reopened in process, the same records are tried again, enqueues
//! are refused meanwhile); any other error fails every record, present and future, and is reported once.
//!
//! Lock order: queue, then nothing.

use super::StoreError;
use super::engine::{BodyReader, Engine, EngineOptions, free_bytes};
use super::file::{FileLimits, FileRoom, StoreFile};
use super::tables::StoreKey;
use super::tools::Snapshot;
use arc_swap::ArcSwap;
use motemq_core::{
    Action, BacklogRequest, Histogram, Image, Journal, JournalFailure, NO_POSITION, Record, Room,
    Wakeup,
};
use redb::Database;
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// How the store works; see the `[persistence]` section of the configuration.
#[derive(Copy, Clone, Debug)]
pub struct StoreOptions {
    /// Commits and folding.
    pub engine: EngineOptions,
    /// Space.
    pub file: FileLimits,
    /// How long the writer lets records collect before a commit.
    pub commit_delay: Duration,
    /// Bytes of records waiting for the writer above which publishers' sockets are not read.
    pub queue_bytes_max: usize,
    /// redb's page cache.
    pub cache_bytes: usize,
    /// Extra time per commit, for measuring how the broker behaves on a slow disk.
    pub injected_sync_delay: Duration,
    /// When records count as durable.
    pub durability: StoreDurability,
}

/// When records count as durable.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum StoreDurability {
    /// After their commit.
    Commit,
    /// At once: a crash loses what was acknowledged in the last moments.
    Relaxed,
}

/// What the writer counts.
#[derive(Debug)]
pub struct StoreCounters {
    /// How long commits took, in microseconds.
    pub commit_us: Histogram,
    /// Records in each of them.
    pub commit_records: Histogram,
    /// Records in all of them.
    pub records: AtomicU64,
    /// Bodies read back.
    pub bodies_read: AtomicU64,
    /// Bytes of journal pages not yet folded.
    pub journal_bytes: AtomicU64,
}

impl Default for StoreCounters {
    fn default() -> Self {
        Self {
            commit_us: Histogram::new(&COMMIT_BOUNDS_US),
            commit_records: Histogram::new(&COMMIT_BOUNDS_RECORDS),
            records: AtomicU64::new(0),
            bodies_read: AtomicU64::new(0),
            journal_bytes: AtomicU64::new(0),
        }
    }
}

/// The journal.
#[derive(Debug)]
pub struct RedbJournal {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    options: StoreOptions,
    key: StoreKey,
    room: Arc<FileRoom>,
    counters: StoreCounters,
    queue: Mutex<Queue>,
    /// Bytes in the queue, to look at without its lock.
    queue_bytes: AtomicUsize,
    arrived: Condvar,
    db: ArcSwap<Database>,
    failed: AtomicBool,
    /// Views of the database must be given back.
    is_wanted_back: Arc<AtomicBool>,
    clock: fn() -> Duration,
    /// Called once, when the store has failed for good.
    on_failure: OnFailure,
    /// Ends with `stop`, and with it the reader.
    reads: Mutex<Option<mpsc::Sender<BacklogRequest>>>,
    /// Keeps other processes out. The last field: it is let go after the database is closed.
    #[expect(dead_code, reason = "held, never read")]
    lock: File,
}

struct OnFailure(Box<dyn Fn(&StoreError) + Send + Sync>);

impl std::fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnFailure")
    }
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    waiting: Vec<Arc<Wakeup>>,
    is_writer_idle: bool,
    is_stopping: bool,
}

/// Something to write.
#[derive(Debug)]
enum Item {
    /// A record that is still waited for.
    Record(Arc<Record>),
    /// An action whose record already counts as durable (`durability = "relaxed"`).
    Action(Action),
}

/// Sequence and message of each body that a mailbox asked for.
type Bodies = Vec<(u64, Option<Arc<motemq_core::Message>>)>;

/// When what is free was looked at.
#[derive(Debug, Default)]
struct RoomWatch {
    /// Bytes written since.
    bytes: u64,
    /// The next look at the latest.
    next: Duration,
    /// The store was full then. Whoever writes to the file may find out before the next look does.
    was_full: bool,
}

/// A store that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The journal.
    pub journal: Arc<RedbJournal>,
    /// What was durable.
    pub image: Image,
    /// How often the store was opened.
    pub boot: u32,
}

impl RedbJournal {
    /// Opens the store in `data_dir`, or makes it. `clock` gives time since any fixed moment.
    ///
    /// # Errors
    /// When another process has it, the disk refuses, or anything in it is not what was written. A store that exists is
    /// never replaced by an empty one.
    pub fn open(
        data_dir: &Path,
        options: StoreOptions,
        key: [u8; 16],
        clock: fn() -> Duration,
        on_failure: impl Fn(&StoreError) + Send + Sync + 'static,
    ) -> Result<Opened, StoreError> {
        create_private_dir(data_dir)?;
        let path = data_dir.join(STORE_FILE);
        let lock = lock_file(data_dir)?;
        remove_unfinished(&path);
        if !path.try_exists().map_err(io_error(&path))? {
            create(&path, options, key)?;
        }
        let room = FileRoom::new(options.file);
        let db = open_database(&path, options, &room, Existing::Required)?;
        let (engine, boot) = Engine::open(&db, options.engine)?;
        let image = engine.image().clone();
        let (reads, requests) = mpsc::channel();
        let shared = Arc::new(Shared {
            path,
            options,
            key: engine.key(),
            room,
            counters: StoreCounters::default(),
            queue: Mutex::default(),
            queue_bytes: AtomicUsize::new(0),
            arrived: Condvar::new(),
            db: ArcSwap::from_pointee(db),
            failed: AtomicBool::new(false),
            is_wanted_back: Arc::default(),
            clock,
            on_failure: OnFailure(Box::new(on_failure)),
            reads: Mutex::new(Some(reads)),
            lock,
        });
        let writer = spawn("store-writer", {
            let shared = shared.clone();
            move || shared.write(engine)
        })?;
        let reader = spawn("store-reader", {
            let shared = shared.clone();
            move || shared.read(&requests)
        })?;
        let journal = Arc::new(Self {
            shared,
            threads: Mutex::new(vec![writer, reader]),
        });
        Ok(Opened {
            journal,
            image,
            boot,
        })
    }

    /// Bytes of records that wait for the writer.
    #[must_use]
    pub fn queue_bytes(&self) -> usize {
        self.shared.queue_bytes.load(Ordering::Relaxed)
    }

    /// How often the disk, or what the file may take of it, was found full.
    #[must_use]
    pub fn times_full(&self) -> u64 {
        self.shared.room.times_full()
    }

    /// The highest byte of the file that was written; it never shrinks.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.shared.room.written_bytes()
    }

    /// A view of everything that is durable now. It ends when the file is needed: at a stop, or when the disk is full.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        if self.shared.failed.load(Ordering::Acquire) {
            return Err(StoreError::Interrupted);
        }
        Snapshot::live(
            self.shared.db.load_full(),
            self.shared.is_wanted_back.clone(),
        )
    }

    /// What the writer counts.
    #[must_use]
    pub fn counters(&self) -> &StoreCounters {
        &self.shared.counters
    }

    /// Commits what waits, ends both threads and closes the file.
    pub fn stop(&self) {
        lock(&self.shared.queue).is_stopping = true;
        self.shared.arrived.notify_one();
        drop(lock(&self.shared.reads).take());
        for thread in lock(&self.threads).drain(..) {
            // A thread that panicked has nothing left to finish.
            let _ = thread.join();
        }
        self.shared.failed.store(true, Ordering::Release);
        self.shared.is_wanted_back.store(true, Ordering::Release);
        if let Ok(placeholder) = placeholder_database() {
            let db = self.shared.db.swap(Arc::new(placeholder));
            // A backup gives it back within a row, unless its own disk hangs: that must not hold the stop up.
            let mut patience = STOP_PATIENCE;
            while Arc::strong_count(&db) > 1 && patience > 0 {
                std::thread::sleep(Duration::from_millis(1));
                patience -= 1;
            }
        }
    }
}

impl Journal for RedbJournal {
    fn submit(&self, record: Arc<Record>) {
        if self.shared.failed.load(Ordering::Acquire) {
            wake(record.fail(JournalFailure::Unknown));
            return;
        }
        let bytes = weight(&record);
        let item = match self.shared.options.durability {
            StoreDurability::Commit => Item::Record(record),
            StoreDurability::Relaxed => {
                let Some(action) = record.begin_writing() else {
                    return;
                };
                wake(record.finish(NO_POSITION));
                Item::Action(action)
            }
        };
        let mut queue = lock(&self.shared.queue);
        self.shared.queue_bytes.fetch_add(bytes, Ordering::AcqRel);
        queue.items.push_back(item);
        let notify = std::mem::take(&mut queue.is_writer_idle);
        drop(queue);
        if notify {
            self.shared.arrived.notify_one();
        }
    }

    fn room(&self) -> Room {
        if self.shared.failed.load(Ordering::Acquire) {
            Room::Failed(JournalFailure::Unknown)
        } else if self.shared.room.is_full() {
            Room::Full
        } else if self.shared.queue_bytes.load(Ordering::Acquire)
            > self.shared.options.queue_bytes_max
        {
            Room::Congested
        } else {
            Room::Open
        }
    }

    fn wait_for_room(&self, wakeup: &Arc<Wakeup>) {
        let mut queue = lock(&self.shared.queue);
        if self.shared.queue_bytes.load(Ordering::Acquire) > self.shared.options.queue_bytes_max {
            queue.waiting.push(wakeup.clone());
        } else {
            drop(queue);
            wakeup.wake();
        }
    }

    fn read_backlog(&self, request: BacklogRequest) {
        // Without a reader the process is ending; the request is answered at the next start.
        if let Some(reads) = &*lock(&self.shared.reads) {
            let _ = reads.send(request);
        }
    }
}

impl Shared {
    fn write(&self, mut engine: Engine) {
        let mut watch = RoomWatch::default();
        let mut leftovers = LEFTOVER_COMMITS;
        while let Some(items) = self.next_batch() {
            let bytes = items.iter().map(Item::weight).sum::<usize>();
            if let Err(error) = self.watch_room(&mut watch, bytes as u64) {
                self.give_up(&[], &error);
                return;
            }
            if items.is_empty() {
                if let Err(error) = self.free_leftovers(&mut engine, &mut leftovers) {
                    self.give_up(&[], &error);
                    return;
                }
                continue;
            }
            leftovers = LEFTOVER_COMMITS;
            let mut written = Vec::with_capacity(items.len());
            let mut actions = Vec::with_capacity(items.len());
            for item in items {
                match item {
                    Item::Record(record) => {
                        if let Some(action) = record.begin_writing() {
                            written.push(Some(record));
                            actions.push(action);
                        }
                    }
                    Item::Action(action) => {
                        written.push(None);
                        actions.push(action);
                    }
                }
            }
            if actions.is_empty() {
                continue;
            }
            match self.commit(&mut engine, &actions) {
                Ok(first) => {
                    // All are marked before the first is woken: one run of a connection then releases all of its own.
                    let woken: Vec<_> = (first..)
                        .zip(&written)
                        .filter_map(|(position, record)| Some(record.as_ref()?.finish(position)))
                        .flatten()
                        .collect();
                    wake(woken);
                }
                Err(error) => {
                    self.give_up(&written, &error);
                    return;
                }
            }
        }
    }

    /// Frees what nobody needs any more, while the disk is full and nobody writes: settled messages in the journal, when they
    /// are most of it (what is still queued would need room to move), then what the last commits left.
    fn free_leftovers(&self, engine: &mut Engine, leftovers: &mut u8) -> Result<(), StoreError> {
        let is_eager = engine.queued_bytes() < engine.journal_bytes() / 2;
        engine.set_eager(is_eager);
        let mut result = Ok(());
        while result.is_ok() && (is_eager && engine.journal_bytes() > 0 || *leftovers > 0) {
            if !is_eager || engine.journal_bytes() == 0 {
                *leftovers -= 1;
            }
            result = self.commit(engine, &[]).map(|_| ());
            if !lock(&self.queue).items.is_empty() {
                break;
            }
        }
        engine.set_eager(false);
        result
    }

    /// Waits for records; `None` when the store is to stop and nothing waits any more. None at all while the disk is full
    /// means that a look at it is due.
    fn next_batch(&self) -> Option<Vec<Item>> {
        let mut queue = lock(&self.queue);
        while queue.items.is_empty() {
            if queue.is_stopping {
                return None;
            }
            queue.is_writer_idle = true;
            let (guard, _) = self
                .arrived
                .wait_timeout(queue, RESERVE_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            if queue.items.is_empty() && self.room.is_full() {
                return Some(Vec::new());
            }
        }
        queue.is_writer_idle = false;
        if !self.options.commit_delay.is_zero() && !queue.is_stopping {
            drop(queue);
            std::thread::sleep(self.options.commit_delay);
            queue = lock(&self.queue);
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES_MAX
            && let Some(item) = queue.items.pop_front()
        {
            bytes += item.weight();
            batch.push(item);
        }
        let left = self.queue_bytes.fetch_sub(bytes, Ordering::AcqRel) - bytes;
        let woken = if left <= self.options.queue_bytes_max / 2 {
            std::mem::take(&mut queue.waiting)
        } else {
            Vec::new()
        };
        drop(queue);
        wake(woken);
        Some(batch)
    }

    /// Commits; waits while the disk is full.
    fn commit(&self, engine: &mut Engine, actions: &[Action]) -> Result<u64, StoreError> {
        let first_try = (self.clock)();
        loop {
            let started = (self.clock)();
            let elapsed = || (self.clock)().saturating_sub(started);
            engine.set_tight(!self.room.has_disk());
            let result = engine.commit(&self.db.load(), actions, &elapsed);
            match result {
                Ok(committed) => {
                    if !self.options.injected_sync_delay.is_zero() {
                        std::thread::sleep(self.options.injected_sync_delay);
                    }
                    self.count(engine, actions.len(), elapsed());
                    return Ok(committed.first);
                }
                Err(error) if error.is_disk_full() => {
                    // Once, not at every attempt.
                    if !self.room.is_full() {
                        tracing::error!(
                            store = %self.path.display(),
                            "the disk is full: publishes that must be stored are refused until there is room"
                        );
                    }
                    self.room.set_full();
                    // A start finds room that this commit does not: it forgets what was never acknowledged.
                    let is_stuck = (self.clock)().saturating_sub(first_try) >= FULL_PATIENCE;
                    if is_stuck || lock(&self.queue).is_stopping {
                        return Err(error);
                    }
                    if let Some(first) = self.reopen(engine, actions)? {
                        return Ok(first);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens the database anew after redb has latched an error; says where the actions are if they were written after
    /// all. Waits as long as the disk is too full even for that.
    fn reopen(&self, engine: &mut Engine, actions: &[Action]) -> Result<Option<u64>, StoreError> {
        let before = engine.last_position();
        let old = self.db.swap(Arc::new(placeholder_database()?));
        // The reader or a backup may still use the old one; the file must have one owner.
        self.is_wanted_back.store(true, Ordering::Release);
        while Arc::strong_count(&old) > 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(old);
        self.is_wanted_back.store(false, Ordering::Release);
        let db = loop {
            std::thread::sleep(REOPEN_INTERVAL);
            match open_database(&self.path, self.options, &self.room, Existing::Required) {
                Ok(db) => break db,
                // What waits has not been acknowledged; a stop does not wait for room.
                Err(error) if error.is_disk_full() && !lock(&self.queue).is_stopping => {}
                Err(error) => return Err(error),
            }
        };
        *engine = Engine::load(&db, self.options.engine)?;
        self.db.store(Arc::new(db));
        let was_written = engine.last_position() == before + actions.len() as u64;
        Ok(was_written.then_some(before + 1))
    }

    /// While the disk does not hold the reserve: tries to get it, else looks whether the file itself has room. Both cost time,
    /// so they are done when enough was written since, or a second has passed, and not most of the time.
    fn watch_room(&self, watch: &mut RoomWatch, bytes: u64) -> Result<(), StoreError> {
        if self.room.has_disk() {
            watch.was_full = false;
            return Ok(());
        }
        watch.bytes += bytes;
        let started = (self.clock)();
        let is_due = watch.bytes >= self.room.check_bytes() || started >= watch.next;
        if !is_due {
            return Ok(());
        }
        let file = File::options().read(true).write(true).open(&self.path);
        let file = file.map_err(io_error(&self.path))?;
        let metadata = file.metadata().map_err(io_error(&self.path))?;
        // What is beyond the cap, or has no blocks on the disk, is no room: redb lengthens the file sparsely.
        let on_disk = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        let cap = match self.options.file.store_bytes_max {
            0 => u64::MAX,
            cap => cap,
        };
        let file_bytes = metadata.len().min(on_disk).min(cap);
        StoreFile::new(file, self.room.clone()).map_err(io_error(&self.path))?;
        if !self.room.has_disk() {
            let free_bytes = free_bytes(&self.db.load(), file_bytes)?;
            let disk = rustix::fs::statvfs(&self.path)
                .map_err(|error| io_error(&self.path)(error.into()))?;
            let disk_bytes = (disk.f_bavail * disk.f_frsize).min(cap.saturating_sub(on_disk));
            self.room.note_inside(free_bytes, file_bytes, disk_bytes);
        }
        let ended = (self.clock)();
        let was_full = watch.was_full;
        let is_full = self.room.is_full();
        *watch = RoomWatch {
            bytes: 0,
            next: ended + RESERVE_INTERVAL.max((ended - started) * 20),
            was_full: is_full,
        };
        let store = self.path.display();
        match (was_full, is_full) {
            (false, true) => {
                tracing::error!(
                    %store,
                    "the disk (or persistence.store_bytes_max) is full: publishes that must be stored are refused with 0x97"
                );
            }
            (true, false) => tracing::info!(%store, "the store has room again"),
            _ => {}
        }
        Ok(())
    }

    fn count(&self, engine: &Engine, records: usize, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let counters = &self.counters;
        counters.commit_us.observe(us);
        counters.commit_records.observe(records as u64);
        counters
            .records
            .fetch_add(records as u64, Ordering::Relaxed);
        counters
            .journal_bytes
            .store(engine.journal_bytes(), Ordering::Relaxed);
    }

    /// Ends all acknowledgements [contracts section 5].
    fn give_up(&self, written: &[Option<Arc<Record>>], error: &StoreError) {
        self.failed.store(true, Ordering::Release);
        let mut queue = lock(&self.queue);
        let items = std::mem::take(&mut queue.items);
        let mut woken = std::mem::take(&mut queue.waiting);
        drop(queue);
        let waiting = items.iter().map(|item| match item {
            Item::Record(record) => Some(record),
            Item::Action(_) => None,
        });
        for record in written.iter().map(Option::as_ref).chain(waiting).flatten() {
            woken.extend(record.fail(JournalFailure::Unknown));
        }
        (self.on_failure.0)(error);
        wake(woken);
    }

    fn read(&self, requests: &mpsc::Receiver<BacklogRequest>) {
        while let Ok(request) = requests.recv() {
            let mut wanted = request.wanted.len();
            let mut batch = vec![request];
            while wanted < READ_BATCH
                && let Ok(request) = requests.try_recv()
            {
                wanted += request.wanted.len();
                batch.push(request);
            }
            let answers = self.read_batch(&batch);
            self.counters
                .bodies_read
                .fetch_add(wanted as u64, Ordering::Relaxed);
            for (request, bodies) in batch.into_iter().zip(answers) {
                request.answer(bodies);
            }
        }
    }

    /// Reads what several requests want in the order of the journal: queues that were filled together share its pages.
    fn read_batch(&self, batch: &[BacklogRequest]) -> Vec<Bodies> {
        let mut answers: Vec<Bodies> = Vec::with_capacity(batch.len());
        let mut order = Vec::new();
        for (number, request) in batch.iter().enumerate() {
            let wanted = request.wanted.iter();
            answers.push(
                wanted
                    .clone()
                    .map(|(sequence, _)| (*sequence, None))
                    .collect(),
            );
            let places = wanted.enumerate();
            order.extend(places.map(|(place, (_, position))| (*position, number, place)));
        }
        order.sort_unstable();
        let mut patience = FULL_PATIENCE;
        let (db, mut reader) = loop {
            let db = self.db.load_full();
            match BodyReader::new(&db, self.key) {
                Ok(reader) => break (db, reader),
                // The file is being opened anew because the disk was full.
                Err(_) if !self.is_ending() && !patience.is_zero() => {
                    drop(db);
                    std::thread::sleep(REOPEN_INTERVAL);
                    patience = patience.saturating_sub(REOPEN_INTERVAL);
                }
                Err(error) => {
                    tracing::error!(%error, "queued messages cannot be read back");
                    return answers;
                }
            }
        };
        for (position, number, place) in order {
            match reader.read(position) {
                Ok(message) => {
                    let answer = answers.get_mut(number).and_then(|own| own.get_mut(place));
                    if let Some((_, body)) = answer {
                        *body = Some(Arc::new(message));
                    }
                }
                Err(_) if !batch.get(number).is_some_and(BacklogRequest::is_vital) => {}
                Err(error) => {
                    tracing::error!(%error, position, "a queued message cannot be read back");
                }
            }
        }
        // The reader's view ends before the file may be closed.
        drop(reader);
        drop(db);
        answers
    }

    fn is_ending(&self) -> bool {
        self.failed.load(Ordering::Acquire) || lock(&self.queue).is_stopping
    }
}

impl Item {
    fn weight(&self) -> usize {
        match self {
            Self::Record(record) => weight(record),
            Self::Action(Action::Publish(publish)) => RECORD_BYTES + publish.message.size_bytes(),
            Self::Action(_) => RECORD_BYTES,
        }
    }
}

fn wake(wakeups: Vec<Arc<Wakeup>>) {
    wakeups.iter().for_each(|wakeup| wakeup.wake());
}

/// What a record counts with in the queue's limit.
fn weight(record: &Record) -> usize {
    RECORD_BYTES + record.message().map_or(0, |message| message.size_bytes())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(io_error(Path::new(name)))
}

/// Makes the store under another name first, so that a file called `store.redb` is always whole.
fn create(path: &Path, options: StoreOptions, key: [u8; 16]) -> Result<(), StoreError> {
    let unfinished = path.with_extension("redb.new");
    if unfinished.exists() {
        std::fs::remove_file(&unfinished).map_err(io_error(&unfinished))?;
    }
    let db = open_database(
        &unfinished,
        options,
        &FileRoom::new(options.file),
        Existing::None,
    )?;
    Engine::create(&db, key)?;
    drop(db);
    std::fs::rename(&unfinished, path).map_err(io_error(path))?;
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let dir_file = File::open(dir).map_err(io_error(dir))?;
    dir_file.sync_all().map_err(io_error(dir))
}

/// Whether the file must be there already.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Existing {
    Required,
    None,
}

fn open_database(
    path: &Path,
    options: StoreOptions,
    room: &Arc<FileRoom>,
    existing: Existing,
) -> Result<Database, StoreError> {
    let mut how = File::options();
    how.read(true)
        .write(true)
        .create_new(existing == Existing::None);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut how, 0o600);
    let file = how.open(path).map_err(io_error(path))?;
    if existing == Existing::Required && file.metadata().map_err(io_error(path))?.len() == 0 {
        // redb would make a new database of it: never start empty in place of what was there.
        return Err(StoreError::Emptied(path.to_owned()));
    }
    let backend = StoreFile::new(file, room.clone()).map_err(io_error(path))?;
    let mut builder = Database::builder();
    builder.set_cache_size(options.cache_bytes);
    // Tags prove the rows that are there; this proves that none is missing.
    builder.set_check_integrity_on_open(true);
    builder
        .create_with_backend(backend)
        .map_err(StoreError::from)
}

/// A database in memory, to stand in while the file is opened anew.
fn placeholder_database() -> Result<Database, StoreError> {
    let backend = redb::backends::InMemoryBackend::new();
    Ok(Database::builder().create_with_backend(backend)?)
}

pub(super) fn create_private_dir(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    if dir.exists() {
        return Err(StoreError::NotAFolder(dir.to_owned()));
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(io_error(dir))?;
    // The new folder's own entry must survive a power cut too.
    let absolute = std::path::absolute(dir).map_err(io_error(dir))?;
    for parent in absolute.ancestors().skip(1) {
        if let Ok(parent) = File::open(parent) {
            let _ = parent.sync_all();
        }
    }
    Ok(())
}

/// What a tool that was killed left behind.
fn remove_unfinished(path: &Path) {
    // If it cannot be removed it is in nobody's way but the disk's.
    let _ = std::fs::remove_file(path.with_extension("redb.unfinished"));
}

/// Holds the folder for this process, as long as the file lives.
pub(super) fn lock_file(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let mut how = File::options();
    how.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut how, 0o600);
    let file = how.open(&path).map_err(io_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked(dir.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(io_error(&path)(error)),
    }
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}

/// The name of the store in `data_dir`.
pub(super) const STORE_FILE: &str = "store.redb";
/// Upper bounds of the durations of commits that are told apart, in microseconds.
const COMMIT_BOUNDS_US: [u64; 12] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
];
/// Upper bounds of the numbers of records that are told apart.
const COMMIT_BOUNDS_RECORDS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 10_000];
/// Milliseconds that a stop waits for views of the store.
const STOP_PATIENCE: u32 = 2000;
/// Bodies that are read in the order of the journal, whoever wants them; the first one waits for the others, some milliseconds.
const READ_BATCH: usize = 8192;
/// What a record without its message counts with.
const RECORD_BYTES: usize = 64;
/// A commit takes at most so many bytes of records.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often a full disk is looked at again while nothing else happens.
const RESERVE_INTERVAL: Duration = Duration::from_secs(1);
/// Commits of nothing while the disk is full and nobody writes: what the last one freed is removed by the next, and redb uses it
/// again after one more. Without them the room made by the last acknowledgements would not be seen.
const LEFTOVER_COMMITS: u8 = 3;
/// A commit that finds no room for so long ends the process, which finds room at its next start.
const FULL_PATIENCE: Duration = Duration::from_secs(30);
/// Pause before the database is opened anew.
const REOPEN_INTERVAL: Duration = Duration::from_millis(250);
