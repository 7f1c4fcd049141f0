//! Simulated fleets against our broker: certificates of their own, storms, WebSocket, aliases, commands, rumqttc.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq_certs::Authority;
use motemq_sim::link::Preset;
use motemq_sim::plan::{ClientKind, Cohort, Commands, Event, Jitter, Phase, Plan, Reconnect};
use motemq_sim::profile::Profile;
use motemq_sim::wire::Version;
use motemq_sim::{Report, TlsFiles, TlsGroup, TlsPlan, TlsVersion};
use motemq_tests::in_process::InProcess;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const DEVICES: u32 = 40;

#[test]
fn a_fleet_behind_mutual_tls_weathers_a_storm_with_tickets() {
    for version in [TlsVersion::V13, TlsVersion::V12] {
        let tls = TlsPlan {
            version: Some(version),
            ..TlsPlan::default()
        };
        let report = storm(tls);
        assert_eq!(handshakes(&report), (40, 12), "{version:?}");
    }
}

#[test]
fn devices_without_tickets_do_full_handshakes_with_the_group_they_prefer() {
    let report = storm(TlsPlan {
        groups: vec![TlsGroup::Secp256r1],
        resumption: false,
        ..TlsPlan::default()
    });
    assert_eq!(handshakes(&report), (52, 0));
}

#[test]
fn devices_over_websocket_save_bytes_with_aliases_and_lose_nothing() {
    let site = Site::new();
    let broker = site.start();
    let up_bytes = [false, true].map(|topic_alias| {
        let mut meters = meters(Duration::from_millis(100));
        (meters.version, meters.topic_alias) = (Version::V5, topic_alias);
        let report = run(&Plan {
            phases: Vec::new(),
            ..site.plan(
                format!("ws://127.0.0.1:{}", broker.address("ws").port()),
                meters,
            )
        });
        expect_all_delivered(&report);
        report.measured.total.up_bytes
    });
    broker.stop();
    let [in_full, by_alias] = up_bytes;
    assert!(by_alias < in_full, "{by_alias} and {in_full} bytes");
}

#[test]
fn smart_plugs_that_are_killed_get_every_command_over_websocket() {
    let site = Site::new();
    let broker = site.start();
    let mut plugs = meters(Duration::from_millis(300));
    plugs.profile = Profile::named("smart-plug").unwrap();
    (plugs.version, plugs.topic_alias) = (Version::V5, true);
    plugs.take_commands(Commands::new(Duration::from_millis(100), 1));
    let address = format!("ws://127.0.0.1:{}", broker.address("ws").port());
    let report = run(&site.plan(address, plugs));
    broker.stop();
    expect_all_delivered(&report);
    let figures = &report.measured.total;
    assert_eq!((figures.killed, figures.reconnects), (12, 12));
    let commands = report.outcome.commands.unwrap();
    assert_eq!((commands.lost, commands.unfinished), (0, 0));
    assert!(commands.published > 100, "{commands:?}");
    assert_eq!(commands.delivered, commands.published);
}

#[test]
fn rumqttc_devices_show_their_certificates_in_both_versions() {
    let site = Site::new();
    let broker = site.start();
    let address = format!("mqtts://localhost:{}", broker.address("mqtts").port());
    for (version, qos) in [(Version::V4, 1), (Version::V5, 2)] {
        let mut meters = meters(Duration::from_millis(100));
        (meters.client, meters.version, meters.qos) = (ClientKind::Rumqttc, version, qos);
        meters.tls.manifest = Some(site.path("fleet.csv"));
        let report = run(&Plan {
            phases: Vec::new(),
            ..site.plan(address.clone(), meters)
        });
        expect_all_delivered(&report);
        assert_eq!(report.measured.total.connection_failures, 0);
    }
    broker.stop();
}

fn expect_all_delivered(report: &Report) {
    let outcome = &report.outcome;
    assert_eq!(outcome.violations, [""; 0]);
    assert_eq!((outcome.total.lost, outcome.total.unfinished), (0, 0));
    assert_eq!(outcome.total.delivered, outcome.total.published);
    assert!(outcome.total.published >= u64::from(DEVICES));
    assert_eq!(report.measured.total.connected, u64::from(DEVICES));
    assert_eq!(report.measured.verifier.uncleaned, 0);
}

