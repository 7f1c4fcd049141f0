//! Commands to devices: when they are due, who sends them, and whether they arrived.
//!
//! One connection of its own, without a link, sends the commands of all cohorts, as a cloud application would.
//! Each device is switched on and off on a schedule that only the seed determines; a device that has no
//! subscription yet is left out. What the broker acknowledged must reach the device: at once, or when it comes
//! back, if the broker keeps its session.
//!
//! Does not know: how devices obey.

use crate::client::{Client, ClientError, forget_session};
use crate::imprint::{Arrival, Imprint};
use crate::label::Label;
use crate::ledger::{Digest, Ledger, histogram};
use crate::plan::{Cohort, Commands};
use crate::profile::Command;
use crate::publisher::{End, Offer, Publisher};
use crate::seed::{Purpose, rng};
use crate::wire::{ConnAck, Packet, Session, Template, Version, WireError};
use crate::world::{Troop, World};
use hdrhistogram::Histogram;
use rand::RngExt;
use rand_pcg::Pcg32;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

const RETRY: Duration = Duration::from_millis(200);
/// Commands without acknowledgement; brokers queue about as many for a client.
const IN_FLIGHT_MAX: u16 = 64;
/// Commands that wait for their turn while the broker is away.
const WAITING_MAX: u16 = 10_000;
/// How much the time between two commands varies, in parts of it.
const JITTER: f64 = 0.5;

/// What a cohort's devices and the commander share.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) commands: Commands,
    template: Template,
    first: u32,
    /// The devices to which commands can be sent.
    subscribed: Box<[AtomicBool]>,
    ledger: Mutex<Ledger>,
}

impl Post {
    /// The cohort's; `None` when it takes no commands.
    pub(crate) fn new(run: &str, cohort: &Cohort) -> Result<Option<Self>, WireError> {
        let Some(commands) = &cohort.commands else {
            return Ok(None);
        };
        let (topic, qos) = (commands.topic.clone(), commands.qos);
        let mut ledger = Ledger::new(qos, cohort.first, cohort.devices);
        if cohort.session == Session::Clean {
            ledger.promise_nothing();
        }
        Ok(Some(Self {
            commands: commands.clone(),
            template: Template::new(Version::V4, run, &cohort.name, topic, qos)?,
            first: cohort.first,
            subscribed: (0..cohort.devices)
                .map(|_| AtomicBool::new(false))
                .collect(),
            ledger: Mutex::new(ledger),
        }))
    }

    /// Where a device listens.
    pub(crate) fn filter(&self, device: u32, client_id: &str) -> String {
        self.template.topic(device, client_id, 0)
    }

    /// A device listens, or does no longer.
    pub(crate) fn set_subscribed(&self, device: u32, is_subscribed: bool) {
        if let Some(subscribed) = self.place(device) {
            subscribed.store(is_subscribed, Ordering::Relaxed);
        }
    }

    /// A command reached its device; `true` when for the first time.
    pub(crate) fn record_delivered(
        &self,
        device: u32,
        command: &Command,
        arrival: &Arrival,
        now: Duration,
    ) -> bool {
        let label = label(command);
        // One that is for another device is nobody's.
        let label = (command.device == device).then_some(&label);
        self.ledger().record_delivered(label, arrival, now)
    }

    #[expect(
        clippy::expect_used,
        reason = "no code that can panic runs under this lock"
    )]
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("the ledger is never poisoned")
    }

    fn is_subscribed(&self, device: u32) -> bool {
        let subscribed = self.place(device);
        subscribed.is_some_and(|subscribed| subscribed.load(Ordering::Relaxed))
    }

    fn place(&self, device: u32) -> Option<&AtomicBool> {
        let place = device.checked_sub(self.first)?;
        self.subscribed.get(place as usize)
    }
}

/// The time of all commands from when they should have been sent to their device.
pub(crate) fn latency(world: &World) -> Histogram<u64> {
    let mut sum = histogram();
    for post in posts(world) {
        // The same bounds everywhere: nothing is left out.
        let _ = sum.add(&post.ledger().delivery_latency);
    }
    sum
}

/// Those of all cohorts that take commands.
pub(crate) fn posts(world: &World) -> impl Iterator<Item = &Post> {
    world.troops.iter().filter_map(|troop| troop.post.as_ref())
}

/// Sends the commands of a run.
pub(crate) struct Commander {
    world: Arc<World>,
    publisher: Publisher,
    targets: Vec<Target>,
    /// When which target is due.
    due: BinaryHeap<Reverse<(Duration, usize)>>,
    /// Its first connection, until it sends.
    ready: Option<(Client, ConnAck)>,
}

/// A device that takes commands.
struct Target {
    device: u32,
    sequence: u32,
    is_on: bool,
    rng: Pcg32,
}

impl Commander {
    /// `None` when no cohort takes commands.
    pub(crate) fn new(world: Arc<World>) -> Option<Self> {
        let (mut targets, mut due) = (Vec::new(), BinaryHeap::new());
        for troop in &world.troops {
            let Some(post) = &troop.post else {
                continue;
            };
            // The subscription takes a round trip more than the connection.
            let settle_time = world.plan.settle_time(&troop.cohort);
            let begins_at = world.plan.steady_at() + settle_time;
            for device in troop.cohort.indexes() {
                let mut rng = rng(world.plan.seed, device, Purpose::Commands);
                let phase: f64 = rng.random();
                let at = begins_at + post.commands.every.mul_f64(phase);
                due.push(Reverse((at, targets.len())));
                targets.push(Target {
                    device,
                    sequence: 0,
                    is_on: rng.random(),
                    rng,
                });
            }
        }
        (!targets.is_empty()).then(|| Self {
            world,
            publisher: Publisher::with_room(IN_FLIGHT_MAX, WAITING_MAX),
            targets,
            due,
            ready: None,
        })
    }

