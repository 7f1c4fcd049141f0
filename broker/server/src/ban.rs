//! Bans: who may not connect for a while, because an operator said so, or by itself.
//!
//! By itself: an address that fails too often to log in as one user (that user, from there); an address that fails too often at all;
//! a client identifier that connects again and again. The first is what brute force looks like that guesses a password, and what a
//! device with a wrong password does: it locks out nobody else behind the same address. Only the second does, and its number is high.
//!
//! Promises:
//! - Everything is bounded: bans by `ban.bans_max`, what is counted towards one by `limits.addresses_max`.
//! - Unix sockets, and addresses that a proxy does not tell, are not banned.
//! - What an operator banned survives a restart (`bans` in `data_dir`, mode 0600); what came by itself does not, and what came of
//!   failed logins ends with the next reload, which may have mended the cause.
//! - Without any ban a look costs one atomic load.
//!
//! Does not know: sockets, packets, who is connected.

use crate::admission::{AddressKey, Recent};
use crate::auth::PeerAddress;
use crate::clock;
use crate::config::{BanConfig, Config};
use crate::fingerprint::Fingerprint;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is banned.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// An address or network.
    Address(IpNet),
    /// A client identifier.
    Client(String),
    /// A user name.
    User(String),
    /// A user name from one address; by itself only.
    Login {
        /// From there.
        address: IpNet,
        /// As claimed.
        user: String,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(network) if network.prefix_len() == network.max_prefix_len() => {
                write!(f, "address {}", network.addr())
            }
            Self::Address(network) => write!(f, "address {network}"),
            Self::Client(client) => write!(f, "client {client:?}"),
            Self::User(user) => write!(f, "user {user:?}"),
            Self::Login { address, user } => write!(f, "user {user:?} from {}", address.addr()),
        }
    }
}

/// A ban.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ban {
    /// What is banned.
    pub subject: Subject,
    /// When it ends, in Unix seconds; `None` is never.
    pub until_s: Option<u64>,
    /// Why.
    pub reason: String,
    /// It came by itself.
    pub is_automatic: bool,
}

/// All bans, and what may become one.
#[derive(Debug)]
pub(crate) struct Bans {
    table: Mutex<Table>,
    /// Bans in the table, ended ones among them.
    count: AtomicUsize,
    file: Option<PathBuf>,
    imposed: [AtomicU64; 3],
}

#[derive(Debug, Default)]
struct Table {
    config: BanConfig,
    addresses_max: usize,
    bans: HashMap<Subject, Ban>,
    /// The prefix lengths of banned networks: each is looked up on its own.
    prefixes: BTreeMap<(bool, u8), usize>,
    failures: Recent<(AddressKey, Fingerprint), Window>,
    address_failures: Recent<AddressKey, Window>,
    connects: Recent<Fingerprint, Window>,
}

/// Counts within a time that starts with the first.
#[derive(Copy, Clone, Debug, Default)]
struct Window {
    began: Duration,
    count: u32,
}

impl Window {
    /// Whether one more is the one too many; the count starts again then.
    fn exceeds(&mut self, count_max: u32, window_s: u32) -> bool {
        let now = clock::monotonic();
        if now.saturating_sub(self.began) > Duration::from_secs(window_s.into()) {
            *self = Self {
                began: now,
                count: 0,
            };
        }
        self.count += 1;
        let is_exceeded = count_max > 0 && self.count >= count_max;
        if is_exceeded {
            self.count = 0;
        }
        is_exceeded
    }
}

/// What a ban by itself is for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    Failures,
    AddressFailures,
    Flapping,
}

impl Cause {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Failures, Self::AddressFailures, Self::Flapping];

    /// The value of the metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::AddressFailures => "address_failures",
            Self::Flapping => "flapping",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Failures => "failed logins: ban.failures_max",
            Self::AddressFailures => "failed logins from one address: ban.address_failures_max",
            Self::Flapping => "connects again and again: ban.flaps_max",
        }
    }
}

