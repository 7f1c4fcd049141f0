//! Fleets whose devices are killed and cut off, against a broker that keeps every promise.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use bytes::BytesMut;
use motemq_sim::link::Preset;
use motemq_sim::plan::{Cohort, Event, Jitter, Phase, Plan, RampShape, Reconnect};
use motemq_sim::profile::Profile;
use motemq_sim::{Report, TlsFiles};
use mqttbytes::v4::{self, Packet};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

const BACKOFF: Reconnect = Reconnect::Exponential {
    base: Duration::from_millis(50),
    cap: Duration::from_millis(400),
    jitter: Jitter::Full,
};

#[tokio::test]
async fn a_storm_loses_nothing_and_everybody_comes_back() {
    let (report, seen) = run(200, vec![kill(0.3, None)]).await;
    assert_eq!(report.outcome.violations, [""; 0]);
    assert_eq!(report.measured.total.killed, 60);
    assert_eq!(report.measured.total.reconnects, 60);
    assert_eq!(report.measured.total.reconnect_seconds.count, 60);
    assert_eq!(report.measured.total.connected, 200);
    assert_eq!(report.outcome.total.lost, 0);
    assert_eq!(report.outcome.total.unfinished, 0);
    assert_eq!(
        seen.resets.len(),
        60,
        "killed devices reset their connections"
    );
    assert_eq!(report.measured.connect_costs[0].seconds.count, 260);
}

#[tokio::test]
async fn one_seed_kills_the_same_devices() {
    let phases = || vec![kill(0.3, None), kill(0.1, None)];
    let (_, first) = run(50, phases()).await;
    let (_, second) = run(50, phases()).await;
    assert_eq!(first.resets, second.resets);
    assert!(first.resets.len() >= 15, "{:?}", first.resets);
}

#[tokio::test]
async fn a_policy_that_comes_with_a_kill_replaces_the_cohorts() {
    let (report, _) = run(20, vec![kill(0.5, Some(Reconnect::Never))]).await;
    assert_eq!(report.measured.total.killed, 10);
    assert_eq!(report.measured.total.reconnects, 0);
    assert_eq!(report.measured.total.connected, 10);
    // They go on measuring, and have nobody to tell.
    assert!(report.outcome.total.unfinished > 0);
    assert_eq!(report.outcome.violations, [""; 0]);
}

#[tokio::test]
async fn a_connection_survives_a_short_partition() {
    let phase = Phase {
        event: Event::Partition(Duration::from_millis(200)),
        ..kill(1.0, None)
    };
    let (report, seen) = run(20, vec![phase]).await;
    assert_eq!(report.measured.total.partitioned, 20);
    assert_eq!(
        (
            report.measured.total.reconnects,
            report.measured.total.connection_failures
        ),
        (0, 0)
    );
    assert!(seen.resets.is_empty());
    assert_eq!(
        (report.outcome.total.lost, report.outcome.total.unfinished),
        (0, 0)
    );
    assert!(
        report.measured.total.publish_ack_seconds.max > 0.15,
        "{:?}",
        report.measured.total.publish_ack_seconds
    );
}

#[tokio::test]
async fn phases_of_a_cohort_leave_the_others_alone() {
    let mut plan = plan(20, vec![kill(1.0, None)]);
    let others = Cohort {
        name: "others".to_owned(),
        first: 20,
        devices: 10,
        ..plan.cohorts[0].clone()
    };
    plan.cohorts.push(others);
    plan.phases[0].cohort = Some("others".to_owned());
    let (report, seen) = run_plan(plan).await;
    assert_eq!(report.measured.total.killed, 10);
    let name = |device: u32| format!("-{device:06}");
    let is_other = |id: &String| (20..30).any(|device| id.ends_with(&name(device)));
    assert_eq!(seen.resets.len(), 10);
    assert!(seen.resets.iter().all(is_other), "{:?}", seen.resets);
}

#[tokio::test]
async fn devices_come_up_in_every_rhythm_within_the_ramp() {
    for shape in [RampShape::Linear, RampShape::Step, RampShape::Poisson] {
        let mut plan = plan(100, Vec::new());
        plan.cohorts[0].ramp.shape = shape;
        let (report, _) = run_plan(plan).await;
        assert_eq!(report.measured.total.connected, 100, "{shape:?}");
        assert_eq!(report.outcome.violations, [""; 0]);
    }
}

