//! What the parts of a run share.

use crate::SimError;
use crate::clock::RunClock;
use crate::commander::Post;
use crate::connects::Connects;
use crate::endpoint::{Endpoint, Transport};
use crate::imprint::Arrival;
use crate::ledger::{Counts, Ledger, micros};
use crate::phases::Phases;
use crate::plan::{Cohort, Plan};
use crate::profile::{self, Command};
use crate::report::resident_bytes;
use crate::steady::Steady;
use crate::tls::{Identity, Shared, Tls};
use crate::wire::{Delivery, Template};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A third of the ports that Linux gives out.
const DEVICES_PER_ADDRESS: u32 = 10_000;

/// What the parts of a run share.
pub(crate) struct World {
    pub(crate) plan: Plan,
    /// Starts when verifier and commander are ready.
    pub(crate) clock: RunClock,
    pub(crate) address: SocketAddr,
    /// How the verifier speaks TLS.
    tls: Option<Tls>,
    /// The client id that the verifier's certificate asks for.
    verifier_id: String,
    pub(crate) troops: Vec<Troop>,
    pub(crate) phases: Phases,
    pub(crate) steady: Steady,
    pub(crate) verifier: VerifierTally,
    /// Where devices connect from, in turn; empty leaves it to the system.
    source_addresses: Vec<IpAddr>,
    /// Memory of the process before the fleet was there, bytes.
    memory_before: Option<u64>,
    memory_after: AtomicU64,
    stage: AtomicU8,
    publish_until_us: AtomicU64,
    is_interrupted: AtomicBool,
}

/// A cohort at work.
pub(crate) struct Troop {
    pub(crate) cohort: Cohort,
    pub(crate) template: Template,
    pub(crate) tally: Tally,
    pub(crate) tls: Option<Tls>,
    /// Who its devices are, if they have certificates of their own.
    identities: Vec<Identity>,
    /// Where its devices get commands; `None` if they take none.
    pub(crate) post: Option<Post>,
    ledger: Mutex<Ledger>,
    connects: Mutex<Connects>,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Devices connect and take readings.
    Publishing,
    /// No new readings; what is on its way arrives.
    Draining,
    /// Devices leave.
    Finished,
}

/// Counters of a cohort's connections.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Devices that are connected.
    pub(crate) up: AtomicU32,
    /// Accepted connections, first and later ones.
    pub(crate) connects: AtomicU64,
    /// Connections that failed or broke, those of killed devices aside.
    pub(crate) failures: AtomicU64,
    /// Connections after the loss of one.
    pub(crate) reconnects: AtomicU64,
    /// How often a phase killed a device.
    pub(crate) killed: AtomicU64,
    /// How often a phase cut the link of a device.
    pub(crate) partitioned: AtomicU64,
    /// The return code of the last refused connection, or 0.
    pub(crate) refusal: AtomicU8,
    /// The reason code of the last refused message, or 0.
    pub(crate) rejection: AtomicU8,
    pub(crate) tls_full: AtomicU64,
    pub(crate) tls_resumed: AtomicU64,
    /// Bytes on the link with headers and retransmissions.
    pub(crate) up_bytes: AtomicU64,
    pub(crate) down_bytes: AtomicU64,
}

/// Counters of the verifier.
#[derive(Debug, Default)]
pub(crate) struct VerifierTally {
    pub(crate) reconnects: AtomicU64,
    /// Whether it has no connection.
    pub(crate) is_away: AtomicBool,
    /// Times that the broker had forgotten the verifier's session.
    pub(crate) sessions_lost: AtomicU64,
    /// Deliveries on topics of the run that are no message of any device.
    pub(crate) garbled: AtomicU64,
    /// Deliveries that are no message of the run.
    pub(crate) foreign: AtomicU64,
    /// Sessions, its own and the devices', that could not be removed at the end.
    pub(crate) uncleaned: AtomicU64,
}

impl Tally {
    /// A connection failed; with CONNACK's return code if that was why.
    pub(crate) fn record_failure(&self, refused: Option<u8>) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        if let Some(code) = refused {
            self.refusal.store(code, Ordering::Relaxed);
        }
    }

    /// A device's bytes on the link grew, up and down.
    pub(crate) fn record_bytes(&self, before: [u64; 2], after: [u64; 2]) {
        let totals = [&self.up_bytes, &self.down_bytes];
        for (total, (before, after)) in totals.into_iter().zip(before.into_iter().zip(after)) {
            if after > before {
                total.fetch_add(after - before, Ordering::Relaxed);
            }
        }
    }
}

