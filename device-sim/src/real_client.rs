//! Devices that run rumqttc, a client stack that people deploy: a task each, no link.
//!
//! rumqttc numbers messages itself. Its event for an outgoing publish names the packet id, in the order in
//! which messages were handed over; a repetition names an id that is taken already.

use crate::label::Label;
use crate::ledger::Digest;
use crate::profile::{Schedule, Sensor};
use crate::wire;
use crate::world::{Stage, Troop, World};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;

const RETRY: Duration = Duration::from_secs(1);
/// How often the end of the run is looked for.
const GLANCE: Duration = Duration::from_millis(200);
const REQUESTS_MAX: usize = 64;

/// What has been handed to rumqttc and is not acknowledged.
#[derive(Default)]
struct Pending {
    handed_over: VecDeque<Label>,
    in_flight: HashMap<u16, Label>,
}

/// Whether a device is connected, was ever, and since when it wants to be.
struct Presence {
    is_up: bool,
    was_up: bool,
    wanted_at: Duration,
}

/// Runs one device to the end of the run.
pub(crate) async fn run(world: Arc<World>, index: u32) {
    let Some(troop) = world.troop(index) else {
        return;
    };
    let cohort = &troop.cohort;
    let connects_at = cohort.connects_at(world.plan.seed, index);
    tokio::time::sleep_until(world.clock.instant(connects_at)).await;
    let (client, mut events) = AsyncClient::new(options(&world, troop, index), REQUESTS_MAX);
    let seed = world.plan.seed;
    let mut schedule = Schedule::new(&cohort.profile, seed, index, connects_at);
    let mut sensor = Sensor::new(&cohort.profile, seed, index);
    let mut pending = Pending::default();
    let mut sequence = 0;
    let mut presence = Presence {
        is_up: false,
        was_up: false,
        wanted_at: connects_at,
    };
    'run: loop {
        // Polled to its end: rumqttc starts a connection anew when its future is dropped.
        let mut polling = std::pin::pin!(events.poll());
        let polled = loop {
            let publishes = schedule.next_at() < world.publish_until();
            let next_reading = tokio::time::sleep_until(world.clock.instant(schedule.next_at()));
            tokio::select! {
                polled = &mut polling => break polled,
                () = next_reading, if publishes => {
                    let intended_at = schedule.next_at();
                    schedule.advance(&cohort.profile);
                    let label = Label { device: index, sequence, intended_at };
                    sequence += 1;
                    publish(&world, troop, &client, &mut pending, &mut sensor, label);
                }
                () = sleep(GLANCE) => if world.stage() == Stage::Finished {
                    break 'run;
                }
            }
        };
        match polled {
            Ok(event) => handle(&world, troop, &mut pending, &mut presence, &event),
            Err(_) => {
                troop.tally.record_failure(None);
                presence.leave(troop, world.clock.now());
                sleep(RETRY).await;
            }
        }
    }
    leave(&client, &mut events).await;
}

fn options(world: &World, troop: &Troop, index: u32) -> MqttOptions {
    let (plan, cohort) = (&world.plan, &troop.cohort);
    let mut options = MqttOptions::new(
        world.client_id(index),
        world.address.ip().to_string(),
        world.address.port(),
    );
    options.set_keep_alive(Duration::from_secs(cohort.keep_alive_s.into()));
    options.set_clean_session(cohort.session == wire::Session::Clean);
    if let Some(login) = &plan.login {
        options.set_credentials(&login.username, &login.password);
    }
    options
}

fn publish(
    world: &World,
    troop: &Troop,
    client: &AsyncClient,
    pending: &mut Pending,
    sensor: &mut Sensor,
    label: Label,
) {
    let cohort = &troop.cohort;
    let qos = match cohort.qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    };
    let mut payload = Vec::new();
    let reading = sensor.read(&cohort.profile, label.intended_at);
    cohort.profile.encode(&label, &reading, &mut payload);
    let client_id = world.client_id(label.device);
    let topic = troop
        .template
        .topic(label.device, &client_id, cohort.profile.leaf(&reading));
    let message = Digest::of(&label, &payload);
    let accepted = client.try_publish(topic, qos, false, payload).is_ok();
    let mut ledger = troop.ledger();
    let lag = world.clock.now().saturating_sub(label.intended_at);
    ledger.record_published(message, lag);
    if !accepted {
        ledger.record_overflowed();
    } else if cohort.qos > 0 {
        pending.handed_over.push_back(label);
    }
}

fn handle(
    world: &World,
    troop: &Troop,
    pending: &mut Pending,
    presence: &mut Presence,
    event: &Event,
) {
    match event {
        Event::Outgoing(Outgoing::Publish(id))
            if *id > 0 && !pending.in_flight.contains_key(id) =>
        {
            if let Some(label) = pending.handed_over.pop_front() {
                pending.in_flight.insert(*id, label);
            }
        }
        Event::Incoming(Packet::ConnAck(_)) => {
            presence.arrive(troop, world.clock.now());
        }
        Event::Incoming(Packet::PubAck(ack)) => acknowledge(world, troop, pending, ack.pkid),
        Event::Incoming(Packet::PubComp(complete)) => {
            acknowledge(world, troop, pending, complete.pkid)
        }
        _ => {}
    }
}

fn acknowledge(world: &World, troop: &Troop, pending: &mut Pending, id: u16) {
    if let Some(label) = pending.in_flight.remove(&id) {
        let now = world.clock.now();
        troop.ledger().record_acknowledged(&label, now);
    }
}

impl Presence {
    fn arrive(&mut self, troop: &Troop, now: Duration) {
        let took = now.saturating_sub(self.wanted_at);
        troop.tally.connects.fetch_add(1, Ordering::Relaxed);
        if self.was_up {
            troop.tally.reconnects.fetch_add(1, Ordering::Relaxed);
            troop.connects().record_return(took);
        } else {
            troop.connects().record_first(took);
        }
        if !self.is_up {
            troop.tally.up.fetch_add(1, Ordering::Relaxed);
        }
        (self.is_up, self.was_up) = (true, true);
    }

    fn leave(&mut self, troop: &Troop, now: Duration) {
        if self.is_up {
            troop.tally.up.fetch_sub(1, Ordering::Relaxed);
            self.wanted_at = now;
        }
        self.is_up = false;
    }
}

/// Says goodbye, if the broker listens within a moment.
async fn leave(client: &AsyncClient, events: &mut EventLoop) {
    if client.try_disconnect().is_err() {
        return;
    }
    let farewell = async {
        while let Ok(event) = events.poll().await {
            if event == Event::Outgoing(Outgoing::Disconnect) {
                return;
            }
        }
    };
    // Who does not hear the farewell sees the socket close.
    let _ = tokio::time::timeout(GLANCE, farewell).await;
}
