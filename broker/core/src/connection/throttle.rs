//! How fast a client may publish: its own rate, those it has together with others, and less while memory is short.
//!
//! Invariants: a message that was taken is charged to every rate it falls under. While a client must wait, nothing of it is read, so
//! its own window and TCP hold it back; it is not held against its keep-alive.
//!
//! Does not know: packets.

use super::{Active, Connection, Phase, Violation};
use crate::broker::Broker;
use crate::counters::{DropReason, Limit};
use crate::limits::{Limits, RateFull};
use crate::rate::{Rate, RateLimit, SharedRate};
use crate::time::Timestamp;
use motemq_codec::{Publish, QoS};
use std::sync::Arc;
use std::time::Duration;

/// The rates of one publisher. There is none where nothing limits it.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    own: Rate,
    shared: Vec<Arc<SharedRate>>,
    /// What it may send while memory is short.
    pressed: Rate,
    /// Nothing is read until then.
    resume_at: Option<Timestamp>,
}

/// What is to become of a message.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// It is taken.
    Take,
    /// It is dropped, because the policy says so.
    Drop,
}

impl Throttle {
    /// For a client with these limits; `None` where nothing limits it.
    pub(super) fn new(limits: &Limits, shared: Vec<Arc<SharedRate>>) -> Option<Box<Self>> {
        let is_needed = !limits.publish_rate.is_unlimited() || !shared.is_empty();
        is_needed.then(|| {
            Box::new(Self {
                shared,
                ..Self::default()
            })
        })
    }

    fn ready_at(&self) -> Timestamp {
        let shared = self.shared.iter().map(|rate| rate.ready_at());
        shared.fold(self.own.ready_at(), Timestamp::max)
    }

    fn charge(&mut self, bytes: usize, limit: RateLimit, now: Timestamp) {
        self.own.charge(bytes, limit, now);
        for rate in &self.shared {
            rate.charge(bytes, now);
        }
    }
}

impl Active {
    /// Whether the client has to wait before more of it is read.
    pub(super) fn is_throttled(&self) -> bool {
        self.resume_at().is_some()
    }

    /// When more of the client is read.
    pub(super) fn resume_at(&self) -> Option<Timestamp> {
        self.throttle.as_ref()?.resume_at
    }
}

impl Connection {
    /// Decides about a PUBLISH, by the rates.
    #[inline]
    pub(super) fn pace(
        &mut self,
        publish: &Publish<'_>,
        broker: &Broker,
        now: Timestamp,
    ) -> Result<Pace, Violation> {
        let pressed = broker.pressure().bytes_rate();
        match &self.phase {
            Phase::Active(active) if active.throttle.is_some() || pressed.is_some() => {
                self.pace_limited(publish, pressed, broker, now)
            }
            _ => Ok(Pace::Take),
        }
    }

    fn pace_limited(
        &mut self,
        publish: &Publish<'_>,
        pressed: Option<u64>,
        broker: &Broker,
        now: Timestamp,
    ) -> Result<Pace, Violation> {
        let limits = self.limits.clone();
        let Phase::Active(active) = &mut self.phase else {
            return Ok(Pace::Take);
        };
        let is_volatile = publish.qos == QoS::AtMostOnce;
        if is_volatile && broker.pressure().drops_qos0() {
            self.tally.drop_message(DropReason::MemoryFull);
            return Ok(Pace::Drop);
        }
        let throttle = active.throttle.get_or_insert_default();
        let mut ready_at = throttle.ready_at();
        if ready_at > now {
            match limits.publish_rate_full {
                RateFull::Disconnect => return Err(Violation::RateExceeded),
                RateFull::DropQoS0 if is_volatile => {
                    self.tally.reach(Limit::PublishRate);
                    self.tally.drop_message(DropReason::RateExceeded);
                    return Ok(Pace::Drop);
                }
                RateFull::DropQoS0 | RateFull::Delay => {}
            }
        }
        let bytes = publish.payload.len();
        throttle.charge(bytes, limits.publish_rate, now);
        // Before this one the client was in time: it is read until it has used up what it had.
        ready_at = match limits.publish_rate_full {
            RateFull::Delay => throttle.ready_at(),
            // What cannot be dropped waits; QoS 0 need not.
            RateFull::DropQoS0 if !is_volatile => throttle.ready_at(),
            RateFull::DropQoS0 | RateFull::Disconnect => ready_at.min(now),
        };
        if ready_at > now {
            self.tally.reach(Limit::PublishRate);
        }
        if let Some(bytes_rate) = pressed {
            let pressed_until = if bytes_rate == 0 {
                now + PRESSED_PAUSE
            } else {
                let limit = RateLimit {
                    messages: 0,
                    bytes: bytes_rate,
                };
                throttle.pressed.charge(bytes, limit, now);
                // The rate changes many times a second.
                throttle.pressed.ready_at().min(now + PRESSED_PAUSE)
            };
            if pressed_until > now {
                self.tally.reach(Limit::Memory);
                ready_at = ready_at.max(pressed_until);
            }
        }
        throttle.resume_at = (ready_at > now).then_some(ready_at);
        Ok(Pace::Take)
    }

    /// Lets a client that had to wait go on when its time has come; `true` then.
    pub fn resume(&mut self, now: Timestamp) -> bool {
        let Phase::Active(active) = &mut self.phase else {
            return false;
        };
        let Some(throttle) = &mut active.throttle else {
            return false;
        };
        if throttle.resume_at.is_none_or(|at| at > now) {
            return false;
        }
        throttle.resume_at = None;
        // It may have spoken while nobody listened.
        self.last_received = now;
        true
    }
}

/// How long a publisher waits at most before the rate of the moment is looked at again.
const PRESSED_PAUSE: Duration = Duration::from_millis(500);