fn kill(share: f64, reconnect: Option<Reconnect>) -> Phase {
    Phase {
        at: Duration::from_millis(200),
        cohort: None,
        share,
        event: Event::Kill(reconnect),
    }
}

async fn run(devices: u32, phases: Vec<Phase>) -> (Report, Seen) {
    run_plan(plan(devices, phases)).await
}

async fn run_plan(mut plan: Plan) -> (Report, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    plan.endpoint = format!("mqtt://{address}").parse().unwrap();
    let broker = Arc::new(Broker::default());
    let serving = tokio::spawn(serve(listener, broker.clone()));
    let report = motemq_sim::run(plan).await.unwrap();
    serving.abort();
    let seen = std::mem::take(&mut *broker.seen.lock().unwrap());
    (report, seen)
}

fn plan(devices: u32, phases: Vec<Phase>) -> Plan {
    let mut cohort = Cohort::new(
        "meters",
        0,
        devices,
        Profile::named("power-meter").unwrap(),
        Preset::named("none").unwrap(),
        1,
        Duration::from_millis(200),
    );
    cohort.ramp.connects_per_s = 1_000.0;
    cohort.reconnect = BACKOFF;
    Plan {
        run: "storm".to_owned(),
        name: "storm".to_owned(),
        digest: String::new(),
        endpoint: "mqtt://127.0.0.1".parse().unwrap(),
        tls_files: TlsFiles::default(),
        login: None,
        source_addresses: Vec::new(),
        cohorts: vec![cohort],
        phases,
        thresholds: Vec::new(),
        duration: Duration::from_millis(800),
        drain_max: Duration::from_millis(1_500),
        seed: 42,
    }
}

/// A broker that relays everything to the verifier.
#[derive(Default)]
struct Broker {
    verifier: Mutex<Option<UnboundedSender<Packet>>>,
    seen: Mutex<Seen>,
}

/// What it saw of its clients.
#[derive(Default)]
struct Seen {
    /// Ids of clients that broke off without a word.
    resets: BTreeSet<String>,
}

async fn serve(listener: TcpListener, broker: Arc<Broker>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve_client(stream, broker.clone()));
    }
}

async fn serve_client(stream: TcpStream, broker: Arc<Broker>) {
    let (mut source, mut sink) = stream.into_split();
    let (answers, mut queue) = unbounded_channel::<Packet>();
    tokio::spawn(async move {
        while let Some(packet) = queue.recv().await {
            if sink.write_all(&encode(&packet)).await.is_err() {
                return;
            }
        }
    });
    let (mut bytes, mut id) = (BytesMut::new(), String::new());
    loop {
        match source.read_buf(&mut bytes).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(_) => {
                broker.seen.lock().unwrap().resets.insert(id);
                return;
            }
        }
        while let Ok(packet) = v4::read(&mut bytes, 10_000) {
            if let Packet::Connect(connect) = &packet {
                id.clone_from(&connect.client_id);
            }
            if let Some(answer) = broker.handle(packet, &answers) {
                let _ = answers.send(answer);
            }
        }
    }
}

impl Broker {
    fn handle(&self, packet: Packet, answers: &UnboundedSender<Packet>) -> Option<Packet> {
        match packet {
            Packet::Connect(_) => {
                let code = v4::ConnectReturnCode::Success;
                Some(Packet::ConnAck(v4::ConnAck::new(code, false)))
            }
            Packet::Subscribe(subscribe) => {
                *self.verifier.lock().unwrap() = Some(answers.clone());
                let code = v4::SubscribeReasonCode::Success(subscribe.filters[0].qos);
                Some(Packet::SubAck(v4::SubAck::new(subscribe.pkid, vec![code])))
            }
            Packet::Publish(publish) => {
                let ack = v4::PubAck::new(publish.pkid);
                if let Some(verifier) = &*self.verifier.lock().unwrap() {
                    let _ = verifier.send(Packet::Publish(publish));
                }
                Some(Packet::PubAck(ack))
            }
            _ => None,
        }
    }
}

fn encode(packet: &Packet) -> BytesMut {
    let mut bytes = BytesMut::new();
    match packet {
        Packet::ConnAck(packet) => packet.write(&mut bytes),
        Packet::SubAck(packet) => packet.write(&mut bytes),
        Packet::Publish(packet) => packet.write(&mut bytes),
        Packet::PubAck(packet) => packet.write(&mut bytes),
        _ => Ok(0),
    }
    .unwrap();
    bytes
}
