//! A broker in a process of its own, and a bystander who must not notice the attack.
//!
//! The process is this test binary again, told by an environment variable to be a broker: so its memory, CPU time and death
//! can be watched from outside, and no other program has to be built first.

use motemq::config::{Sources, load};
use motemq_codec::AckKind;
use motemq_tests::in_process::InProcess;
use motemq_tests::peer::{Got, Hello};
use motemq_tests::socket::{Client, Stopwatch};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// The broker under attack.
pub(super) struct Site {
    folder: TempDir,
    child: Child,
    port: u16,
    http: u16,
    /// Of the listeners behind the first.
    others: Vec<u16>,
    bystander: Option<Bystander>,
}

impl Site {
    /// A broker with every default, and a bystander.
    pub(super) fn start() -> Self {
        Self::start_with("")
    }

    /// A broker with these lines in `[limits]`, and a bystander.
    pub(super) fn start_with(limits: &str) -> Self {
        let mut site = Self::start_alone(limits);
        site.bystander = Some(Bystander::start(site.port));
        site
    }

    /// A broker with these lines in `[limits]`.
    pub(super) fn start_alone(limits: &str) -> Self {
        Self::start_from(tempfile::tempdir().unwrap(), limits, "")
    }

    /// A broker with these lines in `[limits]`, these tables, and what is in the folder.
    pub(super) fn start_from(folder: TempDir, limits: &str, tables: &str) -> Self {
        let configuration = format!(
            "data_dir = \"data\"\n\
             [[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:0\"\nanonymous = true\n\
             [limits]\n{limits}\n\
             [persistence]\ncache_bytes = \"1MiB\"\njournal_bytes_max = \"1MiB\"\n\
             [http]\nbind = \"127.0.0.1:0\"\n{tables}"
        );
        std::fs::write(folder.path().join("motemq.toml"), configuration).unwrap();
        let (child, http, ports) = spawn(folder.path());
        let (port, others) = ports.split_first().expect("a listener");
        Self {
            folder,
            child,
            port: *port,
            http,
            others: others.to_vec(),
            bystander: None,
        }
    }

    /// With a bystander from now on.
    pub(super) fn with_bystander(mut self) -> Self {
        self.bystander = Some(Bystander::start(self.port));
        self
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The port of the second listener.
    pub(super) fn second_port(&self) -> u16 {
        self.others.first().copied().expect("a second listener")
    }

    /// kill -9, then the same again.
    pub(super) fn kill_and_restart(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "{}", self.log());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let (child, http, ports) = spawn(self.folder.path());
        let (port, others) = ports.split_first().expect("a listener");
        (self.child, self.http, self.port) = (child, http, *port);
        self.others = others.to_vec();
    }

