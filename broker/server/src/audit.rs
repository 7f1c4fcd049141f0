//! One line for each refusal: who, from where, what, which rule, which key changes it. Target `audit`.
//!
//! Invariants: in a storm the log is not the outage. One address causes at most [`ADDRESS_LINES_PER_SECOND`] lines a second, all
//! together [`LINES_PER_SECOND`]; each line says how many are missing before it (`suppressed`). Addresses are remembered in a bounded
//! table. What is counted, and never suppressed, is with the listeners (`listener.rs`).
//!
//! Does not know: why something was refused, and never a password or payload.

use crate::admission::{AddressKey, Recent};
use crate::auth::PeerAddress;
use crate::clock;
use motemq_core::{EventKind, History, HistoryEvent};
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Something that was refused.
pub(crate) struct Refused<'a> {
    /// Where it is noted besides.
    pub(crate) history: &'a History,
    /// What: `connection`, `client`, `publish`, `subscribe`, ...
    pub(crate) what: &'static str,
    /// Why, in a word of the metrics.
    pub(crate) reason: &'static str,
    pub(crate) peer: &'a PeerAddress,
    pub(crate) listener: &'a str,
    /// The client identifier; empty where it is not known.
    pub(crate) client: &'a str,
    /// The user name, as proven or as claimed; empty where there is none.
    pub(crate) user: &'a str,
    /// The rule, or what is wrong: a topic, an error.
    pub(crate) rule: &'a dyn Display,
    /// What an operator changes to have it otherwise.
    pub(crate) key: &'a str,
}

impl Refused<'_> {
    /// Notes it, and writes the line unless there are too many.
    pub(crate) fn log(&self) {
        self.log_line();
        self.history.note(&HistoryEvent {
            peer: &self.peer.to_string(),
            detail: &format!(
                "{}; listener {}; to change: {}",
                self.rule, self.listener, self.key
            ),
            ..HistoryEvent::new(clock::now(), EventKind::Refused, self.client, self.reason)
        });
    }

    /// Writes the line alone: the history has it already.
    pub(crate) fn log_line(&self) {
        if let Some(suppressed) = LINES.admit((*self.peer).into()) {
            tracing::warn!(
                target: "audit",
                reason = self.reason,
                peer = %self.peer,
                listener = self.listener,
                client = &*shown(self.client, NAME_SHOWN_MAX),
                user = &*shown(self.user, NAME_SHOWN_MAX),
                rule = &*shown(&self.rule.to_string(), RULE_SHOWN_MAX),
                key = self.key,
                suppressed,
                "refused {}",
                self.what
            );
        }
    }
}

/// As a log may have it: the beginning, without what could begin another line or reach the terminal.
pub(crate) fn shown(text: &str, characters_max: usize) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(characters_max).map(clean).collect()
}

/// Lines of all refusals.
#[derive(Debug, Default)]
struct Lines {
    all: AuditLimit,
    by_address: Mutex<Recent<AddressKey, SecondOfLines>>,
}

#[derive(Copy, Clone, Debug, Default)]
struct SecondOfLines {
    second: u64,
    lines: u64,
}

impl Lines {
    /// Whether `key` may cause a line now; if so, how many were suppressed before it.
    fn admit(&self, key: AddressKey) -> Option<u64> {
        if self.all.is_spent() || !self.admits_address(key) {
            self.all.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.all.admit()
    }

    fn admits_address(&self, key: AddressKey) -> bool {
        let second = clock::monotonic().as_secs() + 1;
        let mut addresses = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let lines = addresses.entry(key, ADDRESSES_MAX);
        if lines.second != second {
            *lines = SecondOfLines { second, lines: 0 };
        }
        lines.lines += 1;
        lines.lines <= ADDRESS_LINES_PER_SECOND
    }
}

/// Lines of all together: at most [`LINES_PER_SECOND`].
#[derive(Debug, Default)]
struct AuditLimit {
    second: AtomicU64,
    lines: AtomicU64,
    suppressed: AtomicU64,
}

impl AuditLimit {
    /// Whether a line may be written now; if so, how many were suppressed before it.
    fn admit(&self) -> Option<u64> {
        let second = clock::monotonic().as_secs() + 1;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.lines.store(0, Ordering::Relaxed);
        }
        if self.lines.fetch_add(1, Ordering::Relaxed) < LINES_PER_SECOND {
            Some(self.suppressed.swap(0, Ordering::Relaxed))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }

    /// Whether this second has had its lines.
    fn is_spent(&self) -> bool {
        let second = clock::monotonic().as_secs() + 1;
        self.second.load(Ordering::Relaxed) == second
            && self.lines.load(Ordering::Relaxed) >= LINES_PER_SECOND
    }
}

static LINES: LazyLock<Lines> = LazyLock::new(Lines::default);
/// Characters of a client identifier or user name in the log.
pub(crate) const NAME_SHOWN_MAX: usize = 128;
const RULE_SHOWN_MAX: usize = 800;
/// Lines that all refusals together may cause in a second.
const LINES_PER_SECOND: u64 = 50;
/// Lines that one address may cause in a second.
const ADDRESS_LINES_PER_SECOND: u64 = 10;
/// Addresses whose lines are counted; the others start anew.
const ADDRESSES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_causes_few_lines_and_says_how_many_are_missing() {
        let limit = AuditLimit::default();
        let admitted = (0..1000).filter(|_| limit.admit().is_some()).count() as u64;
        // The second may change once while this runs.
        assert!((LINES_PER_SECOND..=2 * LINES_PER_SECOND).contains(&admitted));
    }

    #[test]
    fn one_address_does_not_use_up_the_lines_of_others() {
        let lines = Lines::default();
        let admitted = |key| {
            let key = AddressKey::V4(key);
            (0..1000).filter(|_| lines.admit(key).is_some()).count() as u64
        };
        let of_one = admitted(1);
        assert!((ADDRESS_LINES_PER_SECOND..=2 * ADDRESS_LINES_PER_SECOND).contains(&of_one));
        assert!(admitted(2) >= 1);
        let of_many: u64 = (3..1000).map(admitted).sum();
        assert!(of_many <= 2 * LINES_PER_SECOND, "{of_many}");
    }
}
