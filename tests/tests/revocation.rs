//! Who may not come in any more, over real sockets: revoked certificates, lists that nobody renewed, the inventory as an allow-list.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::reload::Reloader;
use motemq::server::{Refusal, check};
use motemq_certs::{Authority, Entry, Issued, KeyType, Order, Validity};
use motemq_codec::{ProtocolVersion, ReasonCode};
use motemq_tests::in_process::{InProcess, tls_config};
use motemq_tests::peer::{Got, Hello};
use motemq_tests::revocation::{write_list, write_numbered_list};
use motemq_tests::socket::{Client, PATIENCE, Stopwatch};
use rustls::ClientConfig;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

#[test]
fn one_of_a_thousand_is_revoked_and_the_others_notice_nothing() {
    let mut site = Site::start("crl = \"crl.pem\"\n");
    let certificate = site.device("fleet");
    let stolen = site.device("stolen");
    let (fleet, thief) = (site.client(&certificate), site.client(&stolen));
    let mut clients: Vec<_> = (1..1000)
        .map(|number| site.connected(&fleet, &format!("d{number}")))
        .collect();
    let mut victim = site.connected(&thief, "stolen");
    let server = site.broker.running().server().clone();
    let accepted = server.listeners()[0].accepted();
    let is_over = AtomicBool::new(false);
    let took = std::thread::scope(|scope| {
        // As the program does.
        let reloader = &mut site.reloader;
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                reloader.look(&server);
                std::thread::park_timeout(reloader.look_interval());
            }
        });
        let watch = Stopwatch::start();
        write_list(
            &site.folder.path().join("pki"),
            &site.folder.path().join("crl.pem"),
            &[&stolen],
            2040,
        );
        let gone = victim.take();
        let took = watch.elapsed();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(gone, Some(Got::Disconnect(ReasonCode::NotAuthorized)));
        took
    });
    println!("revoked to disconnected: {took:?}");
    // A second is the promise; the machine may be busy.
    assert!(took < Duration::from_secs(5), "{took:?}");
    // It offers its session first, and has none left afterwards.
    let resumed = site.handshakes()[1].1;
    assert!(!site.gets_in(&thief, "stolen"));
    assert_eq!(site.handshakes()[1].1, resumed + 1);
    assert!(!site.gets_in(&site.client(&stolen), "stolen"));
    for client in &mut clients {
        assert_eq!(client.ping(), Some(Vec::new()));
    }
    let listener = &site.broker.running().server().listeners()[0];
    assert_eq!(listener.accepted(), accepted + 2);
    // It is counted until it has hung up, for a second at most.
    drop(victim);
    let watch = Stopwatch::start();
    while listener.connected() != 999 {
        assert!(watch.elapsed() < PATIENCE, "{}", listener.connected());
    }
    site.broker.stop();
}

#[test]
fn a_list_that_its_authority_has_not_signed_is_refused() {
    let mut site = Site::start("crl = \"crl.pem\"\n");
    let stolen = site.device("stolen");
    site.revoke(&[&stolen], 2040);
    assert!(site.reload().is_ok());
    // Of the same name, with another key.
    Authority::create(&site.path("other"), "test").unwrap();
    write_list(&site.path("other"), &site.path("crl.pem"), &[], 2040);
    let mistakes = site.reload().unwrap_err().join("\n");
    for part in ["crl.pem", "\"CN=test\"", "not signed by"] {
        assert!(mistakes.contains(part), "{mistakes}");
    }
    assert!(!site.gets_in(&site.client(&stolen), "stolen"));
    assert!(site.check().unwrap_err().contains("not signed by"));
    // Of somebody else's authority it is strange, and no mistake.
    Authority::create(&site.path("third"), "third").unwrap();
    write_list(&site.path("third"), &site.path("crl.pem"), &[], 2040);
    let warnings = site.check().unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].contains("\"CN=third\""),
        "{warnings:?}"
    );
    site.revoke(&[], 2040);
    assert_eq!(site.check().unwrap(), Vec::<String>::new());
    site.broker.stop();
}