/// 12 of 40 devices lose their connections and come back; nothing else is lost.
fn storm(tls: TlsPlan) -> Report {
    let site = Site::new();
    let broker = site.start();
    let mut meters = meters(Duration::from_millis(300));
    meters.tls = TlsPlan {
        manifest: Some(site.path("fleet.csv")),
        ..tls
    };
    let address = format!("mqtts://localhost:{}", broker.address("mqtts").port());
    let report = run(&site.plan(address, meters));
    broker.stop();
    let (outcome, figures) = (&report.outcome, &report.measured.total);
    assert_eq!(outcome.violations, [""; 0]);
    assert_eq!((figures.killed, figures.reconnects), (12, 12));
    assert_eq!((outcome.total.lost, outcome.total.unfinished), (0, 0));
    assert_eq!(figures.connected, u64::from(DEVICES));
    let uncleaned = report.measured.verifier.uncleaned;
    assert_eq!(uncleaned, 0, "sessions are removed by their owners");
    report
}

/// How many were full, and how many resumed.
fn handshakes(report: &Report) -> (u64, u64) {
    let figures = &report.measured.total;
    (figures.tls_full, figures.tls_resumed)
}

/// An authority, a batch of devices with its manifest, and a broker that ties client ids to certificates.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let site = Self { folder };
        let authority = Authority::create(&site.path("pki"), "test").unwrap();
        let server = authority.issue_server(&["localhost".to_owned()]).unwrap();
        server
            .write(&site.path("server.crt"), &site.path("server.key"))
            .unwrap();
        let mut manifest = "id,serial_hex,cert_file,key_file\n".to_owned();
        // The last one is the verifier's.
        for number in 0..=DEVICES {
            let id = format!("meter-{number:06}");
            let [certificate, key] = ["crt", "key"].map(|end| site.path(&format!("{id}.{end}")));
            authority
                .issue_device(&id)
                .unwrap()
                .write(&certificate, &key)
                .unwrap();
            let (certificate, key) = (certificate.display(), key.display());
            writeln!(manifest, "{id},00,{certificate},{key}").unwrap();
        }
        std::fs::write(site.path("fleet.csv"), manifest).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self) -> InProcess {
        let file = self.path("motemq.toml");
        let text = "data_dir = \"data\"\n[http]\nbind = \"\"\n[[listeners]]\nname = \"mqtts\"\nbind = \"127.0.0.1:0\"\n\
                    client_id = \"user\"\n[listeners.tls]\ncert = \"server.crt\"\nkey = \"server.key\"\nclient_ca = \"pki/ca.crt\"\n\
                    [[listeners]]\nname = \"ws\"\nbind = \"127.0.0.1:0\"\nprotocol = \"ws\"\nanonymous = true\n";
        std::fs::write(&file, text).unwrap();
        InProcess::from_file(&file).0
    }

    /// 12 of 40 devices are killed after half a second.
    fn plan(&self, endpoint: String, cohort: Cohort) -> Plan {
        Plan {
            run: "storm".to_owned(),
            name: "storm".to_owned(),
            digest: String::new(),
            endpoint: endpoint.parse().unwrap(),
            tls_files: TlsFiles {
                authority: Some(self.path("pki/ca.crt")),
                ..TlsFiles::default()
            },
            login: None,
            source_addresses: Vec::new(),
            cohorts: vec![cohort],
            phases: vec![Phase {
                at: Duration::from_millis(500),
                cohort: None,
                share: 0.3,
                event: Event::Kill(None),
            }],
            thresholds: Vec::new(),
            duration: Duration::from_secs(1),
            drain_max: Duration::from_secs(20),
            seed: 42,
        }
    }
}

fn meters(every: Duration) -> Cohort {
    let profile = Profile::named("power-meter").unwrap();
    let preset = Preset::named("none").unwrap();
    let mut cohort = Cohort::new("meters", 0, DEVICES, profile, preset, 1, every);
    cohort.topic = "sim/{run}/{id}/power".parse().unwrap();
    cohort.ramp.connects_per_s = 200.0;
    cohort.reconnect = Reconnect::Exponential {
        base: Duration::from_millis(50),
        cap: Duration::from_secs(1),
        jitter: Jitter::Full,
    };
    cohort
}

fn run(plan: &Plan) -> Report {
    Runtime::new()
        .unwrap()
        .block_on(motemq_sim::run(plan.clone()))
        .unwrap()
}
