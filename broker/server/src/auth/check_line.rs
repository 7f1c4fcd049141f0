//! The line before the password checks: a few run at a time, and addresses take turns.
//!
//! Promises:
//! - At most [`CHECKS_AT_ONCE`] checks run.
//! - An address that waits gets its turn after at most one check of each other address that waits, however many those have.
//! - An address has at most so many checks waiting; the next is refused at once, and counted.
//!
//! Does not know: passwords.

use super::PeerAddress;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The line.
#[derive(Debug)]
pub(crate) struct CheckLine {
    /// `limits.password_checks_per_address_max`.
    per_address_max: AtomicU32,
    refused: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// Those who wait, by place; none is empty.
    waiting: HashMap<Place, VecDeque<oneshot::Sender<Permit>>>,
    /// The places that wait, in the order of their turns.
    turns: VecDeque<Place>,
}

/// Where checks come from. One machine may have all of an IPv6 network of 64 bits.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
enum Place {
    V4(std::net::Ipv4Addr),
    V6(u64),
    Local(Option<u32>),
    Unknown,
}

impl From<&PeerAddress> for Place {
    fn from(address: &PeerAddress) -> Self {
        match address {
            PeerAddress::Ip(address) => match address.ip().to_canonical() {
                IpAddr::V4(address) => Self::V4(address),
                IpAddr::V6(address) => Self::V6(network(address)),
            },
            PeerAddress::Unix { uid } => Self::Local(*uid),
            PeerAddress::Unknown => Self::Unknown,
        }
    }
}

fn network(address: Ipv6Addr) -> u64 {
    u64::try_from(address.to_bits() >> 64).unwrap_or_default()
}

/// The address has as many checks waiting as it may.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct LineFull;

/// One check may run while it lives.
#[derive(Debug)]
pub(crate) struct Permit(Option<Arc<CheckLine>>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(line) = self.0.take() {
            line.pass_on();
        }
    }
}

