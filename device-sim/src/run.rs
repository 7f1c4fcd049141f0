//! A run from beginning to end: verifier, fleet, live lines, drain, tidying up, report.

use crate::client::{ClientError, forget_session, refusal};
use crate::clock::{Clock, run_number};
use crate::endpoint::{Endpoint, Transport};
use crate::fleet::{Ready, Worker};
use crate::ledger::Ledger;
use crate::link::Preset;
use crate::report::Report;
use crate::tls::{Tls, TlsFiles};
use crate::verify::Verifier;
use crate::wire::{Login, Session, Template};
use crate::{SimError, real_client};
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

/// How long late duplicates may take after all has arrived.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// Workers beyond this would only contend for the ledger.
const WORKERS_MAX: usize = 4;
/// A generous full handshake with client certificate, both ways.
const TLS_HANDSHAKE_BYTES: u32 = 4_000;
/// Connections that tidy up at the same time.
const TIDY_AT_ONCE: u32 = 32;

/// Which client stack the devices use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// Our own, behind the link.
    Simulated,
    /// The crate rumqttc, a task per device, without a link.
    Rumqttc,
}

/// Everything that determines a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Names the run in topics and client ids: eight hexadecimal digits.
    pub run: String,
    /// Where the broker is.
    pub endpoint: Endpoint,
    /// Certificates for `mqtts://`.
    pub tls_files: TlsFiles,
    /// User name and password.
    pub login: Option<Login>,
    /// Which client stack the devices use.
    pub client: ClientKind,
    /// How many devices.
    pub devices: u32,
    /// What is between them and the network.
    pub preset: Arc<Preset>,
    /// Mean time between two readings of a device.
    pub every: Duration,
    /// How long all devices publish, after the last one has connected.
    pub duration: Duration,
    /// How long to wait at most for what is on its way when publishing ends.
    pub drain_max: Duration,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Determines schedule, readings and losses.
    pub seed: u64,
    /// Devices that connect per second.
    pub connects_per_s: f64,
}

/// What all parts of a run share.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) clock: Clock,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
    pub(crate) template: Template,
    pub(crate) tally: Tally,
    ledger: Mutex<Ledger>,
    phase: AtomicU8,
    publish_until_us: AtomicU64,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Devices connect and take readings.
    Publishing,
    /// No new readings; what is on its way arrives.
    Draining,
    /// Devices leave.
    Finished,
}

/// Counters of the fleet's connections.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Devices that are connected.
    pub(crate) up: AtomicU32,
    /// Accepted connections, first and later ones.
    pub(crate) connects: AtomicU64,
    /// Connections that failed or broke.
    pub(crate) failures: AtomicU64,
    /// The return code of the last refused connection, or 0.
    pub(crate) refusal: AtomicU8,
    pub(crate) tls_full: AtomicU64,
    pub(crate) tls_resumed: AtomicU64,
    pub(crate) up_bytes: AtomicU64,
    pub(crate) down_bytes: AtomicU64,
    pub(crate) verifier_reconnects: AtomicU64,
    /// Times that the broker had forgotten the verifier's session.
    pub(crate) verifier_sessions_lost: AtomicU64,
    /// Sessions that could not be removed at the end.
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

impl Plan {
    /// A name that no other run on this machine has.
    #[must_use]
    pub fn new_run_name() -> String {
        format!("{:08x}", run_number())
    }

    /// The MQTT client id of a device.
    #[must_use]
    pub fn client_id(&self, device: u32) -> String {
        format!("sim-{}-{device:06}", self.run)
    }

    /// When a device begins to connect.
    pub(crate) fn connects_at(&self, device: u32) -> Duration {
        Duration::from_secs_f64(f64::from(device) / self.connects_per_s)
    }

    /// How long a device has to connect before its first reading can fall due.
    pub(crate) fn settle_time(&self) -> Duration {
        match self.endpoint.transport {
            Transport::Tcp => self.preset.settle_time(2, 250),
            Transport::Tls => self.preset.settle_time(3, TLS_HANDSHAKE_BYTES + 250),
        }
    }

    /// When devices stop taking readings.
    pub(crate) fn publish_until(&self) -> Duration {
        self.connects_at(self.devices) + self.settle_time() + self.duration
    }

    /// Longer than any pause between two readings, so that no pings are needed.
    pub(crate) fn keep_alive_s(&self) -> u16 {
        let keep_alive_s = (self.every.as_secs() * 5 / 2).max(60);
        u16::try_from(keep_alive_s).unwrap_or(u16::MAX)
    }

