//! TLS sessions that clients may resume, over restarts of the broker too.
//!
//! A session is found by the random id that its client has of it; the id is short, so that a device on a narrow link does not
//! carry its own certificate to and fro as a stateless ticket would make it.
//!
//! Invariants:
//! - What is kept of a session is sealed under a key made of its id, which is not kept. The file has TLS 1.3 sessions only: their ids
//!   travel encrypted until they are used up, and what they seal opens no recorded connection. In TLS 1.2 ids travel in clear and
//!   the session's secret would open its records.
//! - Key and place also depend on the listener and its authorities: other authorities, and nothing from before is found.
//! - At most `sessions_max`, the oldest go first; none for longer than [`LIFETIME_S`]; the file holds at most about twice as many.
//! - The file is written a second later and never waited for. A session that it lost, or a file that cannot be read, costs a full
//!   handshake. Without a folder nothing is written.
//!
//! Does not know: whether the certificate in a session is still valid (`accept.rs` looks at every connection).

use crate::clock;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use rustls::server::StoresServerSessions;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The sessions of all listeners.
pub struct TlsSessions {
    sessions_max: usize,
    kept: Mutex<Kept>,
    /// Locked before `kept`.
    file: Mutex<Option<SessionFile>>,
}

type Place = [u8; 32];

/// A session as in the file: length of the rest, unix seconds, place, nonce, sealed value with its tag.
type Entry = Arc<[u8]>;

/// One session.
struct Session {
    entry: Entry,
    /// It may be written to the file.
    lasts: bool,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<Place, Session>,
    /// By age; what was taken stays in until there is much of it.
    order: VecDeque<Place>,
    /// Not yet in the file.
    unwritten: Vec<Entry>,
}

struct SessionFile {
    path: PathBuf,
    /// `None` until the file is written anew, which also drops what is spoilt or too old in it.
    open: Option<File>,
    /// Entries in it.
    entries: usize,
    has_failed: bool,
}

impl std::fmt::Debug for TlsSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsSessions")
    }
}

impl TlsSessions {
    /// With what `folder` has from before, or without memory of it.
    #[must_use]
    pub fn open(folder: Option<&Path>, sessions_max: usize) -> Arc<Self> {
        let path = folder.map(|folder| folder.join(FILE_NAME));
        let mut kept = Kept::default();
        if let Some(path) = path.as_deref() {
            match read_file(path) {
                Ok(bytes) => kept.load(&bytes, sessions_max),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "TLS sessions from before are not resumed");
                }
            }
        }
        Arc::new(Self {
            sessions_max,
            kept: Mutex::new(kept),
            file: Mutex::new(path.map(|path| SessionFile {
                path,
                open: None,
                entries: 0,
                has_failed: false,
            })),
        })
    }

    /// Nothing from before, nothing on disk.
    #[must_use]
    pub fn in_memory(sessions_max: usize) -> Arc<Self> {
        Self::open(None, sessions_max)
    }

    /// The sessions of a listener; `rules` is what a client was verified by.
    #[must_use]
    pub fn of_listener(self: &Arc<Self>, rules: &[u8]) -> Arc<dyn StoresServerSessions> {
        Arc::new(ListenerSessions {
            all: self.clone(),
            derivation: hmac::Key::new(hmac::HMAC_SHA256, rules),
        })
    }

    /// Writes to the file what it does not have yet.
    pub fn write(&self) {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = slot.as_mut() else {
            return;
        };
        let (entries, anew) = {
            let mut kept = self.lock();
            let unwritten = std::mem::take(&mut kept.unwritten);
            let total = file.entries + unwritten.len();
            let anew = file.open.is_none() || total > 2 * kept.entries.len() + SLACK;
            match anew {
                true => (kept.in_order(), true),
                false => (unwritten, false),
            }
        };
        if entries.is_empty() {
            return;
        }
        match file.write(&entries, anew) {
            Ok(()) => file.has_failed = false,
            Err(error) => {
                // The next write makes a whole file again.
                file.open = None;
                if !std::mem::replace(&mut file.has_failed, true) {
                    tracing::warn!(path = %file.path.display(), %error, "TLS sessions are not written: after a restart clients do full handshakes");
                }
            }
        }
    }

    /// Writes now and then, until dropped.
    pub(crate) async fn write_regularly(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WRITE_INTERVAL).await;
            if self.lock().unwritten.is_empty() {
                continue;
            }
            let sessions = self.clone();
            let _ = tokio::task::spawn_blocking(move || sessions.write()).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn load(&mut self, mut bytes: &[u8], sessions_max: usize) {
        // A torn end is what a power cut leaves.
        while let Some((length, rest)) = bytes.split_first_chunk::<2>()
            && let length = usize::from(u16::from_le_bytes(*length))
            && let Some((_, after)) = rest.split_at_checked(length)
        {
            let entry: Entry = bytes.get(..2 + length).unwrap_or_default().into();
            if let Some(place) = place_of(&entry)
                && is_young(&entry)
            {
                self.insert(place, Session { entry, lasts: true }, sessions_max);
            }
            bytes = after;
        }
    }

    fn insert(&mut self, place: Place, session: Session, sessions_max: usize) {
        if self.entries.insert(place, session).is_none() {
            self.order.push_back(place);
        }
        while self.entries.len() > sessions_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        if self.order.len() > 2 * self.entries.len() + SLACK {
            let entries = &self.entries;
            self.order.retain(|place| entries.contains_key(place));
        }
    }

    fn in_order(&self) -> Vec<Entry> {
        let places = self.order.iter();
        places
            .filter_map(|place| self.entries.get(place))
            .filter(|session| session.lasts && is_young(&session.entry))
            .map(|session| session.entry.clone())
            .collect()
    }
}