impl Bans {
    /// With what an operator had banned before.
    ///
    /// # Errors
    /// When that cannot be read: nobody whom an operator has banned comes in by a broken file.
    pub(crate) fn open(config: &Config) -> Result<Self, String> {
        let file = config.data_dir.as_ref().map(|dir| dir.join(FILE_NAME));
        let bans = Self {
            table: Mutex::default(),
            count: AtomicUsize::new(0),
            file,
            imposed: Default::default(),
        };
        bans.set_config(config);
        if let Some(file) = &bans.file {
            for ban in read(file)? {
                bans.insert(&mut bans.lock(), ban);
            }
        }
        Ok(bans)
    }

    /// Takes over a configuration; bans for failed logins end.
    pub(crate) fn set_config(&self, config: &Config) {
        let mut table = self.lock();
        table.config = config.ban.clone();
        table.addresses_max = config.limits.addresses_max as usize;
        table.failures = Recent::default();
        table.address_failures = Recent::default();
        table.remove_where(|ban| ban.is_automatic && !matches!(ban.subject, Subject::Client(_)));
        self.count.store(table.bans.len(), Ordering::Relaxed);
    }

    /// Whether nobody may connect from there.
    pub(crate) fn has_address(&self, address: &PeerAddress) -> bool {
        match address {
            PeerAddress::Ip(address) if !self.is_empty() => {
                self.lock().has_ip(address.ip().to_canonical())
            }
            _ => false,
        }
    }

    /// Whether a client that says so may not connect.
    pub(crate) fn has_login(&self, address: &PeerAddress, client: &str, user: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let table = self.lock();
        let login = login(address, user);
        table.holds(&Subject::Client(client.to_owned()))
            || table.holds(&Subject::User(user.to_owned()))
            || login.is_some_and(|login| table.holds(&login))
    }

    /// Whether an operator has banned a client that is connected.
    pub(crate) fn has_client(&self, address: &PeerAddress, client: &str, user: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let table = self.lock();
        let is_manual = |subject: &Subject| {
            let ban = table.bans.get(subject);
            ban.is_some_and(|ban| !ban.is_automatic && !has_ended(ban))
        };
        let ip = match address {
            PeerAddress::Ip(address) => Some(address.ip().to_canonical()),
            _ => None,
        };
        is_manual(&Subject::Client(client.to_owned()))
            || !user.is_empty() && is_manual(&Subject::User(user.to_owned()))
            || ip.is_some_and(|ip| table.networks_of(ip).any(|network| is_manual(&network)))
    }

    /// Whether a user, once proven, may not connect.
    pub(crate) fn has_user(&self, user: &str) -> bool {
        !self.is_empty() && !user.is_empty() && self.lock().holds(&Subject::User(user.to_owned()))
    }

    /// A login has failed.
    pub(crate) fn note_failure(&self, address: &PeerAddress, user: &str) {
        let key = AddressKey::from(*address);
        if !key.is_known() {
            return;
        }
        let mut table = self.lock();
        let table = &mut *table;
        let (config, addresses_max) = (&table.config, table.addresses_max);
        let (failures_max, window_s) = (config.failures_max, config.failures_window_s);
        let failures = table
            .failures
            .entry((key, Fingerprint::of(&[user.as_bytes()])), addresses_max);
        let is_pair = failures.exceeds(failures_max, window_s);
        let failures = table.address_failures.entry(key, addresses_max);
        let is_address = failures.exceeds(config.address_failures_max, window_s);
        let PeerAddress::Ip(address) = address else {
            return;
        };
        let network = network_of(address.ip());
        if is_pair && let Some(subject) = login_from(network, user) {
            self.impose(table, subject, Cause::Failures);
        }
        if is_address {
            self.impose(table, Subject::Address(network), Cause::AddressFailures);
        }
    }

    /// A client has connected.
    pub(crate) fn note_connected(&self, client: &str) {
        let mut table = self.lock();
        let (flaps_max, window_s) = (table.config.flaps_max, table.config.flaps_window_s);
        if flaps_max == 0 {
            return;
        }
        let addresses_max = table.addresses_max;
        let connects = table
            .connects
            .entry(Fingerprint::of(&[client.as_bytes()]), addresses_max);
        if connects.exceeds(flaps_max, window_s) {
            let subject = Subject::Client(client.to_owned());
            self.impose(&mut table, subject, Cause::Flapping);
        }
    }