    /// Checks what the options cannot say alone.
    fn check(&self) -> Result<(), SimError> {
        let problem = if !(1..=999_999).contains(&self.devices) {
            "--devices must be 1 to 999999"
        } else if self.every < Duration::from_millis(10) || self.every > Duration::from_secs(21_600)
        {
            "--every must be 10 ms to 6 h"
        } else if self.connects_per_s <= 0.0 {
            "--connect-rate must be more than 0"
        } else if self.login.as_ref().is_some_and(is_too_long) {
            "user name and password are limited to 65535 bytes each"
        } else if self.client == ClientKind::Rumqttc && self.preset.up_bits_per_s.is_some() {
            "rumqttc opens its own sockets, which no link can delay: add --link none"
        } else if self.client == ClientKind::Rumqttc && self.devices > 200 {
            "--client rumqttc runs a task per device: at most 200 devices"
        } else if self.client == ClientKind::Rumqttc && self.endpoint.transport == Transport::Tls {
            "--client rumqttc is for mqtt:// only"
        } else {
            return Ok(());
        };
        Err(SimError::Options(problem))
    }
}

fn is_too_long(login: &Login) -> bool {
    login.username.len() > 65_535 || login.password.len() > 65_535
}

impl World {
    async fn new(plan: Plan) -> Result<Self, SimError> {
        let tls = match plan.endpoint.transport {
            Transport::Tcp => None,
            Transport::Tls => Some(Tls::load(&plan.tls_files, &plan.endpoint)?),
        };
        Ok(Self {
            address: address(&plan.endpoint).await?,
            template: Template::new(&plan.run, plan.qos)?,
            ledger: Mutex::new(Ledger::new(plan.qos, plan.devices)),
            tally: Tally::default(),
            phase: AtomicU8::new(Phase::Publishing as u8),
            publish_until_us: AtomicU64::new(micros(plan.publish_until())),
            clock: Clock::start(),
            tls,
            plan,
        })
    }