    /// Connects, so that the first command need not wait for it; who is not let in tries again in the run.
    pub(crate) async fn get_ready(&mut self) {
        let id = client_id(&self.world);
        let connected = Client::connect(&self.world, &id, Session::Kept).await;
        self.ready = connected.ok();
    }

    /// Sends commands until `stop` changes, then removes the session.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let world = self.world.clone();
        tokio::select! {
            () = self.serve_all() => {}
            _ = stop.changed() => {}
        }
        if forget_session(&world, &client_id(&world)).await.is_err() {
            world.verifier.uncleaned.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn serve_all(&mut self) {
        let world = self.world.clone();
        loop {
            let connected = match self.ready.take() {
                Some(ready) => Ok(ready),
                None => Client::connect(&world, &client_id(&world), Session::Kept).await,
            };
            if let Ok((client, connack)) = connected {
                for label in self.publisher.connected(&connack, false) {
                    self.record(label.device, |ledger| ledger.record_given_up(1));
                }
                // Whatever ended it, the next connection goes on.
                let _ = self.serve(client).await;
            }
            tokio::time::sleep(RETRY).await;
            self.issue_due();
        }
    }

    /// Sends and listens until the connection fails.
    async fn serve(&mut self, mut client: Client) -> Result<(), ClientError> {
        loop {
            self.issue_due();
            let mut out = Vec::new();
            while self.publisher.transmit(&mut out)? {}
            client.queue(&out)?;
            let next = self.due.peek().map(|Reverse((at, _))| *at);
            let next = next.filter(|at| *at < self.world.publish_until());
            let wakes_at = self.world.clock.instant(next.unwrap_or_default());
            tokio::select! {
                packet = client.receive() => self.handle(&mut client, packet?)?,
                () = tokio::time::sleep_until(wakes_at), if next.is_some() => {}
            }
        }
    }

    fn handle(&mut self, client: &mut Client, packet: Packet) -> Result<(), ClientError> {
        let mut answer = Vec::new();
        let now = self.world.clock.now();
        match self.publisher.handle(&packet, &mut answer)? {
            Some(End::Acknowledged(label)) => {
                self.record(label.device, |ledger| {
                    ledger.record_acknowledged(&label, now);
                });
            }
            Some(End::Rejected(label, _)) => {
                self.record(label.device, Ledger::record_rejected);
            }
            None => {}
        }
        Ok(client.queue(&answer)?)
    }

    /// Offers every command that is due.
    fn issue_due(&mut self) {
        let world = self.world.clone();
        let now = world.clock.now();
        while let Some(Reverse((at, place))) = self.due.peek().copied()
            && at <= now
            && at < world.publish_until()
        {
            self.due.pop();
            let Some(target) = self.targets.get_mut(place) else {
                continue;
            };
            let Some(troop) = world.troop(target.device) else {
                continue;
            };
            let Some(post) = &troop.post else {
                continue;
            };
            let varied = 1.0 + JITTER * target.rng.random_range(-1.0..1.0);
            let next_at = at + post.commands.every.mul_f64(varied);
            self.due.push(Reverse((next_at, place)));
            if post.is_subscribed(target.device) {
                issue(&world, troop, post, target, &mut self.publisher, (at, now));
            }
        }
    }

    fn record(&self, device: u32, change: impl FnOnce(&mut Ledger)) {
        let troop = self.world.troop(device);
        if let Some(post) = troop.and_then(|troop| troop.post.as_ref()) {
            change(&mut post.ledger());
        }
    }
}

/// Switches a device the other way, at `now` instead of `at`.
fn issue(
    world: &World,
    troop: &Troop,
    post: &Post,
    target: &mut Target,
    publisher: &mut Publisher,
    (at, now): (Duration, Duration),
) {
    target.is_on = !target.is_on;
    let command = Command {
        device: target.device,
        sequence: target.sequence,
        intended_at: at,
        is_on: target.is_on,
    };
    target.sequence += 1;
    let mut payload = Vec::new();
    command.encode(&troop.cohort.profile, &mut payload);
    let client_id = world.client_id(target.device);
    let message = Digest::of(&label(&command), &payload);
    let frame = post.template.fill(target.device, &client_id, 0, &payload);
    let mut imprint = Imprint::default();
    let offer = match frame {
        Ok(frame) => {
            imprint = Imprint::of_frame(&frame, &payload);
            publisher.offer(label(&command), frame)
        }
        Err(_) => Offer::Refused,
    };
    let mut ledger = post.ledger();
    ledger.record_published(message, now.saturating_sub(at));
    match offer {
        Offer::Accepted => ledger.record_sent(&label(&command), imprint),
        Offer::Refused => ledger.record_overflowed(),
    }
}

fn label(command: &Command) -> Label {
    Label {
        device: command.device,
        sequence: command.sequence,
        intended_at: command.intended_at,
    }
}

/// The commander's, if there is one.
pub(crate) fn client_id(world: &World) -> String {
    format!("sim-{}-commander", world.plan.run)
}
