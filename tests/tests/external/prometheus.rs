//! Prometheus reads the broker: its tool finds nothing to say about the page, and its server scrapes it while a fleet publishes.

use motemq_sim::link::Preset;
use motemq_sim::plan::{Cohort, Plan};
use motemq_sim::profile::Profile;
use motemq_sim::{Report, TlsFiles};
use motemq_tests::in_process::InProcess;
use motemq_tests::kill_ledger::broker::free_port;
use motemq_tests::socket::Stopwatch;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn promtool_has_nothing_to_say_about_the_page() {
    let site = Site::start();
    // With values everywhere.
    site.publish();
    let page = get(site.http, "/metrics");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{said:?}");
    assert_eq!(said, ["", ""]);
    site.broker.stop();
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn prometheus_scrapes_a_broker_under_load_with_the_alert_rules() {
    let site = Site::start();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/alerts.yaml");
    let rules = std::fs::canonicalize(rules).ok();
    let prometheus = Prometheus::start(&site, rules.as_deref());
    let report = site.publish();
    let delivered = report.outcome.total.delivered;
    assert!(delivered > 0);
    prometheus.await_answer("up == 1");
    prometheus.await_answer(&format!(
        "sum(mqtt_broker_publish_total{{direction=\"in\"}}) >= {delivered}"
    ));
    prometheus.await_answer("sum(mqtt_broker_delivery_latency_seconds_count) > 0");
    // Every line of the page is a sample of the server.
    let page = get(site.http, "/metrics");
    let samples = page.lines().filter(|line| !line.starts_with('#')).count();
    prometheus.await_answer(&format!("scrape_samples_scraped == {samples}"));
    if rules.is_some() {
        prometheus.check_rules();
    }
    drop(prometheus);
    site.broker.stop();
}

struct Site {
    #[expect(dead_code, reason = "removes the folder at the end")]
    folder: TempDir,
    broker: InProcess,
    http: SocketAddr,
}

impl Site {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("motemq.toml");
        let text = "data_dir = \"data\"\n[http]\nbind = \"127.0.0.1:0\"\n\
                    [[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:0\"\nanonymous = true\n";
        std::fs::write(&file, text).unwrap();
        let broker = InProcess::from_file(&file).0;
        let http = broker.running().http().unwrap();
        Self {
            folder,
            broker,
            http,
        }
    }

    /// Forty meters publish for three seconds.
    fn publish(&self) -> Report {
        let profile = Profile::named("power-meter").unwrap();
        let preset = Preset::named("none").unwrap();
        let every = Duration::from_millis(100);
        let mut meters = Cohort::new("meters", 0, 40, profile, preset, 1, every);
        meters.topic = "sim/{run}/{id}/power".parse().unwrap();
        meters.ramp.connects_per_s = 200.0;
        let address = self.broker.address("mqtt");
        let plan = Plan {
            run: "scraped".to_owned(),
            name: "scraped".to_owned(),
            digest: String::new(),
            endpoint: format!("mqtt://{address}").parse().unwrap(),
            tls_files: TlsFiles::default(),
            login: None,
            source_addresses: Vec::new(),
            cohorts: vec![meters],
            phases: Vec::new(),
            thresholds: Vec::new(),
            duration: Duration::from_secs(3),
            drain_max: Duration::from_secs(20),
            seed: 42,
        };
        let runtime = Runtime::new().unwrap();
        runtime.block_on(motemq_sim::run(plan)).unwrap()
    }
}

/// A Prometheus that scrapes the broker every second.
struct Prometheus {
    #[expect(dead_code, reason = "removes the folder at the end")]
    folder: TempDir,
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(site: &Site, rules: Option<&Path>) -> Self {
        let folder = TempDir::new().unwrap();
        let configuration = folder.path().join("prometheus.yml");
        let rules = rules.map_or_else(String::new, |rules| {
            format!("rule_files: [\"{}\"]\n", rules.display())
        });
        let text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n{rules}\
             scrape_configs: [{{ job_name: motemq, static_configs: [{{ targets: [\"{}\"] }}] }}]\n",
            site.http
        );
        std::fs::write(&configuration, text).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            folder,
            child,
            address,
        }
    }

    /// Waits until a query has an answer.
    fn await_answer(&self, query: &str) {
        let mut encoded = String::new();
        for byte in query.bytes() {
            encoded += &format!("%{byte:02X}");
        }
        let watch = Stopwatch::start();
        loop {
            let answer = self.ask(&format!("/api/v1/query?query={encoded}"));
            let results = answer
                .as_ref()
                .and_then(|answer| answer["data"]["result"].as_array());
            if results.is_some_and(|results| !results.is_empty()) {
                return;
            }
            assert!(watch.elapsed() < PATIENCE, "{query}: {answer:?}");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// Every rule was evaluated, and none failed.
    fn check_rules(&self) {
        let watch = Stopwatch::start();
        loop {
            let answer = self.ask("/api/v1/rules").unwrap();
            let groups = answer["data"]["groups"].as_array().unwrap();
            let rules: Vec<&Value> = groups
                .iter()
                .flat_map(|group| group["rules"].as_array().unwrap())
                .collect();
            let health = |state: &str| rules.iter().filter(|rule| rule["health"] == state).count();
            assert_eq!(health("err"), 0, "{answer:#}");
            if !rules.is_empty() && health("ok") == rules.len() {
                return;
            }
            assert!(watch.elapsed() < PATIENCE, "{answer:#}");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    fn ask(&self, path: &str) -> Option<Value> {
        let socket = TcpStream::connect(self.address).ok()?;
        drop(socket);
        serde_json::from_str(&get(self.address, path)).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of an answer.
fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}

/// Rules may be evaluated once a minute only.
const PATIENCE: Duration = Duration::from_secs(90);