    fn impose(&self, table: &mut Table, subject: Subject, cause: Cause) {
        let for_s = table.config.ban_s;
        if for_s == 0 || table.holds(&subject) || !table.has_room() {
            return;
        }
        self.imposed[cause as usize].fetch_add(1, Ordering::Relaxed);
        let reason = cause.reason();
        tracing::warn!(target: "audit", %subject, for_s, reason, "banned; end it with: motemq ban rm");
        let ban = Ban {
            subject,
            until_s: Some(now_s() + u64::from(for_s)),
            reason: reason.to_owned(),
            is_automatic: true,
        };
        self.insert(table, ban);
    }

    /// How often a ban came by itself.
    pub(crate) fn imposed(&self, cause: Cause) -> u64 {
        self.imposed[cause as usize].load(Ordering::Relaxed)
    }

    /// Bans that hold.
    pub(crate) fn list(&self) -> Vec<Ban> {
        let mut table = self.lock();
        table.remove_where(has_ended);
        self.count.store(table.bans.len(), Ordering::Relaxed);
        let mut bans: Vec<_> = table.bans.values().cloned().collect();
        bans.sort_unstable_by(|one, other| one.subject.cmp(&other.subject));
        bans
    }

    /// Bans what an operator names.
    ///
    /// # Errors
    /// When there are too many, or it cannot be kept: then it holds until a restart.
    pub(crate) fn add(
        &self,
        subject: Subject,
        for_s: Option<u64>,
        reason: String,
    ) -> Result<(), String> {
        let mut table = self.lock();
        if !table.has_room() {
            return Err("there are ban.bans_max bans already".to_owned());
        }
        let ban = Ban {
            subject,
            until_s: for_s.map(|for_s| now_s().saturating_add(for_s)),
            reason,
            is_automatic: false,
        };
        tracing::info!(target: "audit", subject = %ban.subject, for_s, reason = ban.reason, "banned by an operator");
        self.insert(&mut table, ban);
        self.write(&table)
    }

    /// Ends a ban; `false` where there is none. Ending that of a user, or of an address, ends those of the user from there.
    ///
    /// # Errors
    /// When what is left cannot be written.
    pub(crate) fn remove(&self, subject: &Subject) -> Result<bool, String> {
        let mut table = self.lock();
        let before = table.bans.len();
        table.remove_where(|ban| match (&ban.subject, subject) {
            (one, other) if one == other => true,
            (Subject::Login { user, .. }, Subject::User(other)) => user == other,
            (Subject::Login { address, .. }, Subject::Address(other)) => other.contains(address),
            _ => false,
        });
        let is_gone = table.bans.len() < before;
        self.count.store(table.bans.len(), Ordering::Relaxed);
        if is_gone {
            tracing::info!(target: "audit", %subject, "ban ended by an operator");
            self.write(&table)?;
        }
        Ok(is_gone)
    }

    fn insert(&self, table: &mut Table, ban: Ban) {
        table.remove_where(|known| known.subject == ban.subject);
        if let Subject::Address(network) = &ban.subject {
            *table.prefixes.entry(prefix(network)).or_default() += 1;
        }
        table.bans.insert(ban.subject.clone(), ban);
        self.count.store(table.bans.len(), Ordering::Relaxed);
    }

    /// Writes what an operator has banned.
    fn write(&self, table: &Table) -> Result<(), String> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let manual = table.bans.values().filter(|ban| !ban.is_automatic);
        write(file, manual).map_err(|error| {
            format!(
                "it holds until a restart, because {} cannot be written: {error}",
                file.display()
            )
        })
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn holds(&self, subject: &Subject) -> bool {
        self.bans.get(subject).is_some_and(|ban| !has_ended(ban))
    }

    fn has_ip(&self, ip: IpAddr) -> bool {
        self.networks_of(ip).any(|network| self.holds(&network))
    }

