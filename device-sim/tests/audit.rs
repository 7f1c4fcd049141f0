//! The audit against brokers that break their promises on purpose, and against one that does not.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

use bytes::BytesMut;
use motemq_sim::diff::{Parsed, compare};
use motemq_sim::link::Preset;
use motemq_sim::output::{Output, OutputArguments};
use motemq_sim::plan::{ClientKind, Cohort, Plan, Reconnect};
use motemq_sim::profile::Profile;
use motemq_sim::threshold::Threshold;
use motemq_sim::{Report, SimError, TlsFiles};
use mqttbytes::v4::{self, Packet};
use mqttbytes::{QoS, v4::SubscribeReasonCode};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// What the double does to one message in ten on its way to the verifier.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Drop,
    Double,
    /// The message waits for the next one of any device; with one device that is its own.
    Delay,
}

#[tokio::test]
async fn an_honest_broker_passes_at_every_qos_with_both_clients() {
    for (qos, client) in [
        (0, ClientKind::Simulated),
        (1, ClientKind::Simulated),
        (2, ClientKind::Simulated),
        (1, ClientKind::Rumqttc),
    ] {
        let report = run(qos, client, Fault::None).await;
        assert_eq!(report.outcome.violations, [""; 0], "QoS {qos} {client:?}");
        assert!(report.outcome.total.published > 20);
        assert_eq!(
            report.outcome.total.delivered,
            report.outcome.total.published
        );
        assert_eq!(report.measured.verifier.uncleaned, 0);
        let acknowledged = if qos == 0 {
            0
        } else {
            report.outcome.total.published
        };
        assert_eq!(report.outcome.total.acknowledged, acknowledged);
    }
}

#[tokio::test]
async fn a_broker_that_drops_acknowledged_messages_is_caught() {
    for qos in [1, 2] {
        let report = run(qos, ClientKind::Simulated, Fault::Drop).await;
        assert!(report.outcome.total.lost > 0);
        assert_eq!(
            report.outcome.total.lost,
            report.outcome.total.acknowledged - report.outcome.total.delivered
        );
        assert!(!report.outcome.violations.is_empty());
    }
}

#[tokio::test]
async fn a_broker_that_delivers_twice_is_caught_at_qos_2_and_counted_at_qos_1() {
    for (qos, is_violation) in [(1, false), (2, true)] {
        let report = run(qos, ClientKind::Simulated, Fault::Double).await;
        assert!(report.duplicated() > 0);
        assert_eq!(report.outcome.total.lost, 0);
        assert_eq!(!report.outcome.violations.is_empty(), is_violation);
    }
}

#[tokio::test]
async fn a_broker_that_reorders_is_caught() {
    let report = run(1, ClientKind::Simulated, Fault::Delay).await;
    assert!(report.outcome.total.reordered > 0);
    assert_eq!(report.duplicated(), 0);
    assert!(!report.outcome.violations.is_empty());
}

#[tokio::test]
async fn one_seed_gives_one_plan_and_one_outcome() {
    for qos in 0..=2 {
        let (first, second) = tokio::join!(
            run(qos, ClientKind::Simulated, Fault::None),
            run(qos, ClientKind::Simulated, Fault::None),
        );
        assert_ne!(first.measured.run, second.measured.run);
        assert_eq!(first.plan, second.plan);
        assert_eq!(first.outcome, second.outcome);
        let bytes = |report: &Report| report.measured.total.up_bytes;
        assert_eq!(bytes(&first), bytes(&second));
    }
}

#[tokio::test]
async fn another_seed_gives_another_outcome() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let broker = tokio::spawn(serve(listener, Fault::None));
    let mut plan = plan(address, 1, ClientKind::Simulated);
    plan.seed = 43;
    let other = motemq_sim::run(plan).await.unwrap();
    broker.abort();
    let first = run(1, ClientKind::Simulated, Fault::None).await;
    assert_ne!(first.plan, other.plan);
    assert_ne!(
        first.outcome.published_digest,
        other.outcome.published_digest
    );
}

