//! Devices that run rumqttc, a client stack that people deploy: a task each, no link.
//!
//! rumqttc numbers messages itself. Its event for an outgoing publish names the packet id, in the order in
//! which messages were handed over; a repetition names an id that is taken already. When the broker has forgotten
//! the session, rumqttc forgets what it had when the connection broke.

mod stack;

use crate::imprint::Imprint;
use crate::label::Label;
use crate::ledger::Digest;
use crate::profile::{Schedule, Sensor};
use crate::world::{Stage, Troop, World};
use stack::{Client, Events, News, Setup};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;

const RETRY: Duration = Duration::from_secs(1);
/// How often the end of the run is looked for.
const GLANCE: Duration = Duration::from_millis(200);

/// What has been handed to rumqttc and is not acknowledged.
#[derive(Default)]
struct Pending {
    handed_over: VecDeque<Label>,
    in_flight: HashMap<u16, Label>,
    /// Messages before this one were handed over when the last connection broke.
    at_risk_before: u32,
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
    let (client, mut events) = setup(&world, troop, index).open();
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
        let mut polling = std::pin::pin!(events.next());
        let news = loop {
            let publishes = schedule.next_at() < world.publish_until();
            let next_reading = tokio::time::sleep_until(world.clock.instant(schedule.next_at()));
            tokio::select! {
                news = &mut polling => break news,
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
        if matches!(news, News::Failed(_)) && presence.is_up {
            pending.at_risk_before = sequence;
        }
        handle(&world, troop, &mut pending, &mut presence, news);
        if matches!(news, News::Failed(_)) {
            sleep(RETRY).await;
            // A broker that refuses at once leaves no time for a glance.
            if world.stage() == Stage::Finished {
                return;
            }
        }
    }
    leave(&client, &mut events).await;
}

fn setup<'a>(world: &'a World, troop: &'a Troop, index: u32) -> Setup<'a> {
    let tls = troop.tls.as_ref();
    Setup {
        client_id: world.client_id(index).into_owned(),
        // rumqttc verifies the name that it connects to.
        host: match tls {
            Some(_) => world.plan.endpoint.host.clone(),
            None => world.address.ip().to_string(),
        },
        port: world.address.port(),
        cohort: &troop.cohort,
        login: world.plan.login.as_ref(),
        tls: tls.map(|tls| tls.config_for(troop.identity(index))),
    }
}

fn publish(
    world: &World,
    troop: &Troop,
    client: &Client,
    pending: &mut Pending,
    sensor: &mut Sensor,
    label: Label,
) {
    let cohort = &troop.cohort;
    let mut payload = Vec::new();
    let reading = sensor.read(&cohort.profile, label.intended_at);
    cohort.profile.encode(&label, &reading, &mut payload);
    let client_id = world.client_id(label.device);
    let topic = troop
        .template
        .topic(label.device, &client_id, cohort.profile.leaf(&reading));
    let message = Digest::of(&label, &payload);
    let imprint = Imprint::of(topic.as_bytes(), &payload);
    let accepted = client.publish(topic, cohort.qos, payload);
    let mut ledger = troop.ledger();
    let lag = world.clock.now().saturating_sub(label.intended_at);
    ledger.record_published(message, lag);
    if !accepted {
        ledger.record_overflowed();
        return;
    }
    ledger.record_sent(&label, imprint);
    if cohort.qos > 0 {
        pending.handed_over.push_back(label);
    }
}

fn handle(
    world: &World,
    troop: &Troop,
    pending: &mut Pending,
    presence: &mut Presence,
    news: News,
) {
    let now = world.clock.now();
    match news {
        News::Connected { has_session } => {
            if !has_session {
                pending.forget();
            }
            presence.arrive(troop, now);
        }
        News::Sent(id) => pending.record_sent(id),
        News::Acknowledged(id) => {
            if let Some(label) = pending.in_flight.remove(&id) {
                troop.ledger().record_acknowledged(&label, now);
            }
        }
        News::Rejected(id) => {
            if pending.in_flight.remove(&id).is_some() {
                troop.ledger().record_rejected();
            }
        }
        News::Failed(refused) => {
            troop.tally.record_failure(refused);
            presence.leave(troop, now);
        }
        News::Left | News::Other => {}
    }
}

impl Pending {
    fn record_sent(&mut self, id: u16) {
        if id > 0 && !self.in_flight.contains_key(&id) {
            self.in_flight
                .extend(self.handed_over.pop_front().map(|label| (id, label)));
        }
    }

    /// The broker has forgotten the session, and rumqttc what it had for that.
    fn forget(&mut self) {
        self.in_flight.clear();
        let before = self.at_risk_before;
        self.handed_over.retain(|label| label.sequence >= before);
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
async fn leave(client: &Client, events: &mut Events) {
    if !client.disconnect() {
        return;
    }
    let farewell = async { while !matches!(events.next().await, News::Left | News::Failed(_)) {} };
    // Who does not hear the farewell sees the socket close.
    let _ = tokio::time::timeout(GLANCE, farewell).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_told_from_new_messages_by_their_id() {
        let mut pending = handed_over(0..3);
        for id in [1, 2, 1, 0, 3] {
            pending.record_sent(id);
        }
        let sequences = [1, 2, 3].map(|id| pending.in_flight[&id].sequence);
        assert_eq!(sequences, [0, 1, 2]);
    }

    #[test]
    fn what_rumqttc_forgot_with_the_session_is_not_taken_for_what_follows() {
        let mut pending = handed_over(0..3);
        pending.record_sent(1);
        pending.at_risk_before = 3;
        pending.handed_over.push_back(label(3));
        pending.forget();
        pending.record_sent(1);
        assert_eq!(pending.in_flight[&1].sequence, 3);
    }

    fn handed_over(sequences: std::ops::Range<u32>) -> Pending {
        Pending {
            handed_over: sequences.map(label).collect(),
            ..Pending::default()
        }
    }

    fn label(sequence: u32) -> Label {
        Label {
            device: 0,
            sequence,
            intended_at: Duration::ZERO,
        }
    }
}
