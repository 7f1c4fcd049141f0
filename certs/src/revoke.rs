//! Taking certificates back: which ones are meant, and what becomes of them.
//!
//! Invariants:
//! - All or nothing: when one of those named was never issued, none is revoked.
//! - With a certificate goes what was renewed from it: whoever has stolen it may have done that. Not if it was superseded: then what
//!   has taken its place stays.
//! - The inventory says it before the list does. Revoking what is revoked already writes the list again, so a revocation
//!   that was cut short is finished by repeating it.

use crate::clock::now_unix_s;
use crate::{
    Authority, CertsError, Entry, Inventory, Kind, Reason, RevocationList, Status, normal_serial,
};
use std::collections::{HashMap, HashSet};

/// Which certificates are to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// All those of an id that have not expired.
    Id(String),
    /// The one with this serial, however it is written.
    Serial(String),
}

/// What a revocation is to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Revocation {
    /// Why.
    pub reason: Option<Reason>,
    /// Which kind is meant where an id has certificates of several.
    pub kind: Option<Kind>,
    /// Whether a serial that the inventory does not know is taken on trust.
    pub force: bool,
    /// Whether with a claim goes what was enrolled by it.
    pub with_enrolled: bool,
}

/// What a revocation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// These are revoked now.
    pub revoked: Vec<Entry>,
    /// These had been before.
    pub already: Vec<Entry>,
    /// These have expired and were left as they are.
    pub expired: Vec<Entry>,
    /// How many of the revoked were not named, but renewed from, or enrolled by, what was.
    pub followed: usize,
    /// How many valid certificates were enrolled by the claims, or renewed from those, and left as they are.
    pub enrolled: usize,
    /// The list that was written.
    pub list: RevocationList,
}

impl Authority {
    /// Revokes the certificates that `targets` name and writes the list anew, for `days` (see [`write_crl`](Self::write_crl)).
    ///
    /// # Errors
    /// [`CertsError::NotIssued`] when the inventory does not know one, [`CertsError::SeveralKinds`] when an id is not enough,
    /// [`CertsError::Serial`]: then nothing was done. [`CertsError::RevokedButNotListed`] when the list could not be written, and
    /// those of [`Inventory::append_if`].
    pub fn revoke(
        &self,
        inventory: &mut Inventory,
        targets: &[Target],
        revocation: Revocation,
        days: Option<u32>,
    ) -> Result<Done, CertsError> {
        // What would stop the list is found before anything is said.
        self.present_list()?;
        let mut chosen = Chosen::default();
        inventory.append_if(|inventory| {
            chosen = Chosen::from(self, inventory, targets, revocation)?;
            Ok::<_, CertsError>(chosen.revoked.clone())
        })?;
        let list = self.write_crl(inventory, days).map_err(|error| {
            CertsError::RevokedButNotListed(chosen.revoked.len(), Box::new(error))
        })?;
        Ok(Done {
            revoked: chosen.revoked,
            already: chosen.already,
            expired: chosen.expired,
            followed: chosen.followed,
            enrolled: chosen.enrolled,
            list,
        })
    }
}

#[derive(Default)]
struct Chosen {
    revoked: Vec<Entry>,
    already: Vec<Entry>,
    expired: Vec<Entry>,
    unknown: Vec<String>,
    seen: HashSet<String>,
    followed: usize,
    enrolled: usize,
}

impl Chosen {
    fn from(
        authority: &Authority,
        inventory: &Inventory,
        targets: &[Target],
        revocation: Revocation,
    ) -> Result<Self, CertsError> {
        let now = now_unix_s();
        let mut chosen = Self::default();
        for target in targets {
            match target {
                Target::Id(id) => chosen.take_id(inventory, id, revocation, now)?,
                Target::Serial(serial) => {
                    let serial = normal_serial(serial)?;
                    match inventory.with_serial(&serial) {
                        Some(entry) => chosen.take(entry, revocation, now),
                        None if revocation.force => {
                            let entry = on_trust(authority, serial, revocation);
                            chosen.take(&entry, revocation, now);
                        }
                        None => chosen.unknown.push(format!("serial {serial}")),
                    }
                }
            }
        }
        if !chosen.unknown.is_empty() {
            return Err(CertsError::NotIssued(chosen.unknown));
        }
        chosen.follow(inventory, revocation, now);
        Ok(chosen)
    }