    /// Resident memory of the broker, in bytes.
    pub(super) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
        kilobytes.parse::<u64>().unwrap() * 1024
    }

    /// CPU time that the broker has used.
    pub(super) fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let of_task = |task: std::io::Result<std::fs::DirEntry>| {
            let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(tasks.filter_map(of_task).sum())
    }

    /// The HTTP port.
    pub(super) fn http(&self) -> u16 {
        self.http
    }

    /// How many series there are.
    pub(super) fn series(&self) -> usize {
        let text = self.metrics();
        text.lines().filter(|line| !line.starts_with('#')).count()
    }

    fn metrics(&self) -> String {
        let mut http = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).unwrap();
        http.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        http.read_to_string(&mut text).unwrap();
        text
    }

    /// The sum of a metric over its labels.
    pub(super) fn metric(&self, name: &str) -> f64 {
        let text = self.metrics();
        let of_line = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let is_whole = rest.starts_with(' ') || rest.starts_with('{');
            let (_, value) = rest.rsplit_once(' ')?;
            value.parse::<f64>().ok().filter(|_| is_whole)
        };
        text.lines().filter_map(of_line).sum::<f64>()
    }

    /// Waits until a metric is as wanted.
    pub(super) fn await_metric(&self, name: &str, is_reached: impl Fn(f64) -> bool) {
        let watch = Stopwatch::start();
        while !is_reached(self.metric(name)) {
            let value = self.metric(name);
            assert!(watch.elapsed() < PATIENCE, "{name} stays at {value}");
        }
    }

    /// What every attack must leave behind: the same process, no panic, a bystander who went on all the time.
    pub(super) fn finish(mut self) {
        if let Some(bystander) = self.bystander.take() {
            bystander.finish();
        }
        assert!(self.child.try_wait().unwrap().is_none(), "{}", self.log());
        assert_eq!(self.metric("mqtt_broker_connection_panics_total"), 0.0);
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // A child that is already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process, its HTTP port and those of its listeners.
fn spawn(folder: &Path) -> (Child, u16, Vec<u16>) {
    let how = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["the_broker_under_attack", "--exact", "--nocapture"])
        .env(VARIABLE, folder.join("motemq.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(how.unwrap())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ports = lines.map(Result::unwrap).find_map(|line| {
        let (_, ports) = line.split_once(READY)?;
        let mut ports = ports.split(' ').map(|port| port.parse().unwrap());
        Some((ports.next()?, ports.collect()))
    });
    let (http, ports) = ports.expect("the broker's ports");
    (child, http, ports)
}

/// Runs as the broker of another process of this binary, if it is told to; ends with that process.
pub(super) fn serve() {
    let Some(file) = std::env::var_os(VARIABLE) else {
        return;
    };
    let config = load(&Sources {
        file: Some(Path::new(&file)),
        environment: Vec::new(),
        set: Vec::new(),
    });
    let broker = InProcess::start(config.unwrap());
    let running = broker.running();
    let mut ports = vec![running.http().unwrap().port().to_string()];
    ports.extend(
        running
            .addresses()
            .iter()
            .map(|(_, address)| address.port().to_string()),
    );
    println!("{READY}{}", ports.join(" "));
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).unwrap();
    broker.stop();
}

/// A client with a durable session that publishes to itself, again and again.
struct Bystander {
    stop: Sender<()>,
    thread: JoinHandle<u64>,
}

impl Bystander {
    fn start(port: u16) -> Self {
        let mut client = Client::connect(port, &Hello::durable("bystander"));
        assert_eq!(client.subscribe("bystander/own", 1), 1);
        let (stop, stopped) = channel();
        go_round(&mut client, 0);
        let thread = std::thread::spawn(move || {
            let mut rounds = 1;
            while stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
                go_round(&mut client, rounds);
                rounds += 1;
            }
            go_round(&mut client, rounds);
            rounds
        });
        Self { stop, thread }
    }

    fn finish(self) {
        self.stop
            .send(())
            .expect("the bystander has stopped before it was told to");
        let rounds = self.thread.join().expect("the bystander was disturbed");
        println!("the bystander went round {rounds} times");
    }
}

/// PUBLISH at QoS 1, PUBACK, the message back, a ping.
fn go_round(client: &mut Client, round: u64) {
    let payload = round.to_string();
    client.publish("bystander/own", &payload, 1, 7);
    let (mut is_acknowledged, mut is_back) = (false, false);
    while !(is_acknowledged && is_back) {
        match client.take() {
            Some(Got::Ack("PUBACK", 7, code)) if !code.is_error() => is_acknowledged = true,
            Some(Got::Publish(publish)) => {
                assert_eq!(publish.payload, payload);
                client.ack(AckKind::PubAck, publish.id);
                is_back = true;
            }
            other => panic!("the bystander got {other:?}"),
        }
    }
    assert_eq!(client.ping(), Some(Vec::new()));
}

/// Says to this binary that it is to be a broker, and with which configuration.
const VARIABLE: &str = "ATTACKS_BROKER_CONFIG";
const READY: &str = "the broker listens on ";
/// Between two rounds of the bystander.
const PACE: Duration = Duration::from_millis(2);
const PATIENCE: Duration = motemq_tests::socket::PATIENCE;
