//! Simulated fleets against our broker: certificates of their own, and storms.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq_certs::Authority;
use motemq_sim::link::Preset;
use motemq_sim::plan::{Cohort, Event, Jitter, Phase, Plan, Reconnect};
use motemq_sim::profile::Profile;
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

/// 12 of 40 devices lose their connections and come back; nothing else is lost.
fn storm(tls: TlsPlan) -> Report {
    let site = Site::new();
    let broker = site.start();
    let report = site.run(&broker, tls);
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
                    client_id = \"user\"\n[listeners.tls]\ncert = \"server.crt\"\nkey = \"server.key\"\nclient_ca = \"pki/ca.crt\"\n";
        std::fs::write(&file, text).unwrap();
        InProcess::from_file(&file).0
    }

    fn run(&self, broker: &InProcess, tls: TlsPlan) -> Report {
        let port = broker.address("mqtts").port();
        let profile = Profile::named("power-meter").unwrap();
        let preset = Preset::named("none").unwrap();
        let every = Duration::from_millis(300);
        let mut cohort = Cohort::new("meters", 0, DEVICES, profile, preset, 1, every);
        cohort.topic = "sim/{run}/{id}/power".parse().unwrap();
        cohort.ramp.connects_per_s = 200.0;
        cohort.reconnect = Reconnect::Exponential {
            base: Duration::from_millis(50),
            cap: Duration::from_secs(1),
            jitter: Jitter::Full,
        };
        cohort.tls = TlsPlan {
            manifest: Some(self.path("fleet.csv")),
            ..tls
        };
        let plan = Plan {
            run: "storm".to_owned(),
            name: "storm".to_owned(),
            digest: String::new(),
            endpoint: format!("mqtts://localhost:{port}").parse().unwrap(),
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
        };
        Runtime::new()
            .unwrap()
            .block_on(motemq_sim::run(plan))
            .unwrap()
    }
}