    /// Takes what was issued because of what was named.
    fn follow(&mut self, inventory: &Inventory, revocation: Revocation, now_unix_s: i64) {
        let named = || {
            self.revoked
                .iter()
                .chain(&self.already)
                .chain(&self.expired)
        };
        let certificates = named().filter(|_| revocation.reason != Some(Reason::Superseded));
        let renewed = certificates
            .map(|entry| renewed_from(&entry.serial))
            .collect();
        let claims = named().filter(|entry| entry.kind == Kind::Claim);
        let claimed = claims.map(|entry| format!("claim {}", entry.id)).collect();
        let grounds = Grounds::of(inventory, now_unix_s);
        for entry in grounds.follow(renewed) {
            self.take_followed(entry, revocation, now_unix_s);
        }
        for entry in grounds.follow(claimed) {
            if revocation.with_enrolled {
                self.take_followed(entry, revocation, now_unix_s);
            } else if !self.seen.contains(&entry.serial) {
                self.enrolled += 1;
            }
        }
    }

    fn take_followed(&mut self, entry: &Entry, revocation: Revocation, now_unix_s: i64) {
        let before = self.revoked.len();
        self.take(entry, revocation, now_unix_s);
        self.followed += self.revoked.len() - before;
    }

    fn take_id(
        &mut self,
        inventory: &Inventory,
        id: &str,
        revocation: Revocation,
        now_unix_s: i64,
    ) -> Result<(), CertsError> {
        let is_meant = |entry: &&Entry| revocation.kind.is_none_or(|kind| kind == entry.kind);
        let entries: Vec<&Entry> = inventory.of_id(id).filter(is_meant).collect();
        let Some(first) = entries.first() else {
            self.unknown.push(format!("{id:?}"));
            return Ok(());
        };
        if let Some(other) = entries.iter().find(|entry| entry.kind != first.kind) {
            return Err(CertsError::SeveralKinds {
                id: id.to_owned(),
                one: first.kind,
                other: other.kind,
            });
        }
        for entry in entries {
            self.take(entry, revocation, now_unix_s);
        }
        Ok(())
    }

    fn take(&mut self, entry: &Entry, revocation: Revocation, now_unix_s: i64) {
        if !self.seen.insert(entry.serial.clone()) {
            return;
        }
        if entry.status == Status::Revoked {
            self.already.push(entry.clone());
        } else if entry.not_after < now_unix_s {
            self.expired.push(entry.clone());
        } else {
            self.revoked.push(Entry {
                status: Status::Revoked,
                at: now_unix_s,
                reason: revocation.reason.map(|reason| reason.name().to_owned()),
                ..entry.clone()
            });
        }
    }
}

/// What was issued because of what.
struct Grounds<'a> {
    by_ground: HashMap<&'a str, Vec<&'a Entry>>,
    now_unix_s: i64,
}

impl<'a> Grounds<'a> {
    fn of(inventory: &'a Inventory, now_unix_s: i64) -> Self {
        let mut by_ground: HashMap<&str, Vec<&Entry>> = HashMap::new();
        for entry in inventory.entries() {
            if let Some(ground) = &entry.enrolled_by {
                by_ground.entry(ground).or_default().push(entry);
            }
        }
        Self {
            by_ground,
            now_unix_s,
        }
    }

    /// The valid certificates that were issued because of these, or of such as were; also if one between them is not valid any more.
    fn follow(&self, mut grounds: Vec<String>) -> Vec<&'a Entry> {
        let mut seen = HashSet::new();
        let mut followed = Vec::new();
        while let Some(ground) = grounds.pop() {
            for entry in self.by_ground.get(ground.as_str()).into_iter().flatten() {
                if !seen.insert(&entry.serial) {
                    continue;
                }
                grounds.push(renewed_from(&entry.serial));
                if entry.status == Status::Issued && entry.not_after >= self.now_unix_s {
                    followed.push(*entry);
                }
            }
        }
        followed
    }
}

fn renewed_from(serial: &str) -> String {
    format!("certificate {serial}")
}

/// A certificate of which only the serial is known: it stays on the list as long as the authority.
fn on_trust(authority: &Authority, serial: String, revocation: Revocation) -> Entry {
    Entry {
        id: String::new(),
        kind: revocation.kind.unwrap_or(Kind::Device),
        serial,
        fingerprint: String::new(),
        not_after: authority.not_after_unix_s(),
        status: Status::Issued,
        at: now_unix_s(),
        reason: None,
        key_type: None,
        attributes: std::collections::BTreeMap::new(),
        enrolled_by: None,
        public_key: None,
    }
}
