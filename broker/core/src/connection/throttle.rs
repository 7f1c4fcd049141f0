//! How fast a client may publish: its own rate, those it has together with others, and less while memory is short.
//!
//! Invariants: a message that was taken is charged to every rate it falls under. A PUBLISH that must wait is not taken, and nothing
//! behind it is read, so that the client's own window and TCP hold it back; that is not held against its keep-alive. A client that
//! has used up a rate and sends no PUBLISH is read as ever.
//!
//! Does not know: packets beyond the first byte of a PUBLISH.

use super::{Active, Connection, Phase, Violation};
use crate::broker::Broker;
use crate::counters::{DropReason, Limit};
use crate::limits::{Limits, RateFull};
use crate::rate::{Moment, RateLimit, Share, SharedRate};
use crate::time::Timestamp;
use motemq_codec::{Publish, QoS};
use std::sync::Arc;
use std::time::Duration;

/// The rates of one publisher. There is none where nothing limits it.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Its own, and those it has together with others.
    rates: Box<[Share]>,
    full: RateFull,
    /// When the next message may come, whatever it is and without asking others; [`Moment::NEVER`] where they have to be asked.
    ready: Moment,
    /// What it may send while memory is short, and when the next message may come by that.
    pressed: Option<Share>,
    pressed_until: Timestamp,
    /// Nothing is read until then.
    resume_at: Option<Timestamp>,
}

/// What is to become of a message.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// It is taken.
    Take,
    /// It is dropped, because the policy says so.
    Drop(DropReason),
}

impl Throttle {
    /// For a client with these limits, and `shared` ones; `None` where nothing limits it.
    pub(super) fn new(
        limits: &Limits,
        shared: impl Iterator<Item = Arc<SharedRate>>,
    ) -> Option<Box<Self>> {
        let own = limits.publish_rate;
        let own = (!own.is_unlimited()).then(|| Arc::new(SharedRate::of_one(own)));
        let rates: Box<[Share]> = own.into_iter().chain(shared).map(Share::from).collect();
        (!rates.is_empty()).then(|| Box::new(Self::with(limits, rates)))
    }

    fn with(limits: &Limits, rates: Box<[Share]>) -> Self {
        Self {
            rates,
            full: limits.publish_rate_full,
            ready: Moment::NEVER,
            pressed: None,
            pressed_until: Timestamp::default(),
            resume_at: None,
        }
    }

    fn ready(&self) -> Moment {
        let ready = self.rates.iter().map(Share::ready);
        ready.fold(Moment::default(), Moment::max)
    }

    /// Counts a message.
    fn charge(&mut self, bytes: usize, now: Moment) {
        let (mut ready, mut is_stale) = (Moment::default(), false);
        for rate in &mut self.rates {
            ready = ready.max(rate.charge(bytes, now));
            is_stale |= rate.is_used_up();
        }
        self.ready = if is_stale { Moment::NEVER } else { ready };
    }

    /// Whether anything may come now, as far as that is known without asking others.
    #[inline]
    pub(super) fn is_ready(&self, now: Timestamp) -> bool {
        self.ready <= Moment::from(now)
    }

    /// When a PUBLISH may come that may not come now.
    fn wait_until(&self, qos0: bool, now: Timestamp) -> Option<Timestamp> {
        let waits = match self.full {
            RateFull::Delay => true,
            RateFull::DropQoS0 => !qos0,
            RateFull::Disconnect => false,
        };
        let ready = self.ready();
        let by_rate = (waits && ready > Moment::from(now)).then(|| Timestamp::from(ready));
        let by_pressure = (self.pressed_until > now).then_some(self.pressed_until);
        by_rate.max(by_pressure)
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
            return Ok(Pace::Drop(DropReason::MemoryFull));
        }
        let limits = &self.limits;
        let throttle = active
            .throttle
            .get_or_insert_with(|| Box::new(Throttle::with(limits, Box::default())));
        let moment = Moment::from(now);
        // Who has to wait has waited.
        if throttle.full != RateFull::Delay && throttle.ready() > moment {
            if throttle.full == RateFull::Disconnect {
                return Err(Violation::RateExceeded);
            }
            self.tally.reach(Limit::PublishRate);
            return Ok(Pace::Drop(DropReason::RateExceeded));
        }
        let bytes =
            publish.payload.len() + publish.topic.len() + publish.properties.forwarded.len();
        throttle.charge(bytes, moment);
        if let Some(bytes_rate) = pressed {
            // The rate changes many times a second; at 0 a message passes now and then.
            let latest = now + PRESSED_PAUSE;
            throttle.pressed_until = match bytes_rate {
                0 => latest,
                _ => latest.min(throttle.charge_pressed(bytes, bytes_rate, moment).into()),
            };
            throttle.ready = Moment::NEVER;
        }
        Ok(Pace::Take)
    }

    /// Whether the next packet is a PUBLISH whose time has not come: it is left alone, and so is what is behind it.
    #[cold]
    pub(super) fn must_wait(&mut self, bytes: &[u8], now: Timestamp) -> bool {
        let Phase::Active(active) = &mut self.phase else {
            return false;
        };
        let (Some(throttle), Some(first)) = (&mut active.throttle, bytes.first()) else {
            return false;
        };
        // The packet type and the QoS of the fixed header.
        if first >> 4 != PUBLISH {
            return false;
        }
        let until = throttle.wait_until(first & 0b0110 == 0, now);
        if let Some(until) = until {
            throttle.resume_at = Some(until);
            let limit = match throttle.pressed_until > now {
                true => Limit::Memory,
                false => Limit::PublishRate,
            };
            self.tally.reach(limit);
        }
        until.is_some()
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

/// The packet type of PUBLISH.
const PUBLISH: u8 = 3;
/// How long a publisher waits at most before the rate of the moment is looked at again.
const PRESSED_PAUSE: Duration = Duration::from_millis(500);
