//! `motemq pub`, `motemq sub` and `motemq trace` as processes, against a broker in this one.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::config::{
    AnonymousAccess, ClientCert, Config, CrlOverdue, HttpConfig, Identity, ListenerConfig,
    TlsConfig,
};
use motemq::server::{Running, start};
use motemq_certs::Authority;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use tokio::runtime::Runtime;

#[test]
fn every_qos_and_version_arrives_and_is_complete() {
    let broker = Broker::start();
    for version in ["3.1", "3.1.1", "5"] {
        for qos in ["0", "1", "2"] {
            let topic = format!("v{version}/q{qos}");
            let mut sub = broker.sub(&["-t", &topic, "-q", qos, "-C", "2", "-v", "-V", version]);
            for text in ["one", "two"] {
                let published =
                    broker.publish(&["-t", &topic, "-m", text, "-q", qos, "-V", version]);
                assert_eq!(error_of(&published), "");
                assert!(published.status.success());
            }
            assert_eq!(sub.rest(), format!("{topic} one\n{topic} two\n"));
            assert!(sub.child.wait().unwrap().success());
        }
    }
    let counters = broker.running.server().broker().counters();
    let received = counters.packets(motemq_core::Direction::In, motemq_core::PacketKind::Publish);
    assert_eq!(received, 18);
    broker.stop();
}