/// It is as well signed as the newer one, and does not have who was revoked since.
#[test]
fn an_older_list_does_not_take_the_place_of_a_newer_one() {
    let mut site = Site::start("crl = \"crl.pem\"\n");
    let stolen = site.device("stolen");
    let thief = site.client(&stolen);
    let (pki, list) = (site.path("pki"), site.path("crl.pem"));
    write_numbered_list(&pki, &list, &[&stolen], 2040, 7);
    assert!(site.reload().is_ok());
    assert!(!site.gets_in(&thief, "stolen"));
    write_numbered_list(&pki, &list, &[], 2040, 6);
    let mistakes = site.reload().unwrap_err().join("\n");
    assert!(
        mistakes.contains("has the number 6, and the one in force 7"),
        "{mistakes}"
    );
    assert!(!site.gets_in(&thief, "stolen"));
    write_numbered_list(&pki, &list, &[], 2040, 8);
    assert!(site.reload().is_ok());
    assert!(site.gets_in(&thief, "stolen"));
    site.broker.stop();
}

#[test]
fn what_cannot_work_is_refused_before_clients_find_out() {
    let mut site = Site::start("crl = \"crl.pem\"\n");
    // Its lists could be of either.
    let twin = Authority::create(&site.path("twin"), "test").unwrap();
    let ours = std::fs::read_to_string(site.path("pki/ca.crt")).unwrap();
    let both = [ours.as_str(), twin.certificate_pem()].concat();
    std::fs::write(site.path("pki/ca.crt"), both).unwrap();
    let mistakes = site.reload().unwrap_err().join("\n");
    assert!(
        mistakes.contains("two authorities are called"),
        "{mistakes}"
    );
    std::fs::write(site.path("pki/ca.crt"), ours).unwrap();
    assert!(site.reload().is_ok());
    // A device's certificate in the place of the server's.
    let device = site.device("meter-7");
    for file in ["server.crt", "server.key"] {
        std::fs::remove_file(site.path(file)).unwrap();
    }
    device
        .write(&site.path("server.crt"), &site.path("server.key"))
        .unwrap();
    let mistakes = site.reload().unwrap_err().join("\n");
    assert!(
        mistakes.contains("it is not a server's certificate"),
        "{mistakes}"
    );
    site.broker.stop();
}

#[test]
fn a_list_that_nobody_renewed_holds_or_closes_the_door() {
    for (rule, gets_in) in [("", true), ("crl_overdue = \"refuse\"\n", false)] {
        let mut site = Site::start(&format!("crl = \"crl.pem\"\n{rule}"));
        let certificate = site.device("device");
        let device = site.client(&certificate);
        let mut connected = site.connected(&device, "device");
        site.revoke(&[], 2025);
        assert!(site.reload().is_ok());
        assert!(site.check().unwrap()[0].contains("past its nextUpdate"));
        // Resumed, and in full.
        let resumed = site.handshakes()[1].1;
        assert_eq!(site.gets_in(&device, "another"), gets_in, "{rule}");
        assert_eq!(site.handshakes()[1].1, resumed + 1);
        assert_eq!(
            site.gets_in(&site.client(&certificate), "another"),
            gets_in,
            "{rule}"
        );
        assert_eq!(connected.ping(), Some(Vec::new()));
        let metrics = site.metrics();
        assert!(metrics.contains("mqtt_broker_tls_crl_overdue{listener=\"mqtts\"} 1"));
        site.revoke(&[], 2040);
        assert!(site.reload().is_ok());
        assert!(site.gets_in(&device, "another"));
        site.broker.stop();
    }
}

#[test]
fn only_what_the_inventory_has_as_issued_connects() {
    let mut site = Site::start("allow_list = \"pki/inventory.jsonl\"\n");
    let [known, unknown, later] = ["known", "unknown", "later"].map(|name| site.device(name));
    site.note(&known, "issued");
    let device = site.client(&known);
    // Nobody has looked yet: the refusal looks itself.
    let mut connected = site.connected(&device, "known");
    assert!(!site.gets_in(&site.client(&unknown), "unknown"));
    let newcomer = site.client(&later);
    assert!(!site.gets_in(&newcomer, "later"));
    site.note(&later, "issued");
    let mut of_later = site.connected(&newcomer, "later");
    assert_eq!(site.listed(), "2");
    // Taken back: the connection goes, and its session is of no use.
    site.note(&known, "revoked");
    let server = site.broker.running().server().clone();
    site.reloader.look(&server);
    assert_eq!(
        connected.take(),
        Some(Got::Disconnect(ReasonCode::NotAuthorized))
    );
    let resumed = site.handshakes()[1].1;
    assert!(!site.gets_in(&device, "known"));
    assert_eq!(site.handshakes()[1].1, resumed + 1);
    assert!(!site.gets_in(&site.client(&known), "known"));
    assert_eq!(of_later.ping(), Some(Vec::new()));
    // A status of a later version; a line that cannot be read.
    site.append("{\"torn\n");
    site.note(&unknown, "issued");
    assert!(!site.gets_in(&site.client(&unknown), "unknown"));
    assert_eq!(of_later.ping(), Some(Vec::new()));
    assert!(
        site.metrics()
            .contains("mqtt_broker_tls_allow_list_broken{listener=\"mqtts\"} 1")
    );
    let mistakes = site.reload().unwrap_err().join("\n");
    for part in ["allow_list", "inventory.jsonl: line "] {
        assert!(mistakes.contains(part), "{mistakes}");
    }
    assert!(site.check().is_err());
    let refused = site.broker.running().server().listeners()[0].refused(Refusal::Tls);
    assert_eq!(refused, 5);
    site.broker.stop();
}

