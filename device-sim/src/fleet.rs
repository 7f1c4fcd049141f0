//! Drives the devices: one task per worker, a wheel of deadlines, and a waker per device.
//!
//! A socket that becomes ready puts its device's position on the worker's list and wakes the worker's task,
//! which polls just the devices that are on the list or due. A device thus costs no task and no timer.

use crate::device::Device;
use crate::wheel::Wheel;
use crate::world::{Stage, World};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::time::{Sleep, sleep_until};

/// Room for one read from a socket.
const SCRATCH_BYTES: usize = 4 * 1024;

/// A part of the fleet; complete when the run is over and its devices have left.
pub(crate) struct Worker {
    world: Arc<World>,
    slots: Vec<Slot>,
    /// When to poll which slot; early entries are of slots that changed their mind.
    deadlines: Wheel,
    due: Vec<u32>,
    ready: Arc<Ready>,
    sleep: Pin<Box<Sleep>>,
    scratch: Box<[u8]>,
}

struct Slot {
    device: Device,
    deadline: Option<Duration>,
    /// The earliest entry on the wheel, where that is known.
    armed: Option<Duration>,
    waker: Waker,
}

impl Slot {
    /// Sees to it that the wheel knows the deadline, or an earlier one.
    fn arm(&mut self, wheel: &mut Wheel, position: usize) {
        let Some(deadline) = self.deadline else {
            return;
        };
        if self.armed.is_none_or(|armed| deadline < armed)
            && let Ok(position) = u32::try_from(position)
        {
            wheel.insert(deadline, position);
            self.armed = Some(deadline);
        }
    }
}

/// The positions whose sockets have news, and the task to wake for them.
#[derive(Debug, Default)]
pub(crate) struct Ready(Mutex<ReadyList>);

#[derive(Debug, Default)]
struct ReadyList {
    positions: Vec<usize>,
    worker: Option<Waker>,
}

struct DeviceWaker {
    position: usize,
    ready: Arc<Ready>,
}

impl Worker {
    /// The devices with these indexes.
    pub(crate) fn new(world: Arc<World>, indexes: impl Iterator<Item = u32>) -> Self {
        let ready = Arc::new(Ready::default());
        let slot = |(position, device)| {
            let ready = ready.clone();
            Slot {
                device,
                deadline: None,
                armed: None,
                waker: Waker::from(Arc::new(DeviceWaker { position, ready })),
            }
        };
        let devices = indexes.filter_map(|index| Device::new(&world, index));
        let slots: Vec<Slot> = devices.enumerate().map(slot).collect();
        ready.lock().positions.extend(0..slots.len());
        Self {
            slots,
            deadlines: Wheel::new(),
            due: Vec::new(),
            sleep: Box::pin(sleep_until(world.clock.instant(Duration::ZERO))),
            scratch: vec![0; SCRATCH_BYTES].into(),
            ready,
            world,
        }
    }

    /// Wakes the worker when the phase of the run has changed.
    pub(crate) fn alarm(&self) -> Arc<Ready> {
        self.ready.clone()
    }

    fn poll_slot(&mut self, position: usize, now: Duration) {
        let Some(slot) = self.slots.get_mut(position) else {
            return;
        };
        let mut context = Context::from_waker(&slot.waker);
        let next = slot
            .device
            .poll(&self.world, now, &mut context, &mut self.scratch);
        slot.deadline = next;
        slot.arm(&mut self.deadlines, position);
    }

    /// Polls the devices whose time has come; each at most once.
    fn poll_due(&mut self, now: Duration) {
        let mut due = std::mem::take(&mut self.due);
        self.deadlines.advance(now, &mut due);
        for position in due.drain(..) {
            let position = position as usize;
            let Some(slot) = self.slots.get_mut(position) else {
                continue;
            };
            slot.armed = None;
            if slot.deadline.is_some_and(|deadline| deadline <= now) {
                self.poll_slot(position, now);
            } else {
                slot.arm(&mut self.deadlines, position);
            }
        }
        self.due = due;
    }

    /// Sets the timer to the next deadline; `true` when that is not in the future.
    fn set_timer(&mut self, context: &mut Context<'_>) -> bool {
        let Some(next) = self.deadlines.next() else {
            return false;
        };
        let instant = self.world.clock.instant(next);
        if self.sleep.deadline() != instant {
            self.sleep.as_mut().reset(instant);
        }
        self.sleep.as_mut().poll(context).is_ready()
    }

    fn finish(&mut self) {
        for slot in &mut self.slots {
            let mut context = Context::from_waker(&slot.waker);
            slot.device.finish(&self.world, &mut context);
        }
        self.slots = Vec::new();
    }
}

impl Future for Worker {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let worker = &mut *self;
        let positions = worker.ready.take(context.waker());
        if worker.world.stage() == Stage::Finished {
            worker.finish();
            return Poll::Ready(());
        }
        let now = worker.world.clock.now();
        for position in positions {
            worker.poll_slot(position, now);
        }
        worker.poll_due(now);
        if worker.set_timer(context) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Ready {
    /// Wakes the worker without any device having news.
    pub(crate) fn wake_worker(&self) {
        let worker = self.lock().worker.take();
        if let Some(worker) = worker {
            worker.wake();
        }
    }

    /// Takes the list and remembers whom to wake for the next entry.
    fn take(&self, worker: &Waker) -> Vec<usize> {
        let mut list = self.lock();
        list.worker = Some(worker.clone());
        std::mem::take(&mut list.positions)
    }

    #[expect(
        clippy::expect_used,
        reason = "no code that can panic runs under this lock"
    )]
    fn lock(&self) -> MutexGuard<'_, ReadyList> {
        self.0.lock().expect("the ready list is never poisoned")
    }
}

impl Wake for DeviceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.lock().positions.push(self.position);
        self.ready.wake_worker();
    }
}