#[test]
fn lines_files_and_nothing_are_payloads() {
    let broker = Broker::start();
    let mut sub = broker.sub(&["-t", "lines", "-q", "2", "-C", "500"]);
    let mut child = broker.command("pub", &["-t", "lines", "-l", "-q", "2"]);
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    let lines: String = (0..500).map(|number| format!("line {number}\n")).collect();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(sub.rest(), lines);

    let file = broker.dir.path().join("payload");
    let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    std::fs::write(&file, &bytes).unwrap();
    let file = file.to_str().unwrap();
    assert!(
        broker
            .publish(&["-t", "kept", "-f", file, "-r", "-q", "1"])
            .status
            .success()
    );
    let kept = broker.run("sub", &["-t", "kept", "-C", "1"]);
    assert_eq!(kept.stdout, [&bytes[..], b"\n"].concat());
    assert!(broker.publish(&["-t", "kept", "-n", "-r"]).status.success());
    let none = broker.run("sub", &["-t", "kept", "-C", "1", "-W", "1"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(
        error_of(&none).contains("0 of 1 messages"),
        "{}",
        error_of(&none)
    );
    broker.stop();
}

#[test]
fn json_has_all_that_came_with_a_message() {
    let broker = Broker::start();
    let mut sub = broker.sub(&["-t", "a/#", "-C", "1", "--json"]);
    let published = broker.publish(&[
        "-t",
        "a/b",
        "-m",
        "x",
        "-D",
        "publish",
        "content-type",
        "text/plain",
        "-D",
        "publish",
        "user-property",
        "site",
        "north",
        "-D",
        "publish",
        "message-expiry-interval",
        "60",
    ]);
    assert!(published.status.success(), "{}", error_of(&published));
    let message: Value = serde_json::from_str(&sub.rest()).unwrap();
    assert_eq!(message["topic"], "a/b");
    assert_eq!(message["payload"], "x");
    assert_eq!(message["content_type"], "text/plain");
    assert_eq!(message["message_expiry_s"], 60);
    assert_eq!(message["user_properties"][0][1], "north");
    broker.stop();
}

#[test]
fn tls_works_and_what_is_wrong_with_it_is_said() {
    let broker = Broker::start();
    let tls = broker.port("tls").to_string();
    let ca = broker.path("pki/ca.crt");
    let (cert, key) = (broker.path("device.crt"), broker.path("device.key"));
    let with_own = ["-p", &tls, "--cafile", &ca, "--cert", &cert, "--key", &key];
    let published = broker.publish(&[&["-t", "t", "-m", "x", "-q", "1"], &with_own[..]].concat());
    assert!(published.status.success(), "{}", error_of(&published));

    let other = broker.path("other/ca.crt");
    let message = ["-t", "t", "-m", "x"];
    for (arguments, expected) in [
        (
            vec!["-p", &tls, "--cafile", &other],
            "give --cafile with the one that issued it",
        ),
        (
            vec!["-p", &tls, "--cafile", &ca],
            "wants a client certificate",
        ),
        (
            vec!["-p", &tls, "--cafile", &ca, "-h", "127.0.0.1"],
            "not for 127.0.0.1",
        ),
        (vec!["-p", &tls], "give --cafile"),
        (vec!["-p", "8883"], "give --cafile"),
        (vec!["--cafile", &ca], "may not speak TLS"),
        (vec!["-p", &tls, "--cafile", "/nowhere"], "/nowhere: "),
    ] {
        let refused = broker.publish(&[&message[..], &arguments].concat());
        assert_eq!(refused.status.code(), Some(1));
        let error = error_of(&refused);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    broker.stop();
}

#[test]
fn refusals_say_why_and_what_to_change() {
    let broker = Broker::start();
    let closed = broker.port("closed").to_string();
    let message = ["-t", "t", "-m", "x", "-q", "1"];
    for (arguments, expected) in [
        (vec!["-p", &closed, "-u", "ada", "-P", "wrong"], "-u, -P"),
        (vec!["-p", "1"], "nobody listens at localhost:1"),
        (
            vec!["-h", "no.such.host.invalid"],
            "there is no host no.such.host.invalid",
        ),
    ] {
        let refused = broker.publish(&[&message[..], &arguments].concat());
        assert_eq!(refused.status.code(), Some(1));
        let error = error_of(&refused);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    let reserved = broker.publish(&["-t", "$SYS/x", "-m", "x", "-q", "1"]);
    assert_eq!(reserved.status.code(), Some(1));
    let error = error_of(&reserved);
    assert!(
        error.contains("not authorized (0x87): topics that start with $"),
        "{error}"
    );
    let wildcard = broker.publish(&["-t", "a/#", "-m", "x"]);
    assert!(
        error_of(&wildcard).contains("wildcard"),
        "{}",
        error_of(&wildcard)
    );
    let usage = broker.publish(&["-t", "t"]);
    assert_eq!(usage.status.code(), Some(2));
    let share = broker.run("sub", &["-t", "a/#/b"]);
    assert_eq!(share.status.code(), Some(1));
    broker.stop();
}

#[test]
fn the_password_may_come_from_the_environment_or_a_file() {
    let broker = Broker::start();
    let closed = broker.port("closed").to_string();
    let arguments = ["-p", &closed, "-u", "ada", "-t", "t", "-m", "x", "-q", "1"];
    let by_environment = broker
        .command("pub", &arguments)
        .env("MOTEMQ_PASSWORD", "analytical engine")
        .output()
        .unwrap();
    assert!(
        by_environment.status.success(),
        "{}",
        error_of(&by_environment)
    );
    let file = broker.path("password");
    std::fs::write(&file, "analytical engine\n").unwrap();
    let by_file = broker.publish(&[&arguments[..], &["--password-file", &file]].concat());
    assert!(by_file.status.success(), "{}", error_of(&by_file));
    broker.stop();
}

#[test]
fn a_session_is_taken_up_with_c() {
    let broker = Broker::start();
    let arguments = [
        "-t", "t", "-q", "1", "-i", "durable", "-c", "-C", "1", "-W", "10",
    ];
    let mut sub = broker.sub(&arguments);
    assert!(
        broker
            .publish(&["-t", "t", "-m", "first", "-q", "1"])
            .status
            .success()
    );
    assert_eq!(sub.rest(), "first\n");
    sub.child.wait().unwrap();
    assert!(
        broker
            .publish(&["-t", "t", "-m", "second", "-q", "1"])
            .status
            .success()
    );
    assert_eq!(broker.run("sub", &arguments).stdout, b"second\n");
    broker.stop();
}

#[test]
fn a_trace_shows_what_pub_sends() {
    let broker = Broker::start();
    let settings = ["--set", &format!("data_dir={}", broker.path("data"))].map(str::to_owned);
    let mut trace = Command::new(env!("CARGO_BIN_EXE_motemq"));
    trace.args(["trace", "--client", "meter-*", "--for", "60s", "--json"]);
    trace.args(&settings).stdout(Stdio::piped());
    let mut trace = trace.spawn().unwrap();
    let mut lines = BufReader::new(trace.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["kind"], "begin");
    let published = broker.publish(&["-i", "meter-17", "-t", "fleet/17", "-m", "21.5", "-q", "1"]);
    assert!(published.status.success());
    let names: Vec<_> = (0..6).map(|_| next()).collect();
    let names: Vec<_> = names
        .iter()
        .map(|event| event["packet"].as_str().unwrap_or("closed"))
        .collect();
    assert_eq!(
        names,
        [
            "CONNECT",
            "CONNACK",
            "PUBLISH",
            "PUBACK",
            "DISCONNECT",
            "closed"
        ]
    );
    trace.kill().unwrap();
    trace.wait().unwrap();
    broker.stop();
}

struct Broker {
    dir: tempfile::TempDir,
    runtime: Runtime,
    running: Running,
}

impl Broker {
    /// Listeners: `mqtt` for everybody, `tls` for who shows a certificate, `closed` for who has a password.
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (authority, _) = Authority::open_or_create(&at("pki"), "test").unwrap();
        drop(Authority::open_or_create(&at("other"), "other").unwrap());
        let server = authority.issue_server(&["localhost".to_owned()]).unwrap();
        server.write(&at("server.crt"), &at("server.key")).unwrap();
        let device = authority.issue_device("meter-1").unwrap();
        device.write(&at("device.crt"), &at("device.key")).unwrap();
        let users = at("users");
        let mut passwd = Command::new(env!("CARGO_BIN_EXE_motemq"));
        passwd.args(["passwd", "add", "ada", "--file"]).arg(&users);
        let mut passwd = passwd.stdin(Stdio::piped()).spawn().unwrap();
        passwd
            .stdin
            .take()
            .unwrap()
            .write_all(b"analytical engine\n")
            .unwrap();
        assert!(passwd.wait().unwrap().success());

        let mut config = Config {
            data_dir: Some(at("data")),
            http: HttpConfig {
                bind: None,
                ..HttpConfig::default()
            },
            ..Config::default()
        };
        config.auth.password_file = Some(users);
        let listener = |name: &str| ListenerConfig {
            name: name.to_owned(),
            bind: "127.0.0.1:0"
                .parse::<std::net::SocketAddr>()
                .unwrap()
                .into(),
            anonymous: AnonymousAccess::Allowed,
            ..ListenerConfig::default()
        };
        let tls = TlsConfig {
            cert: at("server.crt"),
            key: at("server.key"),
            client_ca: Some(at("pki/ca.crt")),
            crl: None,
            crl_overdue: CrlOverdue::Warn,
            allow_list: None,
            client_cert: ClientCert::Required,
            identity: Identity::Cn,
            record_bytes_max: 16_384,
        };
        config.listeners = vec![
            listener("mqtt"),
            ListenerConfig {
                tls: Some(tls),
                ..listener("tls")
            },
            ListenerConfig {
                anonymous: AnonymousAccess::Refused,
                ..listener("closed")
            },
        ];
        let runtime = motemq::runtime::build().unwrap();
        let running = runtime.block_on(start(config)).unwrap();
        Self {
            dir,
            runtime,
            running,
        }
    }

    fn port(&self, listener: &str) -> u16 {
        let addresses = self.running.addresses();
        let known = addresses.iter().find(|(name, _)| name == listener);
        known.unwrap().1.port()
    }

    fn path(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    /// To the port of `mqtt`, unless the arguments name another.
    fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_motemq"));
        command.arg(verb).args(arguments);
        if !arguments.contains(&"-p") {
            command.args(["-p", &self.port("mqtt").to_string()]);
        }
        command
    }

    fn run(&self, verb: &str, arguments: &[&str]) -> Output {
        self.command(verb, arguments).output().unwrap()
    }

    fn publish(&self, arguments: &[&str]) -> Output {
        self.run("pub", arguments)
    }

    /// Subscribes, and is subscribed.
    fn sub(&self, arguments: &[&str]) -> Sub {
        let mut command = self.command("sub", &[arguments, &["-d"]].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("<- SUBACK") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "no SUBACK");
        }
        let rest = std::thread::spawn(move || {
            let mut rest = String::new();
            let _ = said.read_to_string(&mut rest);
        });
        drop(rest);
        let out = child.stdout.take().unwrap();
        Sub { child, out }
    }

    fn stop(self) {
        self.runtime.block_on(self.running.stop());
    }
}

struct Sub {
    child: Child,
    out: ChildStdout,
}

impl Sub {
    /// All that it prints until its end.
    fn rest(&mut self) -> String {
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        text
    }
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
