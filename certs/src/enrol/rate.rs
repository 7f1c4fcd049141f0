//! How often may be asked: by all who log in the same way, and by one requester.
//!
//! Renewals, claims and requests without either are counted apart. Anybody can make the last, and whoever has a leaked claim the
//! second; neither can use up what the devices have that hold a certificate.
//!
//! A request counts whatever becomes of it, but one that is refused here does not start the requester's interval anew: who asks
//! too often is heard again when the interval is over, not when it falls silent.
//!
//! Memory: a requester is remembered for its interval; at most [`REQUESTERS_MAX`] are, then the oldest is forgotten.

use super::Login;
use std::collections::{HashSet, VecDeque};

/// The two limits and what was counted against them.
#[derive(Debug)]
pub struct Rates {
    per_s: u32,
    interval_s: u32,
    renewals: Left,
    claims: Left,
    others: Left,
    heard: VecDeque<(i64, String)>,
    known: HashSet<String>,
}

/// What may still be asked for; refilled every second.
#[derive(Clone, Copy, Debug)]
struct Left {
    requests: u32,
    refilled_at_s: i64,
}

impl Rates {
    /// At most `per_s` requests per second of each kind of login in the long run, and one in `interval_s` of each requester
    /// (0: no limit).
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
            claims: full,
            others: full,
            heard: VecDeque::new(),
            known: HashSet::new(),
        }
    }

    /// Whether one more request with such a login is too many.
    pub(super) fn is_too_many(&mut self, login: &Login, now_s: i64) -> bool {
        let left = match login {
            Login::Certificate(_) => &mut self.renewals,
            Login::Claim(_) => &mut self.claims,
            Login::User | Login::Anonymous => &mut self.others,
        };
        left.refill(self.per_s, now_s);
        match left.requests.checked_sub(1) {
            Some(requests) => {
                left.requests = requests;
                false
            }
            None => true,
        }
    }

    /// Whether `requester` was heard less than an interval ago; if not, it is heard now.
    pub(super) fn is_too_soon(&mut self, requester: &str, now_s: i64) -> bool {
        if self.interval_s == 0 {
            return false;
        }
        while let Some((heard_at_s, _)) = self.heard.front() {
            let is_over = (now_s - heard_at_s).unsigned_abs() >= u64::from(self.interval_s);
            if !is_over && self.heard.len() < REQUESTERS_MAX {
                break;
            }
            if let Some((_, forgotten)) = self.heard.pop_front() {
                self.known.remove(&forgotten);
            }
        }
        if !self.known.insert(requester.to_owned()) {
            return true;
        }
        self.heard.push_back((now_s, requester.to_owned()));
        false
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
        let claim = Login::Claim("c1".to_owned());
        let mut passed = |now_s| {
            let passed = |_: &u32| !rates.is_too_many(&claim, now_s);
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
    fn who_needs_no_certificate_leaves_renewals_alone() {
        let mut rates = Rates::new(1, 0);
        for login in [Login::Anonymous, Login::Claim("c1".to_owned())] {
            while !rates.is_too_many(&login, 1_000) {}
        }
        let renewal = Login::Certificate("0d".to_owned());
        assert!(!rates.is_too_many(&renewal, 1_000));
    }

    #[test]
    fn a_requester_is_heard_once_in_an_interval() {
        let mut rates = Rates::new(1, 10);
        assert!(!rates.is_too_soon("a", 100));
        assert!(!rates.is_too_soon("b", 101));
        assert!(rates.is_too_soon("a", 105));
        assert!(rates.is_too_soon("a", 109));
        assert!(!rates.is_too_soon("a", 110));
        assert!(rates.is_too_soon("b", 110));
        assert_eq!(rates.known.len(), 2);
    }

    #[test]
    fn the_number_of_remembered_requesters_is_bounded() {
        let mut rates = Rates::new(1, 10);
        for number in 0..=REQUESTERS_MAX {
            assert!(!rates.is_too_soon(&number.to_string(), 100));
        }
        assert_eq!(rates.heard.len(), REQUESTERS_MAX);
        assert_eq!(rates.known.len(), REQUESTERS_MAX);
    }
}