#[test]
fn a_client_identifier_is_the_name_of_its_certificate_where_that_is_the_rule() {
    let site = Site::start_with("client_id = \"user\"\n", "");
    let certificate = site.device("meter-7");
    let device = site.client(&certificate);
    let port = site.broker.address("mqtts").port();
    for (id, version, expected) in [
        (
            "meter-7",
            ProtocolVersion::V5,
            Got::ConnAck(false, ReasonCode::Success),
        ),
        (
            "meter-8",
            ProtocolVersion::V5,
            Got::ConnAck(false, ReasonCode::ClientIdentifierNotValid),
        ),
        (
            "meter-8",
            ProtocolVersion::V3_1_1,
            Got::ConnAck(false, ReasonCode::ClientIdentifierNotValid),
        ),
        (
            "",
            ProtocolVersion::V3_1_1,
            Got::ConnAck(false, ReasonCode::Success),
        ),
    ] {
        let mut client = Client::open_tls(port, device.clone(), version);
        let hello = Hello {
            version,
            ..Hello::clean(id)
        };
        client.send_bytes(&hello.bytes());
        assert_eq!(client.take(), Some(expected), "{id} {version}");
    }
    // Its session is that of the name.
    let mut client = Client::open_tls(port, device, ProtocolVersion::V5);
    client.send_bytes(&Hello::clean("").bytes());
    assert!(matches!(
        client.take(),
        Some(Got::ConnAck(_, ReasonCode::Success))
    ));
    let broker = site.broker.running().server().broker();
    assert!(broker.session("meter-7").is_some());
    site.broker.stop();
}

#[test]
fn the_rule_of_client_identifiers_holds_for_who_is_connected() {
    let mut site = Site::start("");
    let certificate = site.device("meter-7");
    let device = site.client(&certificate);
    let mut its_own = site.connected(&device, "meter-7");
    let mut another = site.connected(&device, "meter-8");
    let file = site.path("motemq.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("[listeners.tls]", "client_id = \"user\"\n[listeners.tls]");
    std::fs::write(&file, text).unwrap();
    assert!(site.reload().is_ok());
    let expected = Some(Got::Disconnect(ReasonCode::NotAuthorized));
    assert_eq!(another.take(), expected);
    assert_eq!(its_own.ping(), Some(Vec::new()));
    site.broker.stop();
}

#[test]
fn metrics_say_how_long_certificates_and_lists_last() {
    let site = Site::start("crl = \"crl.pem\"\n");
    let metrics = site.metrics();
    let days = |of: &str| {
        let name = "mqtt_broker_cert_expiry_timestamp_seconds";
        let name = format!("{name}{{listener=\"mqtts\",of=\"{of}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        let line = line.unwrap_or_else(|| panic!("no {of} in {metrics}"));
        let now_s = motemq::clock::now().as_ms() as f64 / 1e3;
        (line.parse::<f64>().unwrap() - now_s) / (24.0 * 60.0 * 60.0)
    };
    assert!((396.0..397.1).contains(&days("certificate")));
    assert!((7304.0..7305.1).contains(&days("client_ca")));
    assert!((3000.0..6000.0).contains(&days("crl")));
    assert_eq!(site.check().unwrap(), Vec::<String>::new());
    // Soon it must be renewed.
    let names = ["localhost".to_owned()];
    let order = Order::server(&names).unwrap().valid(Validity::Days(29));
    let server = site.authority.issue(&order, KeyType::P256).unwrap();
    let files = ["server.crt", "server.key"].map(|name| site.path(name));
    files
        .iter()
        .for_each(|file| std::fs::remove_file(file).unwrap());
    server.write(&files[0], &files[1]).unwrap();
    let warnings = site.check().unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].contains("server.crt: a certificate expires in 29 days"),
        "{warnings:?}"
    );
    site.broker.stop();
}

