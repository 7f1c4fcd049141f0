//! A run from beginning to end: verifier, fleet, live lines, drain, tidying up, report.

use crate::client::{ClientError, forget_session};
use crate::commander::{self, Commander};
use crate::endpoint::Endpoint;
use crate::fleet::{Ready, Worker};
use crate::open_files::allow_open_files;
use crate::output::{Live, Output};
use crate::plan::{ClientKind, Cohort, Plan};
use crate::report::Report;
use crate::signals::Signals;
use crate::steady::Mark;
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
use tokio::time::{MissedTickBehavior, sleep_until};

/// How long late duplicates may take after all has arrived.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// Workers beyond this would only contend for the ledger.
const WORKERS_MAX: usize = 4;
/// Connections that tidy up at the same time.
const TIDY_AT_ONCE: usize = 32;
/// How long a broker may take to remove the sessions of a run that does not begin.
const ABANDON_MAX: Duration = Duration::from_secs(2);

/// A run that took place.
#[derive(Debug)]
pub struct Finished {
    /// What it showed.
    pub report: Report,
    /// Why files are missing that were asked for.
    pub unwritten: Vec<SimError>,
}

/// Runs the plan in silence.
///
/// # Errors
/// The run could not take place; what a broker did wrong during a run is in the report instead.
pub async fn run(plan: Plan) -> Result<Report, SimError> {
    Ok(run_with(plan, Output::silent()).await?.report)
}

/// Runs the plan and shows it.
///
/// # Errors
/// The run could not take place.
pub async fn run_with(plan: Plan, output: Output) -> Result<Finished, SimError> {
    plan.check()?;
    check_open_files(plan.devices())?;
    let mut signals =
        Signals::listen().map_err(|_| SimError::Internal("signals cannot be listened to"))?;
    let world = Arc::new(World::new(plan).await?);
    let ready = tokio::select! {
        ready = get_ready(&world) => ready,
        () = signals.next() => Err(SimError::Interrupted),
    };
    let (verifier, commander) = match ready {
        Ok(ready) => ready,
        Err(error) => {
            abandon(&world, &mut signals).await;
            return Err(error);
        }
    };
    // However long the broker took so far: no device waited for it.
    world.clock.start();
    let (stop, stopped) = watch::channel(false);
    let mut commander = commander.map(|commander| tokio::spawn(commander.run(stopped.clone())));
    let mut verifier = tokio::spawn(verifier.run(stopped));

    let (workers, alarms) = start_fleet(&world);
    let mut live = output.start(&world)?;
    let took = watch_fleet(&world, &alarms, &mut live, &mut signals).await;
    world.record_memory();
    set_stage(&world, Stage::Finished, &alarms);
    for worker in workers {
        worker
            .await
            .map_err(|_| SimError::Internal("a worker panicked"))?;
    }
    // The verifier leaves when the sender says so or is gone.
    let _ = stop.send(true);
    let uncleaned = &world.verifier.uncleaned;
    let kept = kept_sessions(&world);
    uncleaned.fetch_add(kept.len() as u64, Ordering::Relaxed);
    let tidied = async {
        (&mut verifier)
            .await
            .map_err(|_| SimError::Internal("the verifier panicked"))?;
        if let Some(commander) = &mut commander {
            commander
                .await
                .map_err(|_| SimError::Internal("the commander panicked"))?;
        }
        forget_devices(&world, &kept).await;
        Ok::<(), SimError>(())
    };
    let is_tidy = tokio::select! {
        tidied = tidied => {
            tidied?;
            true
        }
        () = signals.next() => false,
    };
    if !is_tidy {
        let tasks = std::iter::once(&verifier).chain(&commander);
        let busy = tasks.filter(|task| !task.is_finished()).count();
        uncleaned.fetch_add(busy as u64, Ordering::Relaxed);
    }
    let (report, unwritten) = live.finish(&world, took);
    Ok(Finished { report, unwritten })
}

/// Has everybody listen who has to before the first device connects.
async fn get_ready(world: &Arc<World>) -> Result<(Verifier, Option<Commander>), SimError> {
    let verifier = Verifier::start(world.clone())
        .await
        .map_err(|source| cannot_verify(&world.plan.endpoint, source))?;
    let mut commander = Commander::new(world.clone());
    if let Some(commander) = &mut commander {
        commander.get_ready().await;
    }
    Ok((verifier, commander))
}

/// Removes what [`get_ready`] may have left on the broker, if that is quickly done.
async fn abandon(world: &World, signals: &mut Signals) {
    let forget = async {
        let is_gone = forget_session(world, world.verifier_id()).await.is_err();
        if !is_gone && commander::posts(world).next().is_some() {
            // A broker that fails now may keep it.
            let _ = forget_session(world, &commander::client_id(world)).await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(ABANDON_MAX, forget) => {}
        () = signals.next() => {}
    }
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

/// Waits until the run is over, showing what happens; returns how long it took. One request to end ends
/// publishing, a second one the wait for what is on its way.
async fn watch_fleet(
    world: &World,
    alarms: &[Arc<Ready>],
    live: &mut Live,
    signals: &mut Signals,
) -> Duration {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let steady_at = world.plan.steady_at();
    let mut is_interrupted = false;
    let mut settled_at = None;
    let mut drain_until = None;
    loop {
        // What is sampled at a moment must not wait for the next tick.
        let moment = match world.steady.has_begun() {
            true => world.publish_until(),
            false => steady_at.min(world.publish_until()),
        };
        tokio::select! {
            _ = ticks.tick() => {}
            () = sleep_until(world.clock.instant(moment)), if drain_until.is_none() => {}
            () = signals.next() => {
                if is_interrupted {
                    return world.clock.now();
                }
                is_interrupted = true;
                world.interrupt();
            }
        }
        let now = world.clock.now();
        if now >= steady_at && drain_until.is_none() {
            world.steady.begin(|| Mark::new(world, now));
        }
        live.tick(world);
        let over = now >= world.publish_until();
        if over && drain_until.is_none() {
            world.steady.end(|| Mark::new(world, now));
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
            return now;
        }
    }
}

/// The devices that asked the broker to keep their session.
fn kept_sessions(world: &World) -> Vec<u32> {
    let cohorts = world.plan.cohorts.iter();
    let kept = cohorts.filter(|cohort| cohort.session != Session::Clean);
    kept.flat_map(Cohort::indexes).collect()
}

/// Removes the sessions of these devices, which count as left on the broker so far.
async fn forget_devices(world: &Arc<World>, devices: &[u32]) {
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
            for device in devices {
                let client_id = world.client_id(device);
                if forget_session(&world, &client_id).await.is_err() {
                    // A broker that is gone would keep us waiting for each of them.
                    return;
                }
                world.verifier.uncleaned.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }
    tidiers.join_all().await;
}