#[tokio::test]
async fn what_a_run_showed_remains_in_files() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let broker = tokio::spawn(serve(listener, Fault::None));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| Some(folder.path().join(name));
    let arguments = OutputArguments {
        json: path("run.json"),
        html: path("run.html"),
        hdr: path("run.hlog"),
        metrics: Some("127.0.0.1:0".parse().unwrap()),
        quiet: true,
    };
    let output = Output::open(&arguments).unwrap();
    let mut plan = plan(address, 1, ClientKind::Simulated);
    plan.duration = Duration::from_millis(1_200);
    let report = motemq_sim::run_with(plan, output).await.unwrap();
    broker.abort();
    let read = |path: &Option<PathBuf>| std::fs::read(path.as_ref().unwrap()).unwrap();
    let json = Parsed::read(&read(&arguments.json)).unwrap();
    let report = Parsed::read(&serde_json::to_vec(&report).unwrap()).unwrap();
    let comparison = compare(&json, &report);
    assert!(comparison.equal, "{comparison}");
    assert!(read(&arguments.html).ends_with(b"</html>\n"));
    let log = String::from_utf8(read(&arguments.hdr)).unwrap();
    // An interval that began with the run, and one after it.
    assert!(log.matches("Tag=meters.delivery,").count() >= 2, "{log}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[tokio::test]
async fn a_run_that_cannot_take_place_leaves_the_old_report_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    std::fs::write(&path, "old").unwrap();
    let arguments = OutputArguments {
        json: Some(path.clone()),
        quiet: true,
        ..OutputArguments::default()
    };
    let output = Output::open(&arguments).unwrap();
    let nobody = "127.0.0.1:1".parse().unwrap();
    let plan = plan(nobody, 1, ClientKind::Simulated);
    assert!(motemq_sim::run_with(plan, output).await.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_threshold_that_names_no_figure_is_an_error_before_the_run() {
    let mut plan = plan("127.0.0.1:1".parse().unwrap(), 1, ClientKind::Simulated);
    plan.thresholds.push(Threshold {
        figure: "losst".to_owned(),
        demand: "== 0".parse().unwrap(),
    });
    let error = motemq_sim::run(plan).await.unwrap_err();
    assert!(
        error.to_string().contains("did you mean \"lost\"?"),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_broker_is_explained() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = motemq_sim::run(plan(address, 1, ClientKind::Simulated)).await;
    let error = error.unwrap_err();
    assert!(matches!(error, SimError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("is the broker running?"));
}

async fn run(qos: u8, client: ClientKind, fault: Fault) -> Report {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let broker = tokio::spawn(serve(listener, fault));
    let report = motemq_sim::run(plan(address, qos, client)).await.unwrap();
    broker.abort();
    report
}

fn plan(address: SocketAddr, qos: u8, client: ClientKind) -> Plan {
    let mut cohort = Cohort::new(
        "meters",
        0,
        1,
        Profile::named("power-meter").unwrap(),
        Preset::named("none").unwrap(),
        qos,
        Duration::from_millis(10),
    );
    cohort.client = client;
    cohort.ramp.connects_per_s = 1_000.0;
    cohort.reconnect = Reconnect::Fixed(Duration::from_millis(50));
    Plan {
        run: Plan::new_run_name(),
        name: "audit".to_owned(),
        digest: String::new(),
        endpoint: format!("mqtt://{address}").parse().unwrap(),
        tls_files: TlsFiles::default(),
        login: None,
        source_addresses: Vec::new(),
        cohorts: vec![cohort],
        phases: Vec::new(),
        thresholds: Vec::new(),
        duration: Duration::from_millis(400),
        drain_max: Duration::from_millis(700),
        seed: 42,
    }
}

/// Packets for the verifier; empty until it is there.
type Outlet = Arc<Mutex<Option<UnboundedSender<Packet>>>>;

async fn serve(listener: TcpListener, fault: Fault) {
    let outlet = Outlet::default();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve_client(stream, outlet.clone(), fault));
    }
}

async fn serve_client(stream: TcpStream, outlet: Outlet, fault: Fault) {
    let (mut source, mut sink) = stream.into_split();
    let (answers, mut queue) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(packet) = queue.recv().await {
            if sink.write_all(&encode(&packet)).await.is_err() {
                return;
            }
        }
    });
    let mut bytes = BytesMut::new();
    let mut delivery = Delivery {
        fault,
        outlet,
        count: 0,
        delayed: None,
    };
    while source
        .read_buf(&mut bytes)
        .await
        .is_ok_and(|length| length > 0)
    {
        while let Ok(packet) = v4::read(&mut bytes, 10_000) {
            if let Some(answer) = delivery.handle(packet, &answers) {
                let _ = answers.send(answer);
            }
        }
    }
}