    /// The networks of an address that may be banned.
    fn networks_of(&self, ip: IpAddr) -> impl Iterator<Item = Subject> {
        self.prefixes
            .keys()
            .filter(move |(is_v4, _)| *is_v4 == ip.is_ipv4())
            .filter_map(move |&(_, bits)| IpNet::new(ip, bits).ok())
            .map(|network| Subject::Address(network.trunc()))
    }

    /// Whether there is room for one more, if need be without those that have ended.
    fn has_room(&mut self) -> bool {
        let bans_max = self.config.bans_max as usize;
        if self.bans.len() >= bans_max {
            self.remove_where(has_ended);
        }
        self.bans.len() < bans_max
    }

    fn remove_where(&mut self, is_over: impl Fn(&Ban) -> bool) {
        let prefixes = &mut self.prefixes;
        self.bans.retain(|subject, ban| {
            let is_over = is_over(ban);
            if is_over
                && let Subject::Address(network) = subject
                && let Some(count) = prefixes.get_mut(&prefix(network))
            {
                *count -= 1;
            }
            !is_over
        });
        prefixes.retain(|_, count| *count > 0);
    }
}

fn prefix(network: &IpNet) -> (bool, u8) {
    (matches!(network, IpNet::V4(_)), network.prefix_len())
}

/// What counts as one address.
fn network_of(ip: IpAddr) -> IpNet {
    match AddressKey::of_ip(ip) {
        AddressKey::V4(bits) => Ipv4Net::from(Ipv4Addr::from_bits(bits)).into(),
        AddressKey::V6(bits) => {
            let ip = Ipv6Addr::from_bits(u128::from(bits) << 64);
            Ipv6Net::new(ip, 64).map_or_else(|_| ip.to_canonical().into(), IpNet::from)
        }
        AddressKey::Local | AddressKey::Unknown => ip.into(),
    }
}

fn login(address: &PeerAddress, user: &str) -> Option<Subject> {
    match address {
        PeerAddress::Ip(address) => login_from(network_of(address.ip()), user),
        _ => None,
    }
}

fn login_from(address: IpNet, user: &str) -> Option<Subject> {
    (!user.is_empty()).then(|| Subject::Login {
        address,
        user: user.to_owned(),
    })
}

fn has_ended(ban: &Ban) -> bool {
    ban.until_s.is_some_and(|until_s| until_s <= now_s())
}

fn now_s() -> u64 {
    clock::now().as_ms() / 1000
}

fn read(path: &Path) -> Result<Vec<Ban>, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            format!(
                "{}:{}: {error}; correct the line or remove the file, and with it all bans",
                path.display(),
                number + 1
            )
        })
    };
    text.lines().enumerate().map(line).collect()
}

fn write<'a>(path: &Path, bans: impl Iterator<Item = &'a Ban>) -> std::io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let _ = std::fs::remove_file(&unfinished);
    let mut how = std::fs::File::options();
    how.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut how, 0o600);
    let mut file = how.open(&unfinished)?;
    for ban in bans {
        writeln!(file, "{}", serde_json::to_string(ban)?)?;
    }
    file.sync_all()?;
    std::fs::rename(&unfinished, path)
}

/// The file in `data_dir`.
const FILE_NAME: &str = "bans";

#[cfg(test)]
mod tests {
    use super::*;

    fn bans(change: impl FnOnce(&mut Config)) -> Bans {
        let mut config = Config {
            data_dir: None,
            ..Config::default()
        };
        change(&mut config);
        Bans::open(&config).unwrap()
    }

    fn from(ip: &str) -> PeerAddress {
        PeerAddress::Ip((ip.parse::<IpAddr>().unwrap(), 1).into())
    }

    fn network(text: &str) -> Subject {
        Subject::Address(text.parse().unwrap())
    }

