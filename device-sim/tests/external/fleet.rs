//! Fleets against mosquitto, which is not ours: what it acknowledges, it delivers, so nothing may count as lost.

use super::programs::Mosquitto;
use motemq_sim::link::Preset;
use motemq_sim::plan::{ClientKind, Cohort, Commands, Plan};
use motemq_sim::profile::Profile;
use motemq_sim::wire::Version;
use motemq_sim::{Report, TlsFiles};
use std::time::Duration;

const DEVICES: u32 = 20;

#[tokio::test]
#[ignore = "needs programs that .ci/run installs"]
async fn nothing_is_lost_with_mqtt_5_and_topic_aliases() {
    let mosquitto = Mosquitto::start();
    let mut up_bytes = [0, 0];
    for (topic_alias, bytes) in [false, true].into_iter().zip(&mut up_bytes) {
        let mut cohort = cohort(Version::V5, 1);
        cohort.topic_alias = topic_alias;
        *bytes = run(&tcp(&mosquitto), cohort).await.measured.total.up_bytes;
    }
    let [in_full, by_alias] = up_bytes;
    assert!(by_alias < in_full, "{by_alias} and {in_full} bytes");
}

#[tokio::test]
#[ignore = "needs programs that .ci/run installs"]
async fn nothing_is_lost_at_qos_2_in_both_versions() {
    let mosquitto = Mosquitto::start();
    for version in [Version::V4, Version::V5] {
        let report = run(&tcp(&mosquitto), cohort(version, 2)).await;
        assert_eq!(report.outcome.total.duplicated, 0);
    }
}

#[tokio::test]
#[ignore = "needs programs that .ci/run installs"]
async fn nothing_is_lost_over_websocket_in_both_versions() {
    let mosquitto = Mosquitto::start();
    let endpoint = format!("ws://127.0.0.1:{}/mqtt", mosquitto.websocket_port);
    for version in [Version::V4, Version::V5] {
        let mut cohort = cohort(version, 1);
        cohort.topic_alias = version == Version::V5;
        run(&endpoint, cohort).await;
    }
}

#[tokio::test]
#[ignore = "needs programs that .ci/run installs"]
async fn commands_reach_smart_plugs_in_both_versions() {
    let mosquitto = Mosquitto::start();
    for version in [Version::V4, Version::V5] {
        let mut cohort = cohort(version, 1);
        cohort.profile = Profile::named("smart-plug").unwrap();
        cohort.take_commands(Commands::new(Duration::from_millis(100), 1));
        let report = run(&tcp(&mosquitto), cohort).await;
        let commands = report.outcome.commands.unwrap();
        assert_eq!((commands.lost, commands.unfinished), (0, 0));
        assert!(commands.published > 50, "{commands:?}");
        assert_eq!(commands.delivered, commands.published);
    }
}

#[tokio::test]
#[ignore = "needs programs that .ci/run installs"]
async fn nothing_is_lost_by_rumqttc_in_both_versions() {
    let mosquitto = Mosquitto::start();
    for (version, qos) in [
        (Version::V4, 1),
        (Version::V5, 0),
        (Version::V5, 1),
        (Version::V5, 2),
    ] {
        let mut cohort = cohort(version, qos);
        cohort.client = ClientKind::Rumqttc;
        let report = run(&tcp(&mosquitto), cohort).await;
        let (outcome, figures) = (&report.outcome.total, &report.measured.total);
        let acknowledged = if qos == 0 { 0 } else { outcome.published };
        assert_eq!(outcome.acknowledged, acknowledged);
        assert_eq!(figures.connection_failures, 0);
    }
    // A run with 3.1.1, which also removes the sessions of QoS 2 at the end, and three with 5.
    let connected = ["p2", "p5"].map(|version| mosquitto.connected_devices(version));
    assert_eq!(connected, [40, 60]);
}

fn tcp(mosquitto: &Mosquitto) -> String {
    format!("mqtt://127.0.0.1:{}", mosquitto.port)
}

fn cohort(version: Version, qos: u8) -> Cohort {
    let profile = Profile::named("power-meter").unwrap();
    let preset = Preset::named("none").unwrap();
    let every = Duration::from_millis(100);
    let mut cohort = Cohort::new("meters", 0, DEVICES, profile, preset, qos, every);
    cohort.version = version;
    cohort.ramp.connects_per_s = 200.0;
    cohort
}

/// Nothing is lost.
async fn run(endpoint: &str, cohort: Cohort) -> Report {
    let what = format!("{endpoint} {} QoS {}", cohort.version, cohort.qos);
    let plan = Plan {
        run: Plan::new_run_name(),
        name: "external".to_owned(),
        digest: String::new(),
        endpoint: endpoint.parse().unwrap(),
        tls_files: TlsFiles::default(),
        login: None,
        source_addresses: Vec::new(),
        cohorts: vec![cohort],
        phases: Vec::new(),
        thresholds: Vec::new(),
        duration: Duration::from_millis(700),
        drain_max: Duration::from_secs(10),
        seed: 42,
    };
    let report = motemq_sim::run(plan).await.unwrap();
    let (outcome, verifier) = (&report.outcome, &report.measured.verifier);
    assert_eq!(outcome.violations, [""; 0], "{what}");
    let (total, devices) = (&outcome.total, u64::from(DEVICES));
    assert_eq!((total.lost, total.unfinished), (0, 0), "{what}");
    assert!(total.published >= 5 * devices, "{what}: {total:?}");
    assert_eq!(total.delivered, total.published, "{what}");
    assert_eq!(report.measured.total.connected, devices, "{what}");
    assert_eq!(verifier.uncleaned, 0, "{what}");
    report
}
