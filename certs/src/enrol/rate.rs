//! How often may be asked: by one requester, and by all who have the same to show.
//!
//! The requester's own limit comes first and costs nothing of what all share; and what is refused because all ask too much does not
//! count against the requester. Anybody can make requests without a ground, and whoever has a leaked claim those with a claim; neither
//! can use up what the devices have that hold a certificate or a token (see [`turn`](super::turn)).
//!
//! A request counts whatever becomes of it, but one that is refused here does not start the requester's interval anew: who asks
//! too often is heard again when the interval is over, not when it falls silent.
//!
//! Memory: a requester is remembered for its interval, by a hash; at most [`REQUESTERS_MAX`] are, then the oldest is forgotten.

use super::turn::{Class, Key, Turn};
use std::collections::{HashSet, VecDeque};

/// The two limits and what was counted against them.
#[derive(Debug)]
pub struct Rates {
    per_s: u32,
    interval_s: u32,
    renewals: Left,
    tokens: Left,
    claims: Left,
    others: Left,
    heard: VecDeque<(i64, Key)>,
    known: HashSet<Key>,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMany {
    /// The requester's.
    OfOne,
    /// That of all who have the same to show.
    OfAll,
}

/// What may still be asked for; refilled every second.
#[derive(Clone, Copy, Debug)]
struct Left {
    requests: u32,
    refilled_at_s: i64,
}

impl Rates {
    /// At most `per_s` requests per second of each class in the long run, and one in `interval_s` of each requester (0: no limit).
    #[must_use]
    pub fn new(per_s: u32, interval_s: u32) -> Self {
        let full = Left {
            requests: per_s.saturating_mul(BURST_S),
            refilled_at_s: 0,
        };
        Self {
            per_s,
            interval_s,
            renewals: full,
            tokens: full,
            claims: full,
            others: full,
            heard: VecDeque::new(),
            known: HashSet::new(),
        }
    }

    /// Whether one more request may be heard now; if so, it was.
    pub(super) fn admit(&mut self, turn: Turn, now_s: i64) -> Result<(), TooMany> {
        self.forget(now_s);
        if self.known.contains(&turn.key) {
            return Err(TooMany::OfOne);
        }
        let left = match turn.class {
            Class::Renewal => &mut self.renewals,
            Class::Token => &mut self.tokens,
            Class::Claim => &mut self.claims,
            Class::Other => &mut self.others,
        };
        left.refill(self.per_s, now_s);
        left.requests = left.requests.checked_sub(1).ok_or(TooMany::OfAll)?;
        if self.interval_s > 0 {
            self.known.insert(turn.key);
            self.heard.push_back((now_s, turn.key));
        }
        Ok(())
    }

    /// Those whose interval is over, and whoever there is no room for.
    fn forget(&mut self, now_s: i64) {
        while let Some((heard_at_s, _)) = self.heard.front() {
            let is_over = now_s.abs_diff(*heard_at_s) >= u64::from(self.interval_s);
            if !is_over && self.heard.len() < REQUESTERS_MAX {
                return;
            }
            if let Some((_, forgotten)) = self.heard.pop_front() {
                self.known.remove(&forgotten);
            }
        }
    }
}

impl Left {
    /// A clock that was set back gives nothing, and counts from there.
    fn refill(&mut self, per_s: u32, now_s: i64) {
        let passed_s = now_s.saturating_sub(self.refilled_at_s).max(0);
        let refill = per_s.saturating_mul(u32::try_from(passed_s).unwrap_or(u32::MAX));
        let full = per_s.saturating_mul(BURST_S);
        self.requests = self.requests.saturating_add(refill).min(full);
        self.refilled_at_s = now_s;
    }
}

/// As many seconds' worth of requests may come at once.
const BURST_S: u32 = 5;
/// How many requesters are remembered.
const REQUESTERS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_there_is_the_rate() {
        let mut rates = Rates::new(2, 0);
        let mut passed = |now_s| {
            let passed = |_: &u32| rates.admit(turn(Class::Claim, 0), now_s).is_ok();
            (0..100).filter(passed).count()
        };
        assert_eq!(passed(1_000), 10);
        assert_eq!(passed(1_000), 0);
        assert_eq!(passed(1_001), 2);
        assert_eq!(passed(1_100), 10);
        assert_eq!(passed(500), 0, "the clock was set back");
        assert_eq!(passed(501), 2);
    }

    #[test]
    fn no_class_uses_up_what_another_has() {
        let classes = [Class::Renewal, Class::Token, Class::Claim, Class::Other];
        for flooded in classes {
            let mut rates = Rates::new(1, 0);
            while rates.admit(turn(flooded, 0), 1_000).is_ok() {}
            for class in classes {
                let is_heard = rates.admit(turn(class, 1), 1_000).is_ok();
                assert_eq!(is_heard, class != flooded, "{class:?}");
            }
        }
    }

    #[test]
    fn a_requester_is_heard_once_in_an_interval() {
        let mut rates = Rates::new(10, 10);
        let mut admit = |who, now_s| rates.admit(turn(Class::Other, who), now_s);
        assert_eq!(admit(1, 100), Ok(()));
        assert_eq!(admit(2, 101), Ok(()));
        assert_eq!(admit(1, 105), Err(TooMany::OfOne));
        assert_eq!(admit(1, 109), Err(TooMany::OfOne));
        assert_eq!(admit(1, 110), Ok(()));
        assert_eq!(admit(2, 111), Ok(()));
        assert_eq!(rates.known.len(), 2);
    }

    /// Else one device that asks without end leaves nothing to the others.
    #[test]
    fn who_asks_too_often_costs_the_others_nothing() {
        let mut rates = Rates::new(1, 10);
        for _ in 0..100 {
            let _ = rates.admit(turn(Class::Renewal, 1), 1_000);
        }
        let others = (2..100).map(|who| rates.admit(turn(Class::Renewal, who), 1_000));
        assert_eq!(others.filter(Result::is_ok).count(), 4);
        // What all used up does not count against the one.
        assert_eq!(rates.admit(turn(Class::Renewal, 99), 1_001), Ok(()));
    }

    #[test]
    fn the_number_of_remembered_requesters_is_bounded() {
        let mut rates = Rates::new(100_000, 10);
        for number in 0..=REQUESTERS_MAX {
            assert!(rates.admit(turn(Class::Other, number), 100).is_ok());
        }
        assert_eq!(rates.heard.len(), REQUESTERS_MAX);
        assert_eq!(rates.known.len(), REQUESTERS_MAX);
    }

    fn turn(class: Class, who: usize) -> Turn {
        let mut key = Key::default();
        for (byte, of_who) in key.iter_mut().zip(who.to_le_bytes()) {
            *byte = of_who;
        }
        Turn { class, key }
    }
}