impl SessionFile {
    fn write(&mut self, entries: &[Entry], anew: bool) -> std::io::Result<()> {
        let bytes = entries.concat();
        if anew {
            let unfinished = self.path.with_extension("unfinished");
            let _ = std::fs::remove_file(&unfinished);
            let mut how = File::options();
            how.append(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut how, 0o600);
            let mut file = how.open(&unfinished)?;
            file.write_all(&bytes)?;
            std::fs::rename(&unfinished, &self.path)?;
            self.open = Some(file);
            self.entries = entries.len();
        } else if let Some(file) = &mut self.open {
            file.write_all(&bytes)?;
            self.entries += entries.len();
        }
        Ok(())
    }
}

/// One listener's way to the sessions.
struct ListenerSessions {
    all: Arc<TlsSessions>,
    derivation: hmac::Key,
}

impl std::fmt::Debug for ListenerSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ListenerSessions")
    }
}

impl StoresServerSessions for ListenerSessions {
    fn put(&self, id: Vec<u8>, value: Vec<u8>) -> bool {
        let place = self.derive(b"place", &id);
        let lasts = is_tls13(&value);
        let Some(entry) = self.seal(&id, &place, value) else {
            return false;
        };
        let mut kept = self.all.lock();
        let session = Session {
            entry: entry.clone(),
            lasts,
        };
        kept.insert(place, session, self.all.sessions_max);
        if lasts && kept.unwritten.len() < self.all.sessions_max {
            kept.unwritten.push(entry);
        }
        true
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        let place = self.derive(b"place", id);
        let entry = self.all.lock().entries.get(&place)?.entry.clone();
        self.unseal(id, &entry)
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        let place = self.derive(b"place", id);
        let session = self.all.lock().entries.remove(&place)?;
        self.unseal(id, &session.entry)
    }

    fn can_cache(&self) -> bool {
        self.all.sessions_max > 0
    }
}

impl ListenerSessions {
    fn derive(&self, what: &[u8], id: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.derivation);
        context.update(what);
        context.update(id);
        context.sign().as_ref().try_into().unwrap_or_default()
    }

    fn key(&self, id: &[u8]) -> Option<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, &self.derive(b"key", id)).ok()
    }

    fn seal(&self, id: &[u8], place: &Place, mut value: Vec<u8>) -> Option<Entry> {
        let head = [&now_s().to_le_bytes()[..], place].concat();
        let nonce = self
            .key(id)?
            .seal_in_place_append_tag(Aad::from(&head), &mut value)
            .ok()?;
        let length = u16::try_from(head.len() + nonce.as_ref().len() + value.len()).ok()?;
        let length = length.to_le_bytes();
        Some([&length[..], &head, nonce.as_ref(), &value].concat().into())
    }

    fn unseal(&self, id: &[u8], entry: &Entry) -> Option<Vec<u8>> {
        if !is_young(entry) {
            return None;
        }
        let (head, rest) = entry.get(2..)?.split_at_checked(HEAD_BYTES)?;
        let (nonce, sealed) = rest.split_first_chunk::<12>()?;
        let mut value = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self
            .key(id)?
            .open_in_place(nonce, Aad::from(head), &mut value)
            .ok()?
            .len();
        value.truncate(length);
        Some(value)
    }
}

/// Whether rustls' form of a session is that of TLS 1.3: a server name or none, then the version. What looks otherwise is not.
fn is_tls13(value: &[u8]) -> bool {
    let version = match value {
        [0, rest @ ..] => Some(rest),
        [1, length, rest @ ..] => rest.get(usize::from(*length)..),
        _ => None,
    };
    version.is_some_and(|version| version.starts_with(&[3, 4]))
}

fn place_of(entry: &[u8]) -> Option<Place> {
    entry.get(10..)?.first_chunk().copied()
}

fn is_young(entry: &[u8]) -> bool {
    let kept_at = entry.get(2..).and_then(|rest| rest.first_chunk());
    let kept_at = u64::from_le_bytes(kept_at.copied().unwrap_or_default());
    (kept_at..kept_at.saturating_add(LIFETIME_S)).contains(&now_s())
}

fn now_s() -> u64 {
    clock::now().as_ms() / 1000
}

