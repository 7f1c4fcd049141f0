//! What the parts of a run share.

use crate::SimError;
use crate::clock::Clock;
use crate::connects::Connects;
use crate::endpoint::{Endpoint, Transport};
use crate::label::Label;
use crate::ledger::{Counts, Ledger, micros};
use crate::phases::Phases;
use crate::plan::{Cohort, Plan};
use crate::tls::{Identity, Shared, Tls};
use crate::wire::Template;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What the parts of a run share.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) clock: Clock,
    pub(crate) address: SocketAddr,
    /// How the verifier speaks TLS.
    tls: Option<Tls>,
    /// The client id that the verifier's certificate asks for.
    verifier_id: String,
    pub(crate) troops: Vec<Troop>,
    pub(crate) phases: Phases,
    pub(crate) verifier: VerifierTally,
    stage: AtomicU8,
    publish_until_us: AtomicU64,
}

/// A cohort at work.
pub(crate) struct Troop {
    pub(crate) cohort: Cohort,
    pub(crate) template: Template,
    pub(crate) tally: Tally,
    pub(crate) tls: Option<Tls>,
    /// Who its devices are, if they have certificates of their own.
    identities: Vec<Identity>,
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
    /// Times that the broker had forgotten the verifier's session.
    pub(crate) sessions_lost: AtomicU64,
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
}

impl Tally {
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
            address: address(&plan.endpoint).await?,
            troops,
            verifier: VerifierTally::default(),
            phases: Phases::new(&plan),
            stage: AtomicU8::new(Stage::Publishing as u8),
            publish_until_us: AtomicU64::new(micros(plan.publish_until())),
            clock: Clock::start(),
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

    /// A message reached the verifier; `None` when it carries no label.
    pub(crate) fn record_delivered(&self, label: Option<&Label>, now: Duration) {
        match label.and_then(|label| self.troop(label.device)) {
            Some(troop) => troop.ledger().record_delivered(label, now),
            None => {
                self.verifier.foreign.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The counts of all cohorts.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for troop in &self.troops {
            counts += troop.ledger().counts();
        }
        counts.foreign += self.verifier.foreign.load(Ordering::Relaxed);
        counts
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_settled(&self) -> bool {
        self.troops.iter().all(|troop| troop.ledger().is_settled())
    }

    /// A sum over all cohorts.
    pub(crate) fn sum(&self, figure: impl Fn(&Tally) -> u64) -> u64 {
        self.troops.iter().map(|troop| figure(&troop.tally)).sum()
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
