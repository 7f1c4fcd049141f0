//! A run from beginning to end: verifier, fleet, live lines, drain, tidying up, report.

use crate::client::{ClientError, forget_session};
use crate::commander::Commander;
use crate::endpoint::Endpoint;
use crate::fleet::{Ready, Worker};
use crate::open_files::allow_open_files;
use crate::output::{Live, Output};
use crate::plan::{ClientKind, Plan};
use crate::report::Report;
use crate::verify::Verifier;
use crate::wire::Session;
use crate::world::{Stage, World};
use crate::{SimError, real_client};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

/// How long late duplicates may take after all has arrived.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// Workers beyond this would only contend for the ledger.
const WORKERS_MAX: usize = 4;
/// Connections that tidy up at the same time.
const TIDY_AT_ONCE: usize = 32;

/// Runs the plan in silence.
///
/// # Errors
/// The run could not take place; what a broker did wrong during a run is in the report instead.
pub async fn run(plan: Plan) -> Result<Report, SimError> {
    run_with(plan, Output::silent()).await
}

/// Runs the plan and shows it.
///
/// # Errors
/// The run could not take place, or a file of `output` could not be written.
pub async fn run_with(plan: Plan, output: Output) -> Result<Report, SimError> {
    plan.check()?;
    check_open_files(plan.devices())?;
    let world = Arc::new(World::new(plan).await?);
    let verifier = Verifier::start(world.clone())
        .await
        .map_err(|source| cannot_verify(&world.plan.endpoint, source))?;
    let (stop, stopped) = watch::channel(false);
    let commander = Commander::new(world.clone());
    let commander = commander.map(|commander| tokio::spawn(commander.run(stopped.clone())));
    let verifier = tokio::spawn(verifier.run(stopped));

    let (workers, alarms) = start_fleet(&world);
    let mut live = output.start(&world)?;
    let took = watch_fleet(&world, &alarms, &mut live).await?;
    world.record_memory();
    set_stage(&world, Stage::Finished, &alarms);
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
    if let Some(commander) = commander {
        commander
            .await
            .map_err(|_| SimError::Internal("the commander panicked"))?;
    }
    forget_devices(&world).await;
    live.finish(&world, took)
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
    allow_open_files(needed).map_err(|limit| SimError::OpenFiles {
        devices,
        needed,
        limit,
    })
}

fn set_stage(world: &World, stage: Stage, alarms: &[Arc<Ready>]) {
    world.set_stage(stage);
    for alarm in alarms {
        alarm.wake_worker();
    }
}

fn start_fleet(world: &Arc<World>) -> (Vec<JoinHandle<()>>, Vec<Arc<Ready>>) {
    let indexes = |client: ClientKind| {
        let cohorts = world.plan.cohorts.iter();
        let chosen = cohorts.filter(move |cohort| cohort.client == client);
        chosen.flat_map(|cohort| cohort.indexes())
    };
    let real = indexes(ClientKind::Rumqttc);
    let real = real.map(|index| tokio::spawn(real_client::run(world.clone(), index)));
    let mut tasks: Vec<JoinHandle<()>> = real.collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = cores.min(WORKERS_MAX);
    let mut alarms = Vec::new();
    for offset in 0..workers {
        let devices = indexes(ClientKind::Simulated);
        let worker = Worker::new(world.clone(), devices.skip(offset).step_by(workers));
        alarms.push(worker.alarm());
        tasks.push(tokio::spawn(tokio::task::unconstrained(worker)));
    }
    (tasks, alarms)
}

/// Waits until the run is over, showing what happens; returns how long it took. One interrupt ends
/// publishing, a second one the wait for what is on its way.
async fn watch_fleet(
    world: &World,
    alarms: &[Arc<Ready>],
    live: &mut Live,
) -> Result<Duration, SimError> {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut is_interrupted = false;
    let mut settled_at = None;
    let mut drain_until = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut interrupted => {
                if is_interrupted {
                    return Ok(world.clock.now());
                }
                is_interrupted = true;
                interrupted.set(tokio::signal::ctrl_c());
                world.interrupt();
            }
        }
        let now = world.clock.now();
        live.tick(world)?;
        let over = now >= world.publish_until();
        if over && drain_until.is_none() {
            drain_until = Some(now + world.plan.drain_max);
            set_stage(world, Stage::Draining, alarms);
        }
        if drain_until.is_some() && world.is_settled() {
            settled_at = settled_at.or(Some(now));
        } else {
            settled_at = None;
        }
        let is_quiet = settled_at.is_some_and(|at| now >= at + STRAGGLERS);
        if is_quiet || drain_until.is_some_and(|until| now >= until) {
            return Ok(now);
        }
    }
}

/// Removes the sessions that devices asked the broker to keep.
async fn forget_devices(world: &Arc<World>) {
    let kept = |cohort: &&crate::plan::Cohort| cohort.session != Session::Clean;
    let cohorts = world.plan.cohorts.iter().filter(kept);
    let devices: Vec<u32> = cohorts.flat_map(|cohort| cohort.indexes()).collect();
    let mut tidiers = JoinSet::new();
    for offset in 0..TIDY_AT_ONCE {
        let world = world.clone();
        let devices: Vec<u32> = devices
            .iter()
            .copied()
            .skip(offset)
            .step_by(TIDY_AT_ONCE)
            .collect();
        tidiers.spawn(async move {
            for (done, device) in devices.iter().enumerate() {
                let client_id = world.client_id(*device);
                if forget_session(&world, &client_id).await.is_err() {
                    // A broker that is gone would keep us waiting for each of them.
                    let left = (devices.len() - done) as u64;
                    world.verifier.uncleaned.fetch_add(left, Ordering::Relaxed);
                    return;
                }
            }
        });
    }
    tidiers.join_all().await;
}