/// What is in the file, unless somebody else could have written it.
fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions());
        if mode & 0o077 != 0 {
            return Err(std::io::Error::other(
                "it is open to other users: remove it",
            ));
        }
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// In `data_dir`.
const FILE_NAME: &str = "tls-sessions";
/// Seconds after which a session is not resumed; rustls tells clients the same.
const LIFETIME_S: u64 = 24 * 60 * 60;
/// Entries that may be superfluous in the file and in `order`, beyond as many as are of use.
const SLACK: usize = 1000;
/// Time and place.
const HEAD_BYTES: usize = 8 + 32;
/// What is read of a file, whatever it is.
const FILE_BYTES_MAX: u64 = 1 << 30;
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_session_outlives_the_broker() {
        let folder = TempDir::new().unwrap();
        let sessions = TlsSessions::open(Some(folder.path()), 10);
        assert!(put(&sessions, 1));
        assert!(put(&sessions, 2));
        sessions.write();
        assert!(put(&sessions, 3));
        sessions.write();
        let again = TlsSessions::open(Some(folder.path()), 10);
        for number in 1..=3 {
            assert_eq!(take(&again, number), Some(secret(number)), "{number}");
        }
    }

    #[test]
    fn a_session_is_taken_once() {
        let sessions = TlsSessions::in_memory(10);
        assert!(put(&sessions, 1));
        assert_eq!(take(&sessions, 1), Some(secret(1)));
        assert_eq!(take(&sessions, 1), None);
    }

    #[test]
    fn other_rules_find_nothing() {
        let sessions = TlsSessions::in_memory(10);
        assert!(put(&sessions, 1));
        let others = sessions.of_listener(b"other authorities");
        assert_eq!(others.get(&id(1)), None);
        assert_eq!(others.take(&id(1)), None);
        assert_eq!(take(&sessions, 1), Some(secret(1)));
    }

    #[test]
    fn the_oldest_go_first() {
        let sessions = TlsSessions::in_memory(2);
        for number in 1..=3 {
            assert!(put(&sessions, number));
        }
        assert_eq!(take(&sessions, 1), None);
        assert_eq!(take(&sessions, 2), Some(secret(2)));
        assert_eq!(take(&sessions, 3), Some(secret(3)));
    }

    #[test]
    fn a_client_that_comes_and_goes_does_not_fill_the_disk() {
        let folder = TempDir::new().unwrap();
        let sessions = TlsSessions::open(Some(folder.path()), 10);
        for number in 0..10_000 {
            assert!(put(&sessions, number));
            assert!(number % 10 != 0 || take(&sessions, number).is_some());
            if number % 100 == 0 {
                sessions.write();
            }
        }
        sessions.write();
        let entry = 2 + HEAD_BYTES + 12 + secret(9999).len() + 16;
        let bytes = std::fs::metadata(folder.path().join(FILE_NAME))
            .unwrap()
            .len();
        assert!(bytes <= ((2 * 10 + SLACK) * entry) as u64, "{bytes}");
        assert!(sessions.lock().order.len() <= 2 * 10 + SLACK);
    }

    #[test]
    fn a_spoilt_file_loses_what_is_spoilt() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(FILE_NAME);
        let sessions = TlsSessions::open(Some(folder.path()), 10);
        (1..=3).for_each(|number| assert!(put(&sessions, number)));
        sessions.write();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.pop();
        // In the sealed value of the second.
        bytes[96 + 70] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let again = TlsSessions::open(Some(folder.path()), 10);
        let found: Vec<_> = (1..=3).map(|number| take(&again, number)).collect();
        assert_eq!(found, [Some(secret(1)), None, None]);
    }

    #[test]
    fn the_file_gives_no_secret_away_and_is_the_owners() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(FILE_NAME);
        let sessions = TlsSessions::open(Some(folder.path()), 10);
        assert!(put(&sessions, 1));
        sessions.write();
        let bytes = std::fs::read(&path).unwrap();
        let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(!holds(&secret(1)[3..19]));
        assert!(!holds(&id(1)[..16]));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).unwrap();
            let again = TlsSessions::open(Some(folder.path()), 10);
            assert_eq!(take(&again, 1), None);
        }
    }

    #[test]
    fn a_session_is_young_for_a_day() {
        let of = |kept_at: u64| [&[0, 0][..], &kept_at.to_le_bytes()].concat();
        assert!(is_young(&of(now_s())));
        assert!(is_young(&of(now_s() - LIFETIME_S + 60)));
        assert!(!is_young(&of(now_s() - LIFETIME_S)));
        assert!(!is_young(&of(now_s() + 60)));
    }

    fn id(number: u32) -> Vec<u8> {
        [number.to_le_bytes(); 8].concat()
    }

    fn secret(number: u32) -> Vec<u8> {
        [
            b"\0\x03\x04",
            format!("the secret of session {number}").as_bytes(),
        ]
        .concat()
    }

    fn put(sessions: &Arc<TlsSessions>, number: u32) -> bool {
        sessions
            .of_listener(b"rules")
            .put(id(number), secret(number))
    }

    fn take(sessions: &Arc<TlsSessions>, number: u32) -> Option<Vec<u8>> {
        sessions.of_listener(b"rules").take(&id(number))
    }
}