impl World {
    pub(crate) async fn new(plan: Plan) -> Result<Self, SimError> {
        let memory_before = resident_bytes();
        let address = address(&plan.endpoint).await?;
        let is_other = |source: &&IpAddr| source.is_ipv4() != address.is_ipv4();
        if let Some(source) = plan.source_addresses.iter().find(is_other) {
            return Err(SimError::Plan(format!(
                "devices cannot connect from {source} to {address}: give --source-ip addresses of the same family"
            )));
        }
        let mut shared = match plan.endpoint.transport {
            Transport::Tcp => None,
            Transport::Tls => Some(Shared::load(&plan.tls_files, &plan.endpoint)?),
        };
        let troop = |cohort| Troop::new(&plan, cohort, shared.as_mut());
        let troops = plan.cohorts.iter().map(troop).collect::<Result<_, _>>()?;
        let (tls, verifier_id) = match &mut shared {
            None => (None, None),
            Some(shared) => {
                let (tls, id) = shared.verifier(plan.login.is_some())?;
                (Some(tls), id)
            }
        };
        Ok(Self {
            address,
            troops,
            verifier: VerifierTally::default(),
            phases: Phases::new(&plan),
            source_addresses: match plan.source_addresses.is_empty() {
                true => loopback_addresses(address, plan.devices()),
                false => plan.source_addresses.clone(),
            },
            memory_before,
            memory_after: AtomicU64::new(0),
            stage: AtomicU8::new(Stage::Publishing as u8),
            is_interrupted: AtomicBool::new(false),
            publish_until_us: AtomicU64::new(micros(plan.publish_until())),
            clock: RunClock::default(),
            steady: Steady::default(),
            tls,
            verifier_id: verifier_id.unwrap_or_else(|| format!("sim-{}-verifier", plan.run)),
            plan,
        })
    }

    /// The place in `troops` of a device's cohort.
    pub(crate) fn troop_index(&self, device: u32) -> Option<usize> {
        let after = |troop: &Troop| troop.cohort.first <= device;
        let place = self.troops.partition_point(after).checked_sub(1)?;
        self.troops
            .get(place)?
            .cohort
            .indexes()
            .contains(&device)
            .then_some(place)
    }

    /// A device's cohort.
    pub(crate) fn troop(&self, device: u32) -> Option<&Troop> {
        self.troops.get(self.troop_index(device)?)
    }

    /// The verifier's client id.
    pub(crate) fn verifier_id(&self) -> &str {
        &self.verifier_id
    }

    /// The client id of a device: what its certificate names, or one of the run.
    pub(crate) fn client_id(&self, device: u32) -> Cow<'_, str> {
        let identity = self.troop(device).and_then(|troop| troop.identity(device));
        match identity {
            Some(identity) => Cow::Borrowed(&identity.id),
            None => Cow::Owned(self.plan.client_id(device)),
        }
    }

    /// How the client with this id speaks TLS, without a ticket so far.
    pub(crate) fn tls(&self, client_id: &str) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        let name = self.tls.as_ref()?.server_name.clone();
        let identified = self.troops.iter().find_map(|troop| {
            let mut identities = troop.identities.iter();
            let identity = identities.find(|identity| *identity.id == *client_id)?;
            Some(troop.tls.as_ref()?.config_for(Some(identity)))
        });
        let config = identified.or_else(|| Some(self.tls.as_ref()?.device_config()))?;
        Some((config, name))
    }

    /// A message reached the verifier.
    pub(crate) fn record_delivered(&self, delivery: &Delivery, now: Duration) {
        let label = profile::label(delivery.payload());
        let troop = label.and_then(|label| self.troop(label.device));
        if let Some(troop) = troop {
            // The verifier subscribes with the cohort's QoS, or more, and is granted it.
            let arrival = Arrival::of(delivery, 2);
            let mut ledger = troop.ledger();
            ledger.record_delivered(label.as_ref(), &arrival, now);
        } else if self.is_of_the_run(delivery.topic())
            && Command::decode(delivery.payload()).is_none()
        {
            self.verifier.garbled.fetch_add(1, Ordering::Relaxed);
        } else {
            self.verifier.foreign.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a topic names the run, so that nobody else publishes to it.
    fn is_of_the_run(&self, topic: &[u8]) -> bool {
        let run = self.plan.run.as_bytes();
        topic.windows(run.len().max(1)).any(|part| part == run)
    }

    /// The counts of all cohorts.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for troop in &self.troops {
            counts += troop.ledger().counts();
        }
        counts.foreign += self.verifier.foreign.load(Ordering::Relaxed);
        counts.altered += self.verifier.garbled.load(Ordering::Relaxed);
        counts
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_settled(&self) -> bool {
        self.troops.iter().all(|troop| {
            let post = troop.post.as_ref();
            // Commands first: an obeyed command is a reading more.
            post.is_none_or(|post| post.ledger().is_settled()) && troop.ledger().is_settled()
        })
    }

    /// A sum over all cohorts.
    pub(crate) fn sum(&self, figure: impl Fn(&Tally) -> u64) -> u64 {
        self.troops.iter().map(|troop| figure(&troop.tally)).sum()
    }

    /// Sees how much memory the whole fleet takes, while it is there.
    pub(crate) fn record_memory(&self) {
        let bytes = resident_bytes().unwrap_or(0);
        self.memory_after.fetch_max(bytes, Ordering::Relaxed);
    }

    /// What the process has taken since there was no fleet, for each device; `None` where nobody knows.
    pub(crate) fn memory_per_device(&self) -> Option<u64> {
        let taken = self
            .memory_after
            .load(Ordering::Relaxed)
            .checked_sub(self.memory_before?)?;
        taken.checked_div(self.plan.devices().into())
    }

    /// Where a device connects from; `None` leaves it to the system.
    pub(crate) fn source_address(&self, device: u32) -> Option<IpAddr> {
        let addresses = &self.source_addresses;
        let place = (device as usize).checked_rem(addresses.len())?;
        addresses.get(place).copied()
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Publishing,
            1 => Stage::Draining,
            _ => Stage::Finished,
        }
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// When devices stop taking readings: as planned, or when the user interrupted.
    pub(crate) fn publish_until(&self) -> Duration {
        Duration::from_micros(self.publish_until_us.load(Ordering::Relaxed))
    }

    /// Devices stop taking readings now.
    pub(crate) fn interrupt(&self) {
        let now_us = micros(self.clock.now());
        self.publish_until_us.fetch_min(now_us, Ordering::Relaxed);
        self.is_interrupted.store(true, Ordering::Relaxed);
    }

    /// Whether the user ended the run.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::Relaxed)
    }
}

