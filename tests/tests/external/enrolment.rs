//! The whole line of an enrolment: openssl's signing requests, a device over TLS, the broker, and `motemq-certs serve`.
//!
//! Needs openssl, the release build of `motemq`, and `motemq-certs` beside this test, where `cargo test --workspace` puts it.

use motemq_tests::kill_ledger::broker::{Broker, binary};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet, Publish, PublishProperties};
use rumqttc::v5::{Client, Connection, Event, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_device_enrols_with_a_claim_reconnects_and_renews() {
    let mut site = Site::start("meter-*");
    let claim = site.claim("line-4");
    let request = site.request("meter-1", "meter-1");
    let answer = site.ask("meter-1", Some(&claim), &request);
    assert_eq!(answer.status, "issued", "{}", answer.text());
    let first = site.keep(&answer, "meter-1");
    site.verifies(&first.certificate);
    // The answer may have been lost: it is the same one again.
    let again = site.ask("meter-1", Some(&claim), &request);
    assert_eq!(again.payload, answer.payload);

    // With what it got, it is a client like any other.
    site.publishes("meter-1", &first);
    let request = site.request("meter-1", "meter-1-next");
    let answer = site.ask("meter-1", Some(&first), &request);
    let second = site.keep(&answer, "meter-1-next");
    site.verifies(&second.certificate);
    site.publishes("meter-1", &second);

    let lines = site.audit();
    assert_eq!(outcomes(&lines), ["issued", "repeated", "issued"]);
    assert_eq!(lines[0]["enrolled_by"], "claim line-4");
    assert_eq!(
        lines[2]["enrolled_by"],
        format!("certificate {}", lines[0]["serial"].as_str().unwrap())
    );
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_device_without_credentials_enrols_with_a_token_once() {
    let mut site = Site::start("");
    let token = site.token("meter-2");
    let request = site.request("meter-2", "meter-2");
    let payload = json!({ "csr": request, "token": token }).to_string();
    let answer = site.ask("meter-2", None, &payload);
    assert_eq!(answer.status, "issued", "{}", answer.text());
    let json: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(
        json["certificate"]
            .as_str()
            .unwrap()
            .starts_with("-----BEGIN CERTIFICATE-----")
    );

    let other = site.request("meter-2", "other");
    let payload = json!({ "csr": other, "token": token }).to_string();
    assert_eq!(site.ask("meter-2", None, &payload).reason(), "token-used");
    assert_eq!(site.ask("meter-2", None, &other).reason(), "token-needed");
    let lines = site.audit();
    assert_eq!(outcomes(&lines), ["issued", "refused", "refused"]);
    assert_eq!(lines[1]["reason"], "token-used");
    assert!(!site.audit_text().contains(&token));
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn what_must_not_be_issued_is_refused_and_audited() {
    let mut site = Site::start("meter-*");
    let claim = site.claim("line-4");
    let gone = site.claim("line-3");
    let request = site.request("gauge-1", "gauge-1");
    assert_eq!(
        site.ask("gauge-1", Some(&claim), &request).reason(),
        "not-on-allow-list"
    );
    assert_eq!(
        site.ask("meter-1", Some(&claim), &request).reason(),
        "name-mismatch"
    );
    let request = site.request("meter-1", "meter-1");
    let mut words = vec!["not-on-allow-list", "name-mismatch"];
    // Whether the broker has read the list already does not matter: the service reads the inventory.
    site.certs(&["revoke", "--serial", &serial(&gone.certificate)]);
    assert_eq!(
        site.ask("meter-1", Some(&gone), &request).reason(),
        "claim-invalid"
    );
    words.push("claim-invalid");
    assert_eq!(
        site.ask("meter-1", Some(&claim), "hello").reason(),
        "bad-request"
    );
    words.push("bad-request");
    let first = site.ask("meter-1", Some(&claim), &request);
    let device = site.keep(&first, "meter-1");
    let other = site.request("meter-1", "other");
    assert_eq!(
        site.ask("meter-1", Some(&claim), &other).reason(),
        "already-enrolled"
    );
    let another = site.request("meter-2", "another");
    assert_eq!(
        site.ask("meter-1", Some(&device), &another).reason(),
        "name-mismatch"
    );
    words.extend(["already-enrolled", "name-mismatch"]);
    let lines = site.audit();
    let refused = lines.iter().filter(|line| line["outcome"] == "refused");
    let reasons: Vec<&str> = refused
        .map(|line| line["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, words);
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_request_survives_the_kill_of_the_service() {
    let mut site = Site::start("*");
    let claim = site.claim("line-4");
    let request = site.request("meter-1", "meter-1");
    // It has the request, or the broker does; it does not answer, and dies.
    site.service.signal("-STOP");
    let (_device, mut connection) = site.send("meter-1", Some(&claim), &request);
    until(&mut connection, |packet| {
        matches!(packet, Packet::PubAck(_))
    });
    site.service.kill();
    site.start_service();
    let answer = Answer::from(await_answer(&mut connection));
    assert_eq!(answer.status, "issued", "{}", answer.text());
    assert_eq!(outcomes(&site.audit()), ["issued"]);

    // And so does one that is made while there is none.
    site.service.kill();
    let request = site.request("meter-2", "meter-2");
    let (_device, mut connection) = site.send("meter-2", Some(&claim), &request);
    until(&mut connection, |packet| {
        matches!(packet, Packet::PubAck(_))
    });
    site.start_service();
    assert_eq!(Answer::from(await_answer(&mut connection)).status, "issued");
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_service_that_is_killed_again_and_again_answers_everybody() {
    let mut site = Site::start("*");
    let claim = site.claim("line-4");
    let mut devices = Vec::new();
    for round in 0..8 {
        for number in 0..5 {
            let id = format!("meter-{round}-{number}");
            let request = site.request(&id, &id);
            devices.push((id.clone(), site.send(&id, Some(&claim), &request)));
        }
        // So far as it happens to have come.
        site.service.kill();
        site.start_service();
    }
    for (id, (_device, connection)) in &mut devices {
        let answer = Answer::from(await_answer(connection));
        assert_eq!(answer.status, "issued", "{id}: {}", answer.text());
        let login = site.keep(&answer, id);
        site.publishes(id, &login);
    }
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn the_service_outlives_the_broker_and_ends_when_told_to() {
    let mut site = Site::start("*");
    let claim = site.claim("line-4");
    site.broker.kill().unwrap();
    site.broker.start().unwrap();
    let request = site.request("meter-1", "meter-1");
    let answer = site.ask("meter-1", Some(&claim), &request);
    assert_eq!(answer.status, "issued", "{}", answer.text());
    site.service.signal("-TERM");
    let status = site.service.child.wait().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_3_1_1_device_gets_its_answer_without_a_subscription() {
    let site = Site::start("*");
    let claim = site.claim("line-4");
    let request = site.request("meter-1", "meter-1");
    let mut options = rumqttc::MqttOptions::new("meter-1", "localhost", site.broker.port());
    options.set_transport(site.transport(Some(&claim)));
    let (device, mut connection) = rumqttc::Client::new(options, 10);
    device
        .publish("$certs/csr", rumqttc::QoS::AtLeastOnce, false, request)
        .unwrap();
    let issued = loop {
        let event = connection.recv_timeout(PATIENCE).expect("an event in time");
        if let rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) = event.unwrap() {
            break publish;
        }
    };
    assert_eq!(issued.topic, "$certs/issued");
    let text = String::from_utf8(issued.payload.to_vec()).unwrap();
    assert!(text.starts_with("-----BEGIN CERTIFICATE-----"), "{text}");
}

/// A broker with enrolment, an authority and the service.
struct Site {
    broker: Broker,
    service: Service,
}

struct Service {
    child: Child,
    #[expect(dead_code, reason = "open, so that the service can go on writing")]
    log: BufReader<ChildStderr>,
}

/// Files by which a client logs in.
struct Login {
    certificate: PathBuf,
    key: PathBuf,
}

struct Answer {
    status: String,
    reason: Option<String>,
    payload: Vec<u8>,
}

impl Site {
    fn start(allowed: &str) -> Self {
        // The error says that a provider is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut broker = Broker::new(&binary()).unwrap();
        let folder = broker.folder().to_owned();
        certs(&folder, &["init"]);
        certs(&folder, &["server", "localhost", "127.0.0.1"]);
        fs::write(folder.join("allow"), format!("{allowed}\n")).unwrap();
        let configuration = format!(
            "data_dir = \"data\"\n\
             [[listeners]]\nname = \"mqtts\"\nbind = \"127.0.0.1:{}\"\nenrolment = true\n\
             [listeners.tls]\ncert = \"pki/server.crt\"\nkey = \"pki/server.key\"\n\
             client_ca = \"pki/ca.crt\"\nclient_cert = \"optional\"\n\
             [enrolment]\nsigner = \"enrolment\"\n\
             [http]\nbind = \"\"\n",
            broker.port(),
        );
        broker.configure(&configuration).unwrap();
        broker.start().unwrap();
        let service = Service::start(&folder, broker.port());
        Self { broker, service }
    }

    fn start_service(&mut self) {
        self.service = Service::start(self.broker.folder(), self.broker.port());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.broker.folder().join(name)
    }

    fn certs(&self, arguments: &[&str]) -> String {
        certs(self.broker.folder(), arguments)
    }

    fn claim(&self, name: &str) -> Login {
        self.certs(&["claim", name]);
        Login {
            certificate: self.path(&format!("pki/claims/{name}.crt")),
            key: self.path(&format!("pki/claims/{name}.key")),
        }
    }

    fn token(&self, id: &str) -> String {
        let table = self.certs(&["token", id]);
        let row = table.lines().nth(1).unwrap();
        row.split(',').nth(1).unwrap().to_owned()
    }

    /// A signing request of a new key, which goes to `STEM.key`.
    fn request(&self, common_name: &str, stem: &str) -> String {
        let key = self.path(&format!("{stem}.key"));
        let subject = format!("/CN={common_name}");
        let output = run(Command::new("openssl")
            .args([
                "req",
                "-new",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-subj", &subject, "-keyout"])
            .arg(key));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a device has when it was answered.
    fn keep(&self, answer: &Answer, stem: &str) -> Login {
        let certificate = self.path(&format!("{stem}.crt"));
        fs::write(&certificate, &answer.payload).unwrap();
        let key = self.path(&format!("{stem}.key"));
        Login { certificate, key }
    }

    fn verifies(&self, certificate: &Path) {
        run(Command::new("openssl")
            .args(["verify", "-purpose", "sslclient", "-CAfile"])
            .arg(self.path("pki/ca.crt"))
            .arg(certificate));
    }

    fn transport(&self, login: Option<&Login>) -> Transport {
        Transport::tls_with_config(TlsConfiguration::Simple {
            ca: fs::read(self.path("pki/ca.crt")).unwrap(),
            alpn: None,
            client_auth: login.map(|login| {
                let Login { certificate, key } = login;
                (fs::read(certificate).unwrap(), fs::read(key).unwrap())
            }),
        })
    }

    fn connect(&self, client_id: &str, login: Option<&Login>) -> (Client, Connection) {
        let mut options = MqttOptions::new(client_id, "localhost", self.broker.port());
        options.set_transport(self.transport(login));
        options.set_connect_properties(ConnectProperties::new());
        Client::new(options, 10)
    }

    fn send(&self, client_id: &str, login: Option<&Login>, payload: &str) -> (Client, Connection) {
        let (device, connection) = self.connect(client_id, login);
        let properties = PublishProperties {
            response_topic: Some("$certs/issued/here".to_owned()),
            correlation_data: Some("question-7".into()),
            ..PublishProperties::default()
        };
        let payload = payload.to_owned();
        device
            .publish_with_properties("$certs/csr", QoS::AtLeastOnce, false, payload, properties)
            .unwrap();
        (device, connection)
    }

    fn ask(&mut self, client_id: &str, login: Option<&Login>, payload: &str) -> Answer {
        let (_device, mut connection) = self.send(client_id, login, payload);
        let answer = await_answer(&mut connection);
        let properties = answer.properties.as_ref().unwrap();
        assert_eq!(answer.topic, "$certs/issued/here");
        assert_eq!(
            properties.correlation_data.as_deref(),
            Some(&b"question-7"[..])
        );
        answer.into()
    }

    /// Publishes what only a client with all rights may.
    fn publishes(&self, client_id: &str, login: &Login) {
        let (device, mut connection) = self.connect(client_id, Some(login));
        device
            .publish("readings", QoS::AtLeastOnce, false, "7")
            .unwrap();
        until(&mut connection, |packet| match packet {
            Packet::PubAck(ack) => {
                assert!((ack.reason as u8) < 2, "{ack:?}");
                true
            }
            _ => false,
        });
    }

    fn audit_text(&self) -> String {
        fs::read_to_string(self.path("pki/enrolment.jsonl")).unwrap()
    }

    fn audit(&self) -> Vec<Value> {
        let text = self.audit_text();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Service {
    /// A service that the broker knows of.
    fn start(folder: &Path, port: u16) -> Self {
        let broker = format!("mqtts://localhost:{port}");
        let child = Command::new(certs_binary())
            .current_dir(folder)
            .args(["serve", "--broker", &broker])
            .args(["--allow", "allow", "--per-id-interval", "0"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("motemq-certs: run `cargo build -p motemq-certs`");
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut text = String::new();
        while !text.ends_with("answering requests\n") {
            let length = log.read_line(&mut text).unwrap();
            assert_ne!(length, 0, "it ended: {text}");
        }
        Self { child, log }
    }

    fn signal(&self, signal: &str) {
        run(Command::new("kill").args([signal, &self.child.id().to_string()]));
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // One that has ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl From<Publish> for Answer {
    fn from(publish: Publish) -> Self {
        let properties = publish.properties.unwrap_or_default().user_properties;
        let value = |wanted: &str| {
            let found = properties.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone())
        };
        Self {
            status: value("status").unwrap_or_default(),
            reason: value("reason"),
            payload: publish.payload.to_vec(),
        }
    }
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    fn reason(&self) -> &str {
        let json: Value = serde_json::from_slice(&self.payload).unwrap();
        let reason = self.reason.as_deref().unwrap();
        assert_eq!(json["error"], reason);
        assert!(!json["message"].as_str().unwrap().is_empty());
        reason
    }
}

fn await_answer(connection: &mut Connection) -> Publish {
    let mut answer = None;
    until(connection, |packet| {
        if let Packet::Publish(publish) = packet {
            answer = Some(publish.clone());
        }
        answer.is_some()
    });
    answer.unwrap()
}

fn until(connection: &mut Connection, mut is_done: impl FnMut(&Packet) -> bool) {
    loop {
        let event = connection.recv_timeout(PATIENCE).expect("an event in time");
        if let Event::Incoming(packet) = event.expect("a connection")
            && is_done(&packet)
        {
            return;
        }
    }
}

fn outcomes(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line["outcome"].as_str().unwrap())
        .collect()
}

fn serial(certificate: &Path) -> String {
    let output = run(Command::new("openssl")
        .args(["x509", "-noout", "-serial", "-in"])
        .arg(certificate));
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().trim_start_matches("serial=").to_owned()
}

fn certs(folder: &Path, arguments: &[&str]) -> String {
    let output = run(Command::new(certs_binary())
        .current_dir(folder)
        .args(arguments));
    String::from_utf8(output.stdout).unwrap()
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    output
}

/// The binary named by `MOTEMQ_CERTS_BIN`, or the one that cargo has put beside the tests.
fn certs_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("MOTEMQ_CERTS_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    profile.join("motemq-certs")
}

/// A service that was killed takes a second to come back, a broker some more.
const PATIENCE: Duration = Duration::from_secs(30);
