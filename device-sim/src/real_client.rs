//! Devices that run rumqttc, a client stack that people deploy: a task each, no link.
//!
//! rumqttc numbers messages itself. Its event for an outgoing publish names the packet id, in the order in
//! which messages were handed over; a repetition names an id that is taken already.

use crate::profile::{PowerMeter, Schedule};
use crate::run::{Phase, World};
use crate::wire::{self, Label};
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

/// Runs one device to the end of the run.
pub(crate) async fn run(world: Arc<World>, index: u32) {
    let plan = &world.plan;
    let connects_at = plan.connects_at(index);
    tokio::time::sleep_until(world.clock.instant(connects_at)).await;
    let (client, mut events) = AsyncClient::new(options(&world, index), REQUESTS_MAX);
    let mut schedule = Schedule::new(plan.seed, index, plan.every, connects_at);
    let mut meter = PowerMeter::new(plan.seed, index);
    let mut pending = Pending::default();
    let mut sequence = 0;
    let mut is_up = false;
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
                    schedule.advance();
                    let label = Label { device: index, sequence, intended_at };
                    sequence += 1;
                    publish(&world, &client, &mut pending, &mut meter, label);
                }
                () = sleep(GLANCE) => if world.phase() == Phase::Finished {
                    break 'run;
                }
            }
        };
        match polled {
            Ok(event) => handle(&world, &mut pending, &mut is_up, &event),
            Err(_) => {
                world.tally.record_failure(None);
                set_up(&world, &mut is_up, false);
                sleep(RETRY).await;
            }
        }
    }
    leave(&client, &mut events).await;
}

fn options(world: &World, index: u32) -> MqttOptions {
    let plan = &world.plan;
    let mut options = MqttOptions::new(
        plan.client_id(index),
        world.address.ip().to_string(),
        world.address.port(),
    );
    options.set_keep_alive(Duration::from_secs(plan.keep_alive_s().into()));
    options.set_clean_session(plan.session() == wire::Session::Clean);
    if let Some(login) = &plan.login {
        options.set_credentials(&login.username, &login.password);
    }
    options
}

fn publish(
    world: &World,
    client: &AsyncClient,
    pending: &mut Pending,
    meter: &mut PowerMeter,
    label: Label,
) {
    let qos = match world.plan.qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    };
    let payload = world
        .template
        .payload(&label, &meter.read(label.intended_at));
    let topic = wire::topic(&world.plan.run, label.device);
    let accepted = client.try_publish(topic, qos, false, payload).is_ok();
    let mut ledger = world.ledger();
    ledger.record_published(world.clock.now().saturating_sub(label.intended_at));
    if !accepted {
        ledger.record_overflowed();
    } else if world.plan.qos > 0 {
        pending.handed_over.push_back(label);
    }
}

fn handle(world: &World, pending: &mut Pending, is_up: &mut bool, event: &Event) {
    match event {
        Event::Outgoing(Outgoing::Publish(id))
            if *id > 0 && !pending.in_flight.contains_key(id) =>
        {
            if let Some(label) = pending.handed_over.pop_front() {
                pending.in_flight.insert(*id, label);
            }
        }
        Event::Incoming(Packet::ConnAck(_)) => {
            world.tally.connects.fetch_add(1, Ordering::Relaxed);
            set_up(world, is_up, true);
        }
        Event::Incoming(Packet::PubAck(ack)) => acknowledge(world, pending, ack.pkid),
        Event::Incoming(Packet::PubComp(complete)) => acknowledge(world, pending, complete.pkid),
        _ => {}
    }
}

fn acknowledge(world: &World, pending: &mut Pending, id: u16) {
    if let Some(label) = pending.in_flight.remove(&id) {
        let now = world.clock.now();
        world.ledger().record_acknowledged(&label, now);
    }
}

fn set_up(world: &World, is_up: &mut bool, up: bool) {
    match (*is_up, up) {
        (false, true) => world.tally.up.fetch_add(1, Ordering::Relaxed),
        (true, false) => world.tally.up.fetch_sub(1, Ordering::Relaxed),
        _ => 0,
    };
    *is_up = up;
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
