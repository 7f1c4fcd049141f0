//! The verifier: a subscriber without a link that hears everything the fleet sends.
//!
//! Its session is kept by the broker, so that a broken connection loses nothing; an id of its own per run
//! keeps runs apart, and the session is removed at the end. Acknowledgements follow what has been recorded.
//! Deliveries may come before the answer to a subscription, and count.

use crate::client::{Client, ClientError, forget_session};
use crate::wire::{self, Packet, Session, Version};
use crate::world::{Troop, World};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a broker may take to answer all subscriptions.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(200);

/// A subscribed verifier.
pub(crate) struct Verifier {
    world: Arc<World>,
    client: Client,
    /// QoS 2 packet ids that the broker may still repeat.
    unreleased: HashSet<u16>,
    /// Subscriptions without an answer, by packet id.
    unanswered: BTreeMap<u16, (String, u8)>,
}

impl Verifier {
    /// Connects and subscribes to the whole run.
    pub(crate) async fn start(world: Arc<World>) -> Result<Self, ClientError> {
        let (client, _) = Client::connect(&world, world.verifier_id(), Session::Kept).await?;
        let mut verifier = Self {
            world,
            client,
            unreleased: HashSet::new(),
            unanswered: BTreeMap::new(),
        };
        verifier.subscribe()?;
        match timeout(SUBSCRIBE_TIMEOUT, verifier.await_subscriptions()).await {
            Ok(subscribed) => subscribed?,
            Err(_) => return Err(ClientError::Timeout),
        }
        Ok(verifier)
    }

    async fn await_subscriptions(&mut self) -> Result<(), ClientError> {
        while !self.unanswered.is_empty() {
            self.record().await?;
        }
        Ok(())
    }

    /// Records deliveries until `stop` changes, then removes the session.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let world = self.world.clone();
        tokio::select! {
            () = self.record_all() => {}
            _ = stop.changed() => {}
        }
        // The broker drops the old connection when the same client comes back.
        if forget_session(&world, world.verifier_id()).await.is_err() {
            world.verifier.uncleaned.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn record_all(&mut self) {
        loop {
            // It ends by failing only.
            let _ = self.record_connection().await;
            let world = self.world.clone();
            world.verifier.is_away.store(true, Ordering::Relaxed);
            self.reconnect().await;
            world.verifier.is_away.store(false, Ordering::Relaxed);
            world.verifier.reconnects.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records until the connection fails.
    async fn record_connection(&mut self) -> Result<(), ClientError> {
        loop {
            self.record().await?;
        }
    }

    /// Records what one read brings.
    async fn record(&mut self) -> Result<(), ClientError> {
        let mut answers = Vec::new();
        let first = self.client.receive().await?;
        self.handle(first, &mut answers)?;
        while let Some(packet) = self.client.received()? {
            self.handle(packet, &mut answers)?;
        }
        Ok(self.client.queue(&answers)?)
    }

    fn handle(&mut self, packet: Packet, answers: &mut Vec<u8>) -> Result<(), ClientError> {
        match packet {
            Packet::Publish(delivery) => {
                let is_new = delivery.qos < 2 || self.unreleased.insert(delivery.id);
                if is_new {
                    let now = self.world.clock.now();
                    self.world.record_delivered(&delivery, now);
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
            Packet::SubAck { id, codes } => {
                if let Some((filter, qos)) = self.unanswered.remove(&id)
                    && codes != [qos]
                {
                    return Err(ClientError::Unsubscribed(filter));
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn reconnect(&mut self) {
        loop {
            tokio::time::sleep(RETRY).await;
            let connected =
                Client::connect(&self.world, self.world.verifier_id(), Session::Kept).await;
            let Ok((client, connack)) = connected else {
                continue;
            };
            self.client = client;
            if !connack.session_present {
                self.world
                    .verifier
                    .sessions_lost
                    .fetch_add(1, Ordering::Relaxed);
                self.unreleased.clear();
            }
            // What a kept session subscribed to before the connection broke may not have been answered.
            let is_subscribed = connack.session_present && self.unanswered.is_empty();
            if is_subscribed || self.subscribe().is_ok() {
                return;
            }
        }
    }

    /// Asks for the whole run; the answers come with the deliveries.
    fn subscribe(&mut self) -> Result<(), ClientError> {
        self.unanswered = (1..).zip(filters(&self.world)).collect();
        for (id, (filter, qos)) in &self.unanswered {
            let packet = wire::subscribe(Version::V4, *id, filter, *qos)?;
            self.client.queue(&packet)?;
        }
        Ok(())
    }
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