    #[test]
    fn a_bad_device_locks_out_nobody_else_behind_its_address() {
        let bans = bans(|config| config.ban.failures_max = 3);
        let (here, elsewhere) = (from("10.0.0.1"), from("10.0.0.2"));
        (0..3).for_each(|_| bans.note_failure(&here, "anna"));
        assert!(bans.has_login(&here, "c", "anna"));
        assert!(!bans.has_login(&here, "c", "berta"));
        assert!(!bans.has_login(&elsewhere, "c", "anna"));
        assert!(!bans.has_address(&here) && !bans.has_user("anna"));
        assert_eq!(bans.imposed(Cause::Failures), 1);
        // Who is connected had the right password.
        assert!(!bans.has_client(&here, "c", "anna"));
        // The reload may have brought the right password.
        bans.set_config(&Config::default());
        assert!(!bans.has_login(&here, "c", "anna"));
    }

    #[test]
    fn an_address_that_tries_many_users_is_banned_as_a_whole() {
        let bans = bans(|config| config.ban.address_failures_max = 50);
        let here = from("2001:db8::1");
        (0..49).for_each(|user| bans.note_failure(&here, &user.to_string()));
        assert!(!bans.has_address(&here));
        bans.note_failure(&from("2001:db8::2"), "50");
        assert!(bans.has_address(&from("2001:db8::3")));
        assert!(!bans.has_address(&from("2001:db8:0:1::3")));
        let unix = PeerAddress::Unix { uid: None };
        (0..100).for_each(|user| bans.note_failure(&unix, &user.to_string()));
        assert!(!bans.has_address(&unix) && !bans.has_login(&unix, "c", "1"));
    }

    #[test]
    fn a_client_that_flaps_is_banned_if_that_is_wanted() {
        let eager = bans(|config| config.ban.flaps_max = 5);
        (0..5).for_each(|_| eager.note_connected("c"));
        assert!(eager.has_login(&from("10.0.0.1"), "c", ""));
        assert!(!eager.has_login(&from("10.0.0.1"), "d", ""));
        let default = bans(|_| ());
        (0..500).for_each(|_| default.note_connected("c"));
        assert!(default.list().is_empty());
    }

    #[test]
    fn an_operator_bans_networks_clients_and_users_until_a_time() {
        let bans = bans(|config| config.ban.bans_max = 3);
        let reason = || "because".to_owned();
        bans.add(network("10.1.0.0/16"), None, reason()).unwrap();
        bans.add(Subject::User("anna".to_owned()), Some(100), reason())
            .unwrap();
        bans.add(network("10.2.0.1/32"), Some(0), reason()).unwrap();
        assert!(bans.has_address(&from("10.1.2.3")));
        assert!(bans.has_address(&from("::ffff:10.1.2.3")));
        assert!(!bans.has_address(&from("10.2.0.1")), "it has ended");
        assert!(bans.has_user("anna") && bans.has_client(&from("10.3.0.1"), "c", "anna"));
        assert!(bans.has_client(&from("10.1.0.1"), "c", ""));
        // What has ended makes room.
        bans.add(Subject::Client("c".to_owned()), None, reason())
            .unwrap();
        assert!(
            bans.add(Subject::Client("d".to_owned()), None, reason())
                .is_err()
        );
        assert_eq!(bans.list().len(), 3);
        assert!(bans.remove(&network("10.1.0.0/16")).unwrap());
        assert!(!bans.remove(&network("10.1.0.0/16")).unwrap());
        assert!(!bans.has_address(&from("10.1.2.3")));
        assert!(bans.lock().prefixes.is_empty());
    }

    #[test]
    fn an_operators_bans_survive_a_restart_in_a_private_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            Bans::open(&Config {
                data_dir: Some(folder.path().to_owned()),
                ..Config::default()
            })
        };
        let bans = open().unwrap();
        bans.add(network("10.0.0.0/8"), Some(1000), String::new())
            .unwrap();
        (0..1000).for_each(|_| bans.note_failure(&from("10.0.0.1"), "anna"));
        assert_eq!(bans.list().len(), 3);
        let file = folder.path().join(FILE_NAME);
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let after = open().unwrap().list();
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].subject, network("10.0.0.0/8"));
        std::fs::write(&file, "nonsense\n").unwrap();
        assert!(open().unwrap_err().contains("bans:1:"));
    }
}