struct Site {
    folder: TempDir,
    authority: Authority,
    broker: InProcess,
    reloader: Reloader,
}

impl Site {
    /// With these lines in the section of TLS.
    fn start(tls: &str) -> Self {
        Self::start_with("", tls)
    }

    fn start_with(listener: &str, tls: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let authority = Authority::create(&path("pki"), "test").unwrap();
        let server = authority.issue_server(&["localhost".to_owned()]).unwrap();
        server
            .write(&path("server.crt"), &path("server.key"))
            .unwrap();
        write_list(&path("pki"), &path("crl.pem"), &[], 2040);
        std::fs::write(path("pki/inventory.jsonl"), "").unwrap();
        let text = format!(
            "data_dir = \"\"\n[http]\nbind = \"\"\n[[listeners]]\nname = \"mqtts\"\nbind = \"127.0.0.1:0\"\n{listener}\
             [listeners.tls]\ncert = \"server.crt\"\nkey = \"server.key\"\nclient_ca = \"pki/ca.crt\"\n{tls}\n"
        );
        std::fs::write(path("motemq.toml"), text).unwrap();
        let (broker, reloader) = InProcess::from_file(&path("motemq.toml"));
        Self {
            folder,
            authority,
            broker,
            reloader,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn device(&self, id: &str) -> Issued {
        self.authority.issue_device(id).unwrap()
    }

    /// A client with sessions of its own.
    fn client(&self, certificate: &Issued) -> Arc<ClientConfig> {
        tls_config(&self.path("pki/ca.crt"), Some(certificate))
    }

    fn connected(&self, config: &Arc<ClientConfig>, id: &str) -> Client {
        self.connect(config, id)
            .unwrap_or_else(|| panic!("{id} does not get in"))
    }

    fn gets_in(&self, config: &Arc<ClientConfig>, id: &str) -> bool {
        self.connect(config, id).is_some()
    }

    fn connect(&self, config: &Arc<ClientConfig>, id: &str) -> Option<Client> {
        let port = self.broker.address("mqtts").port();
        let mut client = Client::open_tls(port, config.clone(), ProtocolVersion::V5);
        client.send_bytes(&Hello::clean(id).bytes());
        match client.take() {
            Some(Got::ConnAck(_, ReasonCode::Success)) => Some(client),
            None => None,
            other => panic!("{other:?} for {id}"),
        }
    }

    fn revoke(&self, revoked: &[&Issued], due_year: i32) {
        write_list(&self.path("pki"), &self.path("crl.pem"), revoked, due_year);
    }

    /// Appends what holds for a certificate from now on.
    fn note(&self, issued: &Issued, status: &str) {
        let entry = Entry::issued(&Order::device("x").unwrap(), issued);
        let line = serde_json::to_string(&entry).unwrap();
        let line = line.replace("\"issued\"", &format!("\"{status}\""));
        self.append(&format!("{line}\n"));
    }

    fn append(&self, text: &str) {
        let file = File::options()
            .append(true)
            .open(self.path("pki/inventory.jsonl"));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn reload(&mut self) -> Result<(), Vec<String>> {
        let server = self.broker.running().server().clone();
        let result = self.reloader.reload_and_report(&server);
        result.map(|_| ()).map_err(|mistakes| mistakes.0)
    }

    /// As `motemq check`.
    fn check(&self) -> Result<Vec<String>, String> {
        let config = self.broker.running().server().listeners()[0]
            .config()
            .clone();
        let config = motemq::config::Config {
            listeners: vec![config],
            ..motemq::config::Config::default()
        };
        check(&config).map_err(|error| error.to_string())
    }

    /// How many there were, full ones and resumed ones.
    fn handshakes(&self) -> [(&'static str, u64); 2] {
        self.broker.running().server().listeners()[0].handshakes()
    }

    fn metrics(&self) -> String {
        motemq::metrics::render(self.broker.running().server())
    }

    /// Certificates in the allow-list.
    fn listed(&self) -> String {
        let name = "mqtt_broker_tls_allow_list_certificates{listener=\"mqtts\"} ";
        let metrics = self.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().to_owned()
    }
}
