//! The binary as its operator meets it: signals, exit codes, the service manager, the admin socket.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

#[test]
fn the_service_manager_is_told_of_start_reload_and_stop() {
    let site = Site::new("");
    let broker = site.run();
    assert_eq!(site.told(), "READY=1");
    broker.signal(Signal::HUP);
    let reloading = site.told();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(site.told(), "READY=1");
    broker.signal(Signal::TERM);
    assert_eq!(site.told(), "STOPPING=1");
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn a_reload_that_is_refused_names_every_mistake_and_the_broker_goes_on() {
    let site = Site::new("");
    let mut broker = site.run();
    let configuration = std::fs::read_to_string(site.path("motemq.toml")).unwrap();
    let broken = format!("{configuration}[limits]\nqueue_ful = 1\nreceive_maximum = 0\n");
    std::fs::write(site.path("motemq.toml"), broken).unwrap();
    broker.signal(Signal::HUP);
    let first = broker.wait_for_line("reload: ");
    assert!(first.contains("did you mean \"queue_full\""), "{first}");
    let second = broker.wait_for_line("reload: ");
    assert!(
        second.contains("limits.receive_maximum must be"),
        "{second}"
    );
    broker.wait_for_line("everything stays as it was");
    broker.round_trip();
    // Changed, valid, and not possible while it runs.
    let changed = format!("{configuration}[persistence]\nfold_ms_max = 7\n");
    std::fs::write(site.path("motemq.toml"), changed).unwrap();
    broker.signal(Signal::HUP);
    let waiting = broker.wait_for_line("need a restart");
    assert!(waiting.contains("persistence.fold_ms_max"), "{waiting}");
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn a_reload_is_asked_for_by_command_and_says_what_came_of_it() {
    let site = Site::new("");
    let broker = site.run();
    let configuration = std::fs::read_to_string(site.path("motemq.toml")).unwrap();
    let changed =
        format!("{configuration}[limits]\nreceive_maximum = 7\n[persistence]\nfold_ms_max = 7\n");
    std::fs::write(site.path("motemq.toml"), &changed).unwrap();
    let output = site.command(&["reload"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("limits.receive_maximum: 100 -> 7\n"),
        "{said}"
    );
    let restart = "needs a restart: persistence.fold_ms_max\n";
    assert!(said.contains(restart), "{said}");
    std::fs::write(site.path("motemq.toml"), format!("{changed}x = 1\n")).unwrap();
    // The tool reads the configuration for the socket's path, and finds the same mistake.
    let output = site.command(&["reload"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    std::fs::write(
        site.path("motemq.toml"),
        changed.replace(
            "fold_ms_max = 7",
            "fold_ms_max = 7\n[auth]\npassword_file = \"absent\"",
        ),
    )
    .unwrap();
    let output = site.command(&["reload"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("absent") && said.contains("everything stays"),
        "{said}"
    );
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn bans_are_added_listed_and_ended_by_command_over_a_restart() {
    let site = Site::new("");
    let run = |words: &[&str]| {
        let output = site.command(words).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said)
    };
    let broker = site.run();
    let add = [
        "ban",
        "add",
        "address",
        "10.0.0.0/8",
        "--for",
        "7d",
        "--reason",
        "noisy",
    ];
    assert_eq!(run(&add), (Some(0), String::new()));
    assert_eq!(run(&["ban", "add", "client", "thief"]).0, Some(0));
    assert_eq!(run(&["ban", "add", "address", "10.0.0"]).0, Some(1));
    assert_eq!(
        run(&["ban", "add", "client", "x", "--for", "soon"]).0,
        Some(2)
    );
    broker.signal(Signal::KILL);
    assert_eq!(broker.wait(), None);
    assert_eq!(run(&["ban", "ls"]).0, Some(1));
    let broker = site.run();
    let (code, list) = run(&["ban", "ls"]);
    assert_eq!(code, Some(0));
    assert!(list.contains("address 10.0.0.0/8\t60"), "{list}");
    assert!(list.contains("client \"thief\"\tuntil ended"), "{list}");
    assert_eq!(run(&["ban", "rm", "client", "thief"]).0, Some(0));
    assert_eq!(run(&["ban", "rm", "client", "thief"]).0, Some(4));
    assert_eq!(run(&["ban", "ls"]).1.lines().count(), 1);
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn the_admin_socket_is_for_its_owner_only_and_goes_with_the_broker() {
    let site = Site::new("");
    let broker = site.run();
    let socket = site.path("data/admin.sock");
    let mode = socket.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_socket_left_by_a_crash_does_not_prevent_the_next_start() {
    let site = Site::new("");
    let broker = site.run();
    broker.signal(Signal::KILL);
    assert_eq!(broker.wait(), None);
    assert!(site.path("data/admin.sock").exists());
    let broker = site.run();
    assert_eq!(site.store(&["check"]).status.code(), Some(0));
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn store_commands_end_with_the_code_that_they_document() {
    let site = Site::new("");
    check(&site, &["check"], 1, "there is no store");
    let mut broker = site.run();
    broker.retain(b"21.5 degrees, retained");
    let by_name = ["check", "data/store.redb"];
    check(&site, &by_name, 0, "the running broker is sound");
    let by_name = ["salvage", "s.redb", "--from", "data/store.redb"];
    check(&site, &by_name, 1, "a broker is running on this store");
    check(&site, &["check"], 0, "1 retained messages");
    check(
        &site,
        &["backup", "b.redb"],
        0,
        "the running broker's store",
    );
    check(&site, &["backup", "b.redb"], 1, "b.redb exists");
    check(&site, &["check", "b.redb"], 0, "1 retained messages");
    for command in [
        &["restore", "b.redb"][..],
        &["salvage", "s.redb"],
        &["compact"],
    ] {
        check(&site, command, 1, "a broker is running on this store");
    }
    let unreachable = ["check", "--set", "admin.socket="];
    check(
        &site,
        &unreachable,
        1,
        "does not answer at its admin socket",
    );
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(), Some(0));
    check(&site, &["compact"], 0, "1 retained messages");
    check(&site, &["restore", "b.redb"], 1, "--replace");
    check(
        &site,
        &["restore", "b.redb", "--replace"],
        0,
        "store.redb.replaced-1",
    );
    // One flipped byte.
    let mut bytes = std::fs::read(site.path("b.redb")).unwrap();
    let at = bytes.windows(8).position(|bytes| bytes == b"degrees,");
    bytes[at.unwrap()] ^= 1;
    std::fs::write(site.path("b.redb"), bytes).unwrap();
    check(&site, &["check", "b.redb"], 3, "table journal, key ");
    check(&site, &["restore", "b.redb", "--replace"], 3, "is damaged");
    check(
        &site,
        &["salvage", "s.redb", "--from", "b.redb"],
        3,
        "findings",
    );
    check(&site, &["salvage", "t.redb"], 0, "nothing in");
    check(&site, &["check", "nothing.redb"], 1, "nothing.redb");
    check(&site, &["frobnicate"], 2, "unrecognized subcommand");
    check(&site, &["check", "--set", "data_dirr=x"], 78, "data_dirr");
    // What is there after all this is the backup of the running broker.
    check(&site, &["check"], 0, "1 retained messages");
    let mut broker = site.run();
    broker.round_trip();
}

#[test]
fn the_configuration_is_shown_with_origins() {
    let site = Site::new("[limits]\nreceive_maximum = 20\n");
    let mut command = site.command(&["config", "show", "--origin", "--set", "log.level=warn"]);
    let output = command.env("MOTEMQ_LIMITS__TOPIC_ALIAS_MAX", "3").output();
    let shown = String::from_utf8(output.unwrap().stdout).unwrap();
    let line = |key: &str| {
        let mut lines = shown.lines();
        let line = lines.find(|line| line.split(' ').next() == Some(key));
        line.unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        line("limits.receive_maximum"),
        "limits.receive_maximum = 20 # motemq.toml:9"
    );
    assert_eq!(
        line("limits.topic_alias_max"),
        "limits.topic_alias_max = 3 # environment MOTEMQ_LIMITS__TOPIC_ALIAS_MAX"
    );
    assert_eq!(
        line("log.level"),
        "log.level = \"warn\" # --set log.level=warn"
    );
    assert_eq!(
        line("persistence.commit_delay_ms"),
        "persistence.commit_delay_ms = 0 # default"
    );
}

fn check(site: &Site, arguments: &[&str], code: i32, told: &str) {
    let output = site.store(arguments);
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(told), "{arguments:?}: {text}");
}

/// A folder with a configuration, and the socket of a service manager.
struct Site {
    folder: TempDir,
    manager: UnixDatagram,
}

impl Site {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let configuration = format!(
            "data_dir = \"data\"\n[[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:0\"\nanonymous = true\n[http]\nbind = \"\"\n{more}"
        );
        std::fs::write(folder.path().join("motemq.toml"), configuration).unwrap();
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { folder, manager }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_motemq"));
        command.args(arguments).args(["-c", "motemq.toml"]);
        command.current_dir(self.folder.path());
        command.env_remove("RUST_LOG").env("NO_COLOR", "1");
        command
    }

    fn store(&self, arguments: &[&str]) -> Output {
        let arguments = [&["store"], arguments].concat();
        self.command(&arguments).output().unwrap()
    }

    /// Runs a broker until it is ready.
    fn run(&self) -> Broker {
        let mut command = self.command(&["run"]);
        command.env("NOTIFY_SOCKET", self.path("notify"));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut broker = Broker {
            child,
            log,
            port: 0,
        };
        let line = broker.wait_for_line("listening");
        let address = line.split("address=").nth(1).unwrap();
        let address = address.split_whitespace().next().unwrap();
        broker.port = address.parse::<SocketAddr>().unwrap().port();
        broker.wait_for_line("ready");
        broker
    }

    /// What the service manager is told next.
    fn told(&self) -> String {
        let mut bytes = [0; 200];
        let count = self.manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).trim().to_owned()
    }
}

/// A broker that runs; killed when dropped.
struct Broker {
    child: Child,
    log: BufReader<ChildStderr>,
    port: u16,
}

impl Broker {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// The exit code, when it has ended.
    fn wait(mut self) -> Option<i32> {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        self.child.wait().unwrap().code()
    }

    fn wait_for_line(&mut self, part: &str) -> String {
        let mut lines = String::new();
        loop {
            let start = lines.len();
            let count = self.log.read_line(&mut lines).unwrap();
            assert!(count > 0, "no line with {part:?} in:\n{lines}");
            if lines[start..].contains(part) {
                return lines[start..].to_owned();
            }
        }
    }

    fn connect(&self) -> TcpStream {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c")
            .unwrap();
        expect(&mut stream, &[0x20, 2, 0, 0]);
        stream
    }

    fn round_trip(&mut self) {
        let mut stream = self.connect();
        stream.write_all(&[0xc0, 0]).unwrap();
        expect(&mut stream, &[0xd0, 0]);
    }

    /// Publishes at QoS 1 with RETAIN to the topic `t`.
    fn retain(&mut self, payload: &[u8]) {
        let mut stream = self.connect();
        let mut packet = vec![0x33, u8::try_from(5 + payload.len()).unwrap()];
        packet.extend([0, 1, b't', 0, 1]);
        packet.extend(payload);
        stream.write_all(&packet).unwrap();
        expect(&mut stream, &[0x40, 2, 0, 1]);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn expect(stream: &mut impl Read, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, expected);
}

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(30);
