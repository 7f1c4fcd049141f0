//! The steady time of a run: from when all devices should have connected until publishing ends.
//!
//! Rates are over this time alone. Over the whole run they would depend on how long devices took to connect and
//! how long the end was waited for.
//!
//! Does not know: the clock, when the two moments are.

use crate::commander;
use crate::world::{Troop, World};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Rates over less say nothing.
const SHORTEST: Duration = Duration::from_secs(1);

/// The two moments, once they have come.
#[derive(Debug, Default)]
pub(crate) struct Steady {
    begin: OnceLock<Mark>,
    end: OnceLock<Mark>,
}

/// What had grown to how much at a moment.
#[derive(Debug)]
pub(crate) struct Mark {
    at: Duration,
    cohorts: Vec<Totals>,
    commands: u64,
}

/// What only grows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) published: u64,
    pub(crate) acknowledged: u64,
    pub(crate) delivered: u64,
    pub(crate) up_bytes: u64,
    pub(crate) down_bytes: u64,
}

/// What grew from one moment to another.
#[derive(Debug)]
pub(crate) struct Growth {
    pub(crate) seconds: f64,
    /// Cohort by cohort.
    pub(crate) cohorts: Vec<Totals>,
    /// Commands that reached their device.
    pub(crate) commands: u64,
}

impl Steady {
    pub(crate) fn has_begun(&self) -> bool {
        self.begin.get().is_some()
    }

    /// All devices should have connected; only the first time counts.
    pub(crate) fn begin(&self, mark: impl FnOnce() -> Mark) {
        self.begin.get_or_init(mark);
    }

    /// Devices take no more readings; only the first time counts.
    pub(crate) fn end(&self, mark: impl FnOnce() -> Mark) {
        self.end.get_or_init(mark);
    }

    /// What grew in it; `None` when it was too short.
    pub(crate) fn growth(&self) -> Option<Growth> {
        self.end.get()?.since(self.begin.get()?)
    }

    /// What has grown in it until `now`; `None` when it is too short so far.
    pub(crate) fn growth_until(&self, now: impl FnOnce() -> Mark) -> Option<Growth> {
        match self.end.get() {
            Some(_) => self.growth(),
            None => now().since(self.begin.get()?),
        }
    }
}

impl Mark {
    pub(crate) fn new(world: &World, at: Duration) -> Self {
        let commands = commander::posts(world).map(|post| post.ledger().counts().delivered);
        Self {
            at,
            cohorts: world.troops.iter().map(Totals::of).collect(),
            commands: commands.sum(),
        }
    }

    fn since(&self, begin: &Self) -> Option<Growth> {
        let time = self.at.checked_sub(begin.at);
        let time = time.filter(|time| *time >= SHORTEST)?;
        let both = self.cohorts.iter().zip(&begin.cohorts);
        Some(Growth {
            seconds: time.as_secs_f64(),
            cohorts: both.map(|(end, begin)| end.since(begin)).collect(),
            commands: self.commands.saturating_sub(begin.commands),
        })
    }
}

impl Totals {
    fn of(troop: &Troop) -> Self {
        let counts = troop.ledger().counts();
        Self {
            published: counts.published,
            acknowledged: counts.acknowledged,
            delivered: counts.delivered,
            up_bytes: troop.tally.up_bytes.load(Ordering::Relaxed),
            down_bytes: troop.tally.down_bytes.load(Ordering::Relaxed),
        }
    }

    fn since(&self, begin: &Self) -> Self {
        let grown = |total: fn(&Self) -> u64| total(self).saturating_sub(total(begin));
        Self {
            published: grown(|totals| totals.published),
            acknowledged: grown(|totals| totals.acknowledged),
            delivered: grown(|totals| totals.delivered),
            up_bytes: grown(|totals| totals.up_bytes),
            down_bytes: grown(|totals| totals.down_bytes),
        }
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.published += other.published;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.up_bytes += other.up_bytes;
        self.down_bytes += other.down_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grew_between_the_two_moments_counts() {
        let steady = Steady::default();
        steady.begin(|| mark(10, 100));
        let so_far = |at, published| {
            let growth = steady.growth_until(|| mark(at, published));
            growth.map(|growth| (growth.seconds, growth.cohorts[0].published))
        };
        assert_eq!(so_far(10, 105), None);
        assert_eq!(so_far(12, 120), Some((2.0, 20)));
        assert!(steady.growth().is_none());
        steady.end(|| mark(15, 150));
        // What comes later, such as a long drain, changes nothing.
        steady.end(|| mark(60, 151));
        assert_eq!(so_far(60, 151), Some((5.0, 50)));
    }

    #[test]
    fn a_run_that_ends_before_all_have_connected_has_no_steady_time() {
        let steady = Steady::default();
        steady.end(|| mark(3, 30));
        steady.begin(|| mark(3, 30));
        assert!(steady.growth().is_none());
    }

    fn mark(at_s: u64, published: u64) -> Mark {
        let totals = Totals {
            published,
            ..Totals::default()
        };
        Mark {
            at: Duration::from_secs(at_s),
            cohorts: vec![totals],
            commands: 0,
        }
    }
}