impl Troop {
    fn new(plan: &Plan, cohort: &Cohort, shared: Option<&mut Shared>) -> Result<Self, SimError> {
        let (version, topic) = (cohort.version, cohort.topic.clone());
        let mut cohort = cohort.clone();
        cohort.profile = cohort.profile.paced(cohort.every, cohort.jitter);
        let (tls, identities) = match shared {
            None => (None, Vec::new()),
            Some(shared) => (
                Some(shared.cohort(&cohort.tls)?),
                shared.identities(&cohort)?,
            ),
        };
        Ok(Self {
            tls,
            identities,
            template: Template::new(version, &plan.run, &cohort.name, topic, cohort.qos)?,
            tally: Tally::default(),
            post: Post::new(&plan.run, &cohort)?,
            ledger: Mutex::new(Ledger::new(cohort.qos, cohort.first, cohort.devices)),
            connects: Mutex::new(Connects::new()),
            cohort,
        })
    }

    /// Who a device is, if it has a certificate of its own.
    pub(crate) fn identity(&self, device: u32) -> Option<&Identity> {
        let place = device.checked_sub(self.cohort.first)?;
        self.identities.get(place as usize)
    }

    #[expect(
        clippy::expect_used,
        reason = "no code that can panic runs under this lock"
    )]
    pub(crate) fn connects(&self) -> MutexGuard<'_, Connects> {
        self.connects.lock().expect("connects are never poisoned")
    }

    #[expect(
        clippy::expect_used,
        reason = "no code that can panic runs under this lock"
    )]
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("the ledger is never poisoned")
    }
}

/// A broker on this machine is reached from as many loopback addresses as keep the search for a free port short: with
/// more than half of the ports of one address in use, each connect takes Linux milliseconds.
fn loopback_addresses(broker: SocketAddr, devices: u32) -> Vec<IpAddr> {
    let is_ours = matches!(broker.ip(), IpAddr::V4(ip) if ip.is_loopback());
    if !cfg!(target_os = "linux") || !is_ours || devices <= DEVICES_PER_ADDRESS {
        return Vec::new();
    }
    let addresses = devices.div_ceil(DEVICES_PER_ADDRESS);
    let address = |number| IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + number));
    (0..addresses).map(address).collect()
}

async fn address(endpoint: &Endpoint) -> Result<SocketAddr, SimError> {
    let unreachable = |source| SimError::Unreachable {
        endpoint: endpoint.clone(),
        source,
    };
    let host = (endpoint.host.as_str(), endpoint.port);
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host(host)
        .await
        .map_err(unreachable)?
        .collect();
    // A broker that listens on one family only is often on IPv4.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let none = || unreachable(io::Error::other("the name has no address"));
    addresses.first().copied().ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_devices_share_out_their_ports_among_loopback_addresses() {
        let loopback: SocketAddr = "127.0.0.1:1883".parse().unwrap();
        assert!(loopback_addresses(loopback, 10_000).is_empty());
        let addresses = loopback_addresses(loopback, 25_000);
        let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        assert_eq!(texts, ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
        let other: SocketAddr = "10.0.0.5:1883".parse().unwrap();
        assert!(loopback_addresses(other, 25_000).is_empty());
    }
}