    #[expect(
        clippy::expect_used,
        reason = "no code that can panic runs under this lock"
    )]
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("the ledger is never poisoned")
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Publishing,
            1 => Phase::Draining,
            _ => Phase::Finished,
        }
    }

    /// When devices stop taking readings: as planned, or when the user interrupted.
    pub(crate) fn publish_until(&self) -> Duration {
        Duration::from_micros(self.publish_until_us.load(Ordering::Relaxed))
    }

    fn interrupt(&self) {
        let now_us = micros(self.clock.now());
        self.publish_until_us.fetch_min(now_us, Ordering::Relaxed);
    }

    fn set_phase(&self, phase: Phase, alarms: &[Arc<Ready>]) {
        self.phase.store(phase as u8, Ordering::Release);
        for alarm in alarms {
            alarm.wake_worker();
        }
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

/// Runs the plan, with live lines on standard error.
///
/// # Errors
/// The run could not take place; what a broker did wrong during a run is in the report instead.
pub async fn run(plan: Plan) -> Result<Report, SimError> {
    plan.check()?;
    check_open_files(plan.devices)?;
    let world = Arc::new(World::new(plan).await?);
    let verifier = Verifier::start(world.clone())
        .await
        .map_err(|source| cannot_verify(&world.plan.endpoint, source))?;
    let (stop, stopped) = watch::channel(false);
    let verifier = tokio::spawn(verifier.run(stopped));

    let (workers, alarms) = start_fleet(&world);
    let took = watch_fleet(&world, &alarms).await;
    world.set_phase(Phase::Finished, &alarms);
    for worker in workers {
        worker
            .await
            .map_err(|_| SimError::Internal("a worker panicked"))?;
    }
    // The verifier leaves when the sender says so or is gone.
    let _ = stop.send(true);
    verifier
        .await
        .map_err(|_| SimError::Internal("the verifier panicked"))?;
    forget_devices(&world).await;
    Ok(Report::new(&world, took))
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

fn cannot_verify(endpoint: &Endpoint, source: ClientError) -> SimError {
    let endpoint = endpoint.clone();
    match source {
        ClientError::Io(source) if source.kind() == io::ErrorKind::ConnectionRefused => {
            SimError::Unreachable { endpoint, source }
        }
        source => SimError::Verifier { endpoint, source },
    }
}

/// Fails early where the system would fail device by device.
fn check_open_files(devices: u32) -> Result<(), SimError> {
    let needed = u64::from(devices) + 64;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft_limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    match soft_limit {
        Some(limit) if limit < needed => Err(SimError::OpenFiles {
            devices,
            needed,
            limit,
        }),
        _ => Ok(()),
    }
}

fn start_fleet(world: &Arc<World>) -> (Vec<JoinHandle<()>>, Vec<Arc<Ready>>) {
    if world.plan.client == ClientKind::Rumqttc {
        let devices = 0..world.plan.devices;
        let spawn = |index| tokio::spawn(real_client::run(world.clone(), index));
        return (devices.map(spawn).collect(), Vec::new());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = cores.min(WORKERS_MAX);
    let worker = |offset: usize| {
        let first = u32::try_from(offset).unwrap_or(0);
        let indexes = (first..world.plan.devices).step_by(workers);
        let worker = Worker::new(world.clone(), indexes);
        let alarm = worker.alarm();
        (tokio::spawn(tokio::task::unconstrained(worker)), alarm)
    };
    (0..workers).map(worker).unzip()
}

/// Waits until the run is over, printing what happens; returns how long it took. One interrupt ends
/// publishing, a second one the wait for what is on its way.
async fn watch_fleet(world: &World, alarms: &[Arc<Ready>]) -> Duration {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut live = Live::new();
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut is_interrupted = false;
    let mut settled_at = None;
    let mut drain_until = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut interrupted => {
                if is_interrupted {
                    return world.clock.now();
                }
                is_interrupted = true;
                interrupted.set(tokio::signal::ctrl_c());
                world.interrupt();
            }
        }
        let now = world.clock.now();
        live.print(world, now);
        let over = now >= world.publish_until();
        if over && drain_until.is_none() {
            drain_until = Some(now + world.plan.drain_max);
            world.set_phase(Phase::Draining, alarms);
        }
        if drain_until.is_some() && world.ledger().is_settled() {
            settled_at = settled_at.or(Some(now));
        } else {
            settled_at = None;
        }
        let is_quiet = settled_at.is_some_and(|at| now >= at + STRAGGLERS);
        if is_quiet || drain_until.is_some_and(|until| now >= until) {
            return now;
        }
    }
}

/// One line a second on a terminal, one every five seconds elsewhere.
struct Live {
    every: Duration,
    next_at: Duration,
    published: u64,
}

impl Live {
    fn new() -> Self {
        let seconds = if io::stderr().is_terminal() { 1 } else { 5 };
        let every = Duration::from_secs(seconds);
        Self {
            every,
            next_at: every,
            published: 0,
        }
    }

    fn print(&mut self, world: &World, now: Duration) {
        if now < self.next_at {
            return;
        }
        self.next_at += self.every;
        let (counts, ack_p50_us) = {
            let ledger = world.ledger();
            (ledger.counts(), ledger.ack_latency.value_at_quantile(0.5))
        };
        let rate = (counts.published - self.published) as f64 / self.every.as_secs_f64();
        self.published = counts.published;
        let tally = &world.tally;
        let failures = tally.failures.load(Ordering::Relaxed);
        let refused = match tally.refusal.load(Ordering::Relaxed) {
            0 => String::new(),
            code => format!("   refused: {}", refusal(code)),
        };
        // Nobody reads a closed standard error.
        let _ = writeln!(
            io::stderr(),
            "{:>4} s  {:<10} up {}/{}   published {} ({rate:.1}/s)   acknowledged {}   delivered {}   \
             duplicated {}   reordered {}   failures {failures}   ack p50 {:.2} s{refused}",
            now.as_secs(),
            match world.phase() {
                Phase::Publishing => "publishing",
                Phase::Draining | Phase::Finished => "draining",
            },
            tally.up.load(Ordering::Relaxed),
            world.plan.devices,
            counts.published,
            counts.acknowledged,
            counts.delivered,
            counts.duplicated,
            counts.reordered,
            ack_p50_us as f64 / 1e6,
        );
    }
}

/// Removes the sessions that QoS 2 devices asked the broker to keep.
async fn forget_devices(world: &Arc<World>) {
    if world.plan.session() == Session::Clean {
        return;
    }
    let mut tidiers = JoinSet::new();
    for offset in 0..TIDY_AT_ONCE {
        let world = world.clone();
        tidiers.spawn(async move {
            let mut devices = (offset..world.plan.devices).step_by(TIDY_AT_ONCE as usize);
            while let Some(device) = devices.next() {
                let client_id = world.plan.client_id(device);
                if forget_session(&world, &client_id).await.is_err() {
                    // A broker that is gone would keep us waiting for each of them.
                    let left = devices.len() as u64 + 1;
                    world.tally.uncleaned.fetch_add(left, Ordering::Relaxed);
                    return;
                }
            }
        });
    }
    tidiers.join_all().await;
}
