//! When a connection needs a ping, and when it is dead.
//!
//! Invariants:
//! - No more than the keep-alive passes without a packet of ours [MQTT5-3.1.2-20].
//! - A broker that owes an answer (to a ping, or to messages of QoS 1 and 2) and says nothing at all for as long as
//!   the device's patience lasts is gone: links lose connections without a word.
//!
//! Does not know: packets, links, the clock.

use std::time::Duration;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Nothing.
    Nothing,
    /// Send PINGREQ.
    Ping,
    /// Give the connection up.
    GiveUp,
}

/// One connection's silence, in both directions.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    /// The longest silence of ours; zero is unlimited.
    interval: Duration,
    /// The longest silence of a broker that owes an answer.
    patience: Duration,
    sent_at: Duration,
    is_ping_unanswered: bool,
    /// Since when the broker owes an answer and is silent.
    waiting_since: Option<Duration>,
}

impl KeepAlive {
    /// For a connection that was accepted at `now`.
    pub(crate) fn new(interval: Duration, patience: Duration, now: Duration) -> Self {
        Self {
            interval,
            patience,
            sent_at: now,
            is_ping_unanswered: false,
            waiting_since: None,
        }
    }

    /// A packet of ours left; `is_owed` says whether the broker owes us an answer now.
    pub(crate) fn sent(&mut self, now: Duration, is_owed: bool) {
        self.sent_at = now;
        if is_owed {
            self.waiting_since.get_or_insert(now);
        }
    }

    /// A packet arrived.
    pub(crate) fn heard(&mut self, now: Duration, is_answer_to_ping: bool, is_owed: bool) {
        self.is_ping_unanswered &= !is_answer_to_ping;
        self.waiting_since = (is_owed || self.is_ping_unanswered).then_some(now);
    }

    /// What to do at `now`; a demanded ping counts as sent.
    pub(crate) fn demand(&mut self, now: Duration) -> Demand {
        if self.gives_up_at().is_some_and(|at| at <= now) {
            return Demand::GiveUp;
        }
        if self.pings_at().is_none_or(|at| at > now) {
            return Demand::Nothing;
        }
        self.is_ping_unanswered = true;
        self.sent(now, true);
        Demand::Ping
    }

    /// When [`KeepAlive::demand`] has something new to say.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        [self.gives_up_at(), self.pings_at()]
            .into_iter()
            .flatten()
            .min()
    }

    fn gives_up_at(&self) -> Option<Duration> {
        Some(self.waiting_since?.saturating_add(self.patience))
    }

    fn pings_at(&self) -> Option<Duration> {
        (!self.interval.is_zero()).then(|| self.sent_at + self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_device_pings_and_a_talking_one_does_not() {
        let mut keep_alive = keep_alive();
        assert_eq!(keep_alive.next_at(), Some(seconds(60)));
        keep_alive.sent(seconds(50), false);
        assert_eq!(keep_alive.demand(seconds(60)), Demand::Nothing);
        assert_eq!(keep_alive.demand(seconds(110)), Demand::Ping);
        assert_eq!(keep_alive.demand(seconds(110)), Demand::Nothing);
        keep_alive.heard(seconds(111), true, false);
        assert_eq!(keep_alive.next_at(), Some(seconds(170)));
    }

    #[test]
    fn a_ping_without_answer_ends_the_connection() {
        let mut keep_alive = keep_alive();
        assert_eq!(keep_alive.demand(seconds(60)), Demand::Ping);
        // Pinging again does not start the wait anew.
        assert_eq!(keep_alive.demand(seconds(120)), Demand::Ping);
        assert_eq!(keep_alive.next_at(), Some(seconds(150)));
        assert_eq!(keep_alive.demand(seconds(150)), Demand::GiveUp);
    }

    #[test]
    fn a_message_without_answer_ends_the_connection() {
        let mut keep_alive = keep_alive();
        keep_alive.sent(seconds(10), true);
        keep_alive.sent(seconds(30), true);
        assert_eq!(keep_alive.demand(seconds(99)), Demand::Ping);
        assert_eq!(keep_alive.demand(seconds(100)), Demand::GiveUp);
    }

    #[test]
    fn a_broker_that_says_anything_is_alive() {
        let mut keep_alive = keep_alive();
        keep_alive.sent(seconds(10), true);
        keep_alive.heard(seconds(90), false, true);
        assert_eq!(keep_alive.demand(seconds(101)), Demand::Ping);
        assert_eq!(keep_alive.demand(seconds(179)), Demand::Ping);
        assert_eq!(keep_alive.demand(seconds(180)), Demand::GiveUp);
        keep_alive.heard(seconds(180), false, false);
        assert_eq!(keep_alive.next_at(), Some(seconds(239)), "the ping is owed");
        keep_alive.heard(seconds(181), true, false);
        assert_eq!(keep_alive.waiting_since, None);
    }

    #[test]
    fn without_keep_alive_there_are_no_pings() {
        let mut keep_alive = KeepAlive::new(Duration::ZERO, seconds(90), seconds(0));
        assert_eq!(keep_alive.next_at(), None);
        keep_alive.sent(seconds(5), true);
        assert_eq!(keep_alive.demand(seconds(95)), Demand::GiveUp);
    }

    fn keep_alive() -> KeepAlive {
        KeepAlive::new(seconds(60), seconds(90), seconds(0))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
}
