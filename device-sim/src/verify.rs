//! The verifier: a subscriber without a link that hears everything the fleet sends.
//!
//! Its session is kept by the broker, so that a broken connection loses nothing; an id of its own per run
//! keeps runs apart, and the session is removed at the end. Acknowledgements follow what has been recorded.

use crate::client::{Client, ClientError, forget_session};
use crate::profile;
use crate::wire::{self, Packet, Session, WireError};
use crate::world::{Troop, World};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

const RETRY: Duration = Duration::from_millis(200);

/// A subscribed verifier.
pub(crate) struct Verifier {
    world: Arc<World>,
    client: Client,
    /// QoS 2 packet ids that the broker may still repeat.
    unreleased: HashSet<u16>,
}

impl Verifier {
    /// Connects and subscribes to the whole run.
    pub(crate) async fn start(world: Arc<World>) -> Result<Self, ClientError> {
        let (mut client, _) = Client::connect(&world, &client_id(&world), Session::Kept).await?;
        subscribe(&world, &mut client).await?;
        let unreleased = HashSet::new();
        Ok(Self {
            world,
            client,
            unreleased,
        })
    }

    /// Records deliveries until `stop` changes, then removes the session.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let world = self.world.clone();
        tokio::select! {
            () = self.record_all() => {}
            _ = stop.changed() => {}
        }
        // The broker drops the old connection when the same client comes back.
        if forget_session(&world, &client_id(&world)).await.is_err() {
            world.verifier.uncleaned.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn record_all(&mut self) {
        loop {
            if self.record_connection().await.is_err() {
                self.world
                    .verifier
                    .reconnects
                    .fetch_add(1, Ordering::Relaxed);
            }
            self.reconnect().await;
        }
    }

    /// Records until the connection fails.
    async fn record_connection(&mut self) -> Result<(), ClientError> {
        loop {
            let mut answers = Vec::new();
            let first = self.client.receive().await?;
            self.handle(first, &mut answers)?;
            while let Some(packet) = self.client.received()? {
                self.handle(packet, &mut answers)?;
            }
            self.client.send(&answers).await?;
        }
    }

    fn handle(&mut self, packet: Packet, answers: &mut Vec<u8>) -> Result<(), WireError> {
        match packet {
            Packet::Publish(delivery) => {
                let is_new = delivery.qos < 2 || self.unreleased.insert(delivery.id);
                if is_new {
                    let label = profile::label(&delivery.payload);
                    let now = self.world.clock.now();
                    self.world.record_delivered(label.as_ref(), now);
                }
                match delivery.qos {
                    0 => {}
                    1 => answers.extend(wire::puback(delivery.id)?),
                    _ => answers.extend(wire::pubrec(delivery.id)?),
                }
            }
            Packet::PubRel(id) => {
                self.unreleased.remove(&id);
                answers.extend(wire::pubcomp(id)?);
            }
            _ => {}
        }
        Ok(())
    }

    async fn reconnect(&mut self) {
        loop {
            tokio::time::sleep(RETRY).await;
            let connected =
                Client::connect(&self.world, &client_id(&self.world), Session::Kept).await;
            let Ok((mut client, session_present)) = connected else {
                continue;
            };
            if !session_present {
                self.world
                    .verifier
                    .sessions_lost
                    .fetch_add(1, Ordering::Relaxed);
                self.unreleased.clear();
                if subscribe(&self.world, &mut client).await.is_err() {
                    continue;
                }
            }
            self.client = client;
            return;
        }
    }
}

async fn subscribe(world: &World, client: &mut Client) -> Result<(), ClientError> {
    for (filter, qos) in filters(world) {
        client.send(&wire::subscribe(&filter, qos)?).await?;
        match client.receive().await? {
            Packet::SubAck { code, .. } if code == qos => {}
            _ => return Err(ClientError::Unsubscribed(filter)),
        }
    }
    Ok(())
}

/// The filters that match everything the fleet publishes, each once.
fn filters(world: &World) -> BTreeMap<String, u8> {
    let mut filters = BTreeMap::new();
    for Troop { cohort, .. } in &world.troops {
        let filter = cohort.topic.filter(&world.plan.run, &cohort.name);
        let qos = filters.entry(filter).or_insert(cohort.qos);
        *qos = cohort.qos.max(*qos);
    }
    filters
}

fn client_id(world: &World) -> String {
    format!("sim-{}-verifier", world.plan.run)
}
