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
use crate::rate::{Moment, RateLimit, Share, SharedRate};
use crate::time::Timestamp;
use motemq_codec::{Publish, QoS};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// The rates of one publisher. There is none where nothing limits it.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Its own, and those it has together with others.
    rates: SmallVec<[Share; 3]>,
    full: RateFull,
    /// What it may send while memory is short.
    pressed: Option<Share>,
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
    /// For a client with these limits, and `shared` ones; `None` where nothing limits it.
    pub(super) fn new(
        limits: &Limits,
        shared: impl Iterator<Item = Arc<SharedRate>>,
    ) -> Option<Box<Self>> {
        let own = limits.publish_rate;
        let own = (!own.is_unlimited()).then(|| Arc::new(SharedRate::new(own)));
        let rates: SmallVec<_> = own.into_iter().chain(shared).map(Share::from).collect();
        (!rates.is_empty()).then(|| Box::new(Self::with(limits, rates)))
    }

    fn with(limits: &Limits, rates: SmallVec<[Share; 3]>) -> Self {
        Self {
            rates,
            full: limits.publish_rate_full,
            pressed: None,
            resume_at: None,
        }
    }

    fn ready(&self) -> Option<Moment> {
        self.rates.iter().map(Share::ready).max()
    }

    /// Counts a message; says when the next one may come.
    fn charge(&mut self, bytes: usize, now: Moment) -> Option<Moment> {
        let charged = self.rates.iter_mut().map(|rate| rate.charge(bytes, now));
        charged.max()
    }

    /// As [`charge`](Self::charge), while each publisher may send so much.
    fn charge_pressed(&mut self, bytes: usize, bytes_rate: u64, now: Moment) -> Moment {
        let limit = RateLimit {
            messages: 0,
            bytes: bytes_rate,
        };
        let new = || Share::from(Arc::new(SharedRate::new(limit)));
        let pressed = self.pressed.get_or_insert_with(new);
        pressed.set_limit(limit);
        pressed.charge(bytes, now)
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
        let Phase::Active(active) = &mut self.phase else {
            return Ok(Pace::Take);
        };
        let is_volatile = publish.qos == QoS::AtMostOnce;
        if pressed.is_some() && is_volatile && broker.pressure().drops_qos0() {
            self.tally.drop_message(DropReason::MemoryFull);
            return Ok(Pace::Drop);
        }
        let limits = &self.limits;
        let throttle = active
            .throttle
            .get_or_insert_with(|| Box::new(Throttle::with(limits, SmallVec::new())));
        let moment = Moment::from(now);
        let waits = match throttle.full {
            RateFull::Delay => true,
            RateFull::DropQoS0 => !is_volatile,
            RateFull::Disconnect => false,
        };
        if !waits && throttle.ready() > Some(moment) {
            if throttle.full == RateFull::Disconnect {
                return Err(Violation::RateExceeded);
            }
            self.tally.reach(Limit::PublishRate);
            self.tally.drop_message(DropReason::RateExceeded);
            return Ok(Pace::Drop);
        }
        let bytes = publish.payload.len();
        let ready = throttle.charge(bytes, moment);
        let mut resume_at = None;
        if waits && ready > Some(moment) {
            self.tally.reach(Limit::PublishRate);
            resume_at = ready.map(Timestamp::from);
        }
        if let Some(bytes_rate) = pressed {
            // The rate changes many times a second; at 0 a message passes now and then.
            let latest = now + PRESSED_PAUSE;
            let until = match bytes_rate {
                0 => latest,
                _ => latest.min(throttle.charge_pressed(bytes, bytes_rate, moment).into()),
            };
            if until > now {
                self.tally.reach(Limit::Memory);
                resume_at = resume_at.max(Some(until));
            }
        }
        throttle.resume_at = resume_at;
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