impl CheckLine {
    /// A line in which nobody waits.
    pub(crate) fn new(per_address_max: u32) -> Arc<Self> {
        Arc::new(Self {
            per_address_max: AtomicU32::new(per_address_max),
            refused: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }

    /// Changes how many checks of one address may wait, for those that come from now on.
    pub(crate) fn set_per_address_max(&self, max: u32) {
        self.per_address_max.store(max, Ordering::Relaxed);
    }

    /// Checks refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits for its turn; whoever stops waiting has none.
    pub(crate) async fn enter(self: &Arc<Self>, address: &PeerAddress) -> Result<Permit, LineFull> {
        let turn = {
            let mut state = self.lock();
            if state.running < CHECKS_AT_ONCE {
                state.running += 1;
                return Ok(Permit(Some(self.clone())));
            }
            let place = Place::from(address);
            let line = state.waiting.entry(place).or_default();
            if line.len() >= self.per_address_max.load(Ordering::Relaxed) as usize {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err(LineFull);
            }
            let (turn, waits) = oneshot::channel();
            line.push_back(turn);
            if line.len() == 1 {
                state.turns.push_back(place);
            }
            waits
        };
        // The other end stays in the line until it is called.
        turn.await.map_err(|_| LineFull)
    }

    /// A check has ended: the next may run.
    fn pass_on(self: Arc<Self>) {
        loop {
            let Some(next) = self.next() else { return };
            match next.send(Permit(Some(self.clone()))) {
                Ok(()) => return,
                // Whoever waited has gone. The place is free still, and that is being dealt with here.
                Err(mut permit) => permit.0 = None,
            }
        }
    }

    /// Who is next; else one less runs.
    fn next(&self) -> Option<oneshot::Sender<Permit>> {
        let mut state = self.lock();
        let next = state.take_turn();
        if next.is_none() {
            state.running -= 1;
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under it can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_turn(&mut self) -> Option<oneshot::Sender<Permit>> {
        let place = self.turns.pop_front()?;
        let line = self.waiting.get_mut(&place)?;
        let next = line.pop_front();
        match line.is_empty() {
            true => {
                self.waiting.remove(&place);
            }
            false => self.turns.push_back(place),
        }
        next
    }
}

/// Each takes 19 MiB and a core for 20 ms.
const CHECKS_AT_ONCE: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    type Entering = Pin<Box<dyn Future<Output = Result<Permit, LineFull>>>>;

    #[test]
    fn addresses_take_turns_however_many_checks_each_has() {
        let line = CheckLine::new(100);
        let mut running: VecDeque<_> = [enter(&line, 1), enter(&line, 1)].map(now).into();
        let mut waiting: Vec<(u8, Entering)> = (0..50).map(|_| (1, enter(&line, 1))).collect();
        waiting.push((2, enter(&line, 2)));
        waiting.push((3, enter(&line, 3)));
        waiting.push((2, enter(&line, 2)));
        // Polled once, so that each stands in the line in this order.
        for (_, check) in &mut waiting {
            assert!(poll(check).is_pending());
        }
        let mut order = Vec::new();
        for _ in 0..6 {
            running.pop_front();
            let at = waiting.iter_mut().position(|(_, check)| {
                let Poll::Ready(Ok(permit)) = poll(check) else {
                    return false;
                };
                running.push_back(permit);
                true
            });
            order.push(waiting.remove(at.unwrap()).0);
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1]);
    }

    #[test]
    fn an_address_with_too_many_checks_is_refused_and_others_are_not() {
        let line = CheckLine::new(2);
        let _running = [enter(&line, 1), enter(&line, 1)].map(now);
        let mut waiting = [enter(&line, 1), enter(&line, 1)];
        assert!(waiting.iter_mut().all(|check| poll(check).is_pending()));
        assert!(matches!(poll(&mut enter(&line, 1)), Poll::Ready(Err(_))));
        assert_eq!(line.refused(), 1);
        assert!(poll(&mut enter(&line, 2)).is_pending());
        line.set_per_address_max(3);
        assert!(poll(&mut enter(&line, 1)).is_pending());
    }

    #[test]
    fn whoever_has_gone_is_passed_over_and_no_place_is_lost() {
        let line = CheckLine::new(10);
        let running = [enter(&line, 1), enter(&line, 1)].map(now);
        let mut gone = enter(&line, 1);
        assert!(poll(&mut gone).is_pending());
        let mut called = enter(&line, 2);
        assert!(poll(&mut called).is_pending());
        drop(gone);
        drop(running);
        // One has its permit and never looks at it.
        drop(called);
        assert_eq!(line.lock().running, 0);
        assert!(line.lock().waiting.is_empty() && line.lock().turns.is_empty());
        let _running = [enter(&line, 1), enter(&line, 1)].map(now);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let place = |text: &str| {
            let address = PeerAddress::Ip((text.parse::<IpAddr>().unwrap(), 1).into());
            Place::from(&address)
        };
        assert_eq!(place("2001:db8::1"), place("2001:db8::ffff:1"));
        assert_ne!(place("2001:db8::1"), place("2001:db8:0:1::1"));
        assert_eq!(place("::ffff:192.0.2.1"), place("192.0.2.1"));
        assert_ne!(place("192.0.2.1"), place("192.0.2.2"));
    }

    fn enter(line: &Arc<CheckLine>, host: u8) -> Entering {
        let line = line.clone();
        let address = PeerAddress::Ip(([192, 0, 2, host], 1).into());
        Box::pin(async move { line.enter(&address).await })
    }

    fn poll(check: &mut Entering) -> Poll<Result<Permit, LineFull>> {
        check.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    fn now(mut check: Entering) -> Permit {
        match poll(&mut check) {
            Poll::Ready(Ok(permit)) => permit,
            other => panic!("{other:?}"),
        }
    }
}