/// What one connection does to the verifier's queue.
struct Delivery {
    fault: Fault,
    outlet: Outlet,
    count: u16,
    delayed: Option<v4::Publish>,
}

impl Delivery {
    fn handle(&mut self, packet: Packet, answers: &UnboundedSender<Packet>) -> Option<Packet> {
        match packet {
            Packet::Connect(_) => {
                let code = v4::ConnectReturnCode::Success;
                Some(Packet::ConnAck(v4::ConnAck::new(code, false)))
            }
            Packet::Subscribe(subscribe) => {
                *self.outlet.lock().unwrap() = Some(answers.clone());
                let code = SubscribeReasonCode::Success(subscribe.filters[0].qos);
                Some(Packet::SubAck(v4::SubAck::new(subscribe.pkid, vec![code])))
            }
            Packet::Publish(publish) => {
                let (id, qos) = (publish.pkid, publish.qos);
                self.relay(publish);
                match qos {
                    QoS::AtMostOnce => None,
                    QoS::AtLeastOnce => Some(Packet::PubAck(v4::PubAck::new(id))),
                    QoS::ExactlyOnce => Some(Packet::PubRec(v4::PubRec::new(id))),
                }
            }
            Packet::PubRec(received) => Some(Packet::PubRel(v4::PubRel::new(received.pkid))),
            Packet::PubRel(release) => Some(Packet::PubComp(v4::PubComp::new(release.pkid))),
            _ => None,
        }
    }

    fn relay(&mut self, publish: v4::Publish) {
        self.count += 1;
        let is_chosen = self.count % 10 == 5;
        match (self.fault, is_chosen) {
            (Fault::Drop, true) => return,
            (Fault::Double, true) => {
                let mut again = publish.clone();
                again.pkid += 30_000;
                self.deliver(again);
            }
            (Fault::Delay, true) => {
                self.delayed = Some(publish);
                return;
            }
            _ => {}
        }
        self.deliver(publish);
        if let Some(delayed) = self.delayed.take() {
            self.deliver(delayed);
        }
    }

    fn deliver(&self, publish: v4::Publish) {
        if let Some(outlet) = &*self.outlet.lock().unwrap() {
            let _ = outlet.send(Packet::Publish(publish));
        }
    }
}

fn encode(packet: &Packet) -> BytesMut {
    let mut bytes = BytesMut::new();
    let written = match packet {
        Packet::ConnAck(packet) => packet.write(&mut bytes),
        Packet::SubAck(packet) => packet.write(&mut bytes),
        Packet::Publish(packet) => packet.write(&mut bytes),
        Packet::PubAck(packet) => packet.write(&mut bytes),
        Packet::PubRec(packet) => packet.write(&mut bytes),
        Packet::PubRel(packet) => packet.write(&mut bytes),
        Packet::PubComp(packet) => packet.write(&mut bytes),
        other => panic!("the double never sends {other:?}"),
    };
    written.unwrap();
    bytes
}
