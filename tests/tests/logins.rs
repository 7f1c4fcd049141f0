//! Who may log in, and for how long: the order of sources, mosquitto's password files, tokens, and what a reload ends; over sockets.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::clock;
use motemq::config::{Sources, load_with_settings};
use motemq::password::{remove_user, set_user};
use motemq::reload::Reloader;
use motemq_codec::ReasonCode;
use motemq_tests::in_process::InProcess;
use motemq_tests::peer::{Got, Hello};
use motemq_tests::socket::Client;
use motemq_tests::token::{Signer, key_set};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

const OK: ReasonCode = ReasonCode::Success;
const WRONG: ReasonCode = ReasonCode::BadUserNameOrPassword;
const REFUSED: ReasonCode = ReasonCode::NotAuthorized;

#[test]
fn sources_decide_in_their_order() {
    let mut site = Site::start("");
    let token = site.token("gateway");
    let foreign = Signer::new(9).token(&claims("gateway", ""));
    let cases: [(Option<&str>, Option<&str>, ReasonCode); 11] = [
        (Some("anna"), Some("first"), OK),
        (Some("anna"), Some("second"), WRONG),
        (Some("anna"), None, WRONG),
        (Some("nobody"), Some("first"), WRONG),
        (Some("nobody"), Some("a.b.c"), WRONG),
        (Some("nobody"), Some(&token), OK),
        (None, Some(&token), OK),
        (Some("nobody"), Some(&foreign), REFUSED),
        (Some("anna"), Some(&foreign), REFUSED),
        (None, Some("first"), REFUSED),
        (None, None, REFUSED),
    ];
    for (user, password, code) in cases {
        assert_eq!(
            site.try_login(user, password),
            code,
            "{user:?} {password:?}"
        );
    }
    // A user's password is asked for first: a token in its place is none.
    assert_eq!(site.try_login(Some("anna"), Some(&token)), REFUSED);
    site.configure("order = [\"jwt\", \"password\"]", "");
    assert!(site.reload());
    assert_eq!(site.try_login(Some("anna"), Some(&token)), OK);
    assert_eq!(site.try_login(Some("anna"), Some("first")), OK);
    assert_eq!(site.try_login(Some("nobody"), Some("first")), WRONG);
    site.stop();
}

/// Whoever shows something that nobody knows is not nobody.
#[test]
fn wrong_credentials_are_not_anonymous() {
    let site = Site::start("anonymous = true");
    let token = site.token("gateway");
    let foreign = Signer::new(9).token(&claims("gateway", ""));
    for (user, password, code) in [
        (None, None, OK),
        (Some("anna"), Some("second"), WRONG),
        (Some("nobody"), Some("first"), WRONG),
        (Some("nobody"), None, WRONG),
        (None, Some(foreign.as_str()), REFUSED),
        (None, Some("first"), REFUSED),
        (None, Some(&token), OK),
    ] {
        assert_eq!(
            site.try_login(user, password),
            code,
            "{user:?} {password:?}"
        );
    }
    site.stop();
}

#[test]
fn mosquittos_file_is_read_as_it_is_beside_ours() {
    let mut site = Site::start("");
    site.write("theirs", MOSQUITTO);
    site.configure("mosquitto_password_file = \"theirs\"", "");
    assert!(site.reload());
    for (user, password, code) in [
        ("anna", "first", OK),
        ("seven", "secret", OK),
        ("six", "secret", OK),
        ("seven", "Secret", WRONG),
        ("six", "", WRONG),
        ("nobody", "secret", WRONG),
    ] {
        let found = site.try_login(Some(user), Some(password));
        assert_eq!(found, code, "{user} {password}");
    }
    // A user in both: the reload says no, and everything stays.
    set_user(&site.path("users"), "six", b"other").unwrap();
    assert!(!site.reload());
    assert_eq!(site.try_login(Some("six"), Some("secret")), OK);
    let (config, _) = load_with_settings(&site.sources()).unwrap();
    let error = motemq::server::check(&config).unwrap_err().to_string();
    assert!(
        error.contains("user \"six\" is in") && error.contains("auth.mosquitto_password_file"),
        "{error}"
    );
    site.stop();
}

#[test]
fn a_token_ends_its_connection_when_it_expires() {
    let mut site = Site::start("");
    site.configure("", "leeway_s = 0");
    assert!(site.reload());
    let soon = now_s() + 2;
    let token = site
        .signer
        .token(&format!("{{\"sub\":\"g\",\"exp\":{soon}}}"));
    let mut client = site.connect(&Hello {
        password: Some(&token),
        ..Hello::clean("g")
    });
    assert_eq!(client.ping(), Some(Vec::new()));
    assert_eq!(client.take(), Some(Got::Disconnect(REFUSED)));
    assert_eq!(client.take(), None);
    assert!(now_s() >= soon);
    assert_eq!(site.try_login(None, Some(&token)), REFUSED);
    site.stop();
}

#[test]
fn a_token_says_what_its_client_may_do_and_who_that_is() {
    let mut site = Site::start("");
    site.configure("", "client_id_claim = \"client\"");
    assert!(site.reload());
    let more = ",\"client\":\"meter\",\"acl\":{\"pub\":[\"m/%c/up\"],\"sub\":[\"m/%u/#\"]}";
    let token = site.signer.token(&claims("user", more));
    let hello = Hello {
        password: Some(&token),
        ..Hello::clean("meter")
    };
    let mut client = site.connect(&hello);
    assert_eq!(client.subscribe("m/user/#", 1), 1);
    assert!(client.subscribe("m/meter/#", 1) >= 0x80);
    for (topic, is_allowed) in [("m/meter/up", true), ("m/user/up", false), ("x", false)] {
        client.publish(topic, "x", 1, 7);
        let Some(Got::Ack("PUBACK", 7, code)) = client.take() else {
            panic!("PUBACK expected");
        };
        assert_eq!(code != REFUSED, is_allowed, "{topic}: {code:?}");
    }
    let other = Hello {
        id: "other",
        ..hello
    };
    assert_eq!(site.refusal(&other), REFUSED);
    site.stop();
}

#[test]
fn a_reload_ends_the_logins_that_no_longer_stand_and_no_other() {
    let mut site = Site::start("");
    let second = Signer::new(2);
    let both = key_set(&[&site.signer, &second]);
    site.write("jwks.json", &both);
    site.write("theirs", MOSQUITTO);
    for user in ["removed", "changed", "moved", "kept"] {
        set_user(&site.path("users"), user, b"first").unwrap();
    }
    site.configure("mosquitto_password_file = \"theirs\"", "");
    assert!(site.reload());
    let (gone, kept) = (second.token(&claims("t", "")), site.token("t"));
    let mut ended: Vec<_> = ["removed", "changed", "moved"]
        .map(|user| (user, site.log_in(user, "first")))
        .into();
    ended.push(("token", site.connect(&with_token("gone", &gone))));
    ended.push(("six", site.log_in("six", "secret")));
    let mut staying = [
        site.log_in("kept", "first"),
        site.log_in("seven", "secret"),
        site.connect(&with_token("stays", &kept)),
    ];
    assert_eq!(ended[0].1.subscribe("t", 1), 1);
    // A reload that changes nothing ends nothing.
    assert!(site.reload());
    for client in ended
        .iter_mut()
        .map(|(_, client)| client)
        .chain(&mut staying)
    {
        assert_eq!(client.ping(), Some(Vec::new()));
    }
    remove_user(&site.path("users"), "removed").unwrap();
    set_user(&site.path("users"), "changed", b"second").unwrap();
    // The same password, in another line.
    set_user(&site.path("users"), "moved", b"first").unwrap();
    let without_six: Vec<_> = MOSQUITTO.lines().take(1).collect();
    site.write("theirs", &without_six.join("\n"));
    site.write("jwks.json", &key_set(&[&site.signer]));
    assert!(site.reload());
    for (name, client) in &mut ended {
        // Idle, and told at once.
        assert_eq!(client.take(), Some(Got::Disconnect(REFUSED)), "{name}");
        assert_eq!(client.take(), None);
    }
    for client in &mut staying {
        assert_eq!(client.ping(), Some(Vec::new()));
    }
    // The sessions stay: their owners may come back, and get what came meanwhile.
    let mut publisher = site.log_in("kept", "first");
    publisher.publish("t", "late", 1, 1);
    assert!(matches!(publisher.take(), Some(Got::Ack("PUBACK", 1, OK))));
    assert_eq!(
        site.try_login_as("removed", Some("removed"), Some("first")),
        WRONG
    );
    set_user(&site.path("users"), "removed", b"third").unwrap();
    assert!(site.reload());
    let mut back = site.log_in("removed", "third");
    assert_eq!(back.take_publish().payload, "late");
    site.stop();
}

/// A login that was being checked while the reload came is asked about as well.
#[test]
fn logins_during_reloads_are_never_of_a_removed_user() {
    let mut site = Site::start("");
    let port = site.port();
    for _ in 0..5 {
        set_user(&site.path("users"), "brief", b"first").unwrap();
        assert!(site.reload());
        remove_user(&site.path("users"), "brief").unwrap();
        let clients: Vec<_> = (0..6)
            .map(|number| {
                std::thread::spawn(move || {
                    let id = format!("brief-{number}");
                    let hello = Hello {
                        username: Some("brief"),
                        password: Some("first"),
                        ..Hello::clean(&id)
                    };
                    let mut client = Client::open(port, hello.version);
                    client.send_bytes(&hello.bytes());
                    client.take_all()
                })
            })
            .collect();
        assert!(site.reload());
        for client in clients {
            let last = client.join().unwrap().pop();
            assert!(
                matches!(
                    last,
                    Some(Got::Disconnect(REFUSED) | Got::ConnAck(false, WRONG))
                ),
                "{last:?}"
            );
        }
    }
    site.stop();
}

#[test]
fn an_address_with_too_many_checks_waiting_is_told_to_come_back() {
    let mut site = Site::start("");
    site.configure("", "[limits]\npassword_checks_per_address_max = 1");
    assert!(site.reload());
    let port = site.port();
    let attempts: Vec<_> = (0..20)
        .map(|number| {
            std::thread::spawn(move || {
                let id = format!("attempt-{number}");
                let hello = Hello {
                    username: Some("anna"),
                    password: Some("wrong"),
                    ..Hello::clean(&id)
                };
                refusal(port, &hello)
            })
        })
        .collect();
    let codes: Vec<_> = attempts
        .into_iter()
        .map(|attempt| attempt.join().unwrap())
        .collect();
    let of = |code| codes.iter().filter(|found| **found == code).count();
    let (checked, refused) = (of(WRONG), of(ReasonCode::ServerBusy));
    assert_eq!(checked + refused, 20, "{codes:?}");
    assert!(checked >= 3 && refused >= 1, "{codes:?}");
    let metrics = motemq::metrics::render(site.broker.running().server());
    let line = format!("mqtt_broker_password_checks_refused_total {refused}\n");
    assert!(metrics.contains(&line), "{metrics}");
    // Whoever comes later is served.
    assert_eq!(site.try_login(Some("anna"), Some("first")), OK);
    site.stop();
}

/// A broker with a password file, a key file and one listener, from files.
struct Site {
    folder: TempDir,
    broker: InProcess,
    reloader: Reloader,
    signer: Signer,
    listener: String,
    attempts: AtomicUsize,
}

impl Site {
    fn start(listener: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("motemq.toml");
        let signer = Signer::new(1);
        std::fs::write(folder.path().join("jwks.json"), key_set(&[&signer])).unwrap();
        set_user(&folder.path().join("users"), "anna", b"first").unwrap();
        std::fs::write(&file, configuration(listener, "", "")).unwrap();
        let (broker, reloader) = InProcess::from_file(&file);
        Self {
            broker,
            reloader,
            signer,
            listener: listener.to_owned(),
            attempts: AtomicUsize::new(0),
            folder,
        }
    }

    fn sources(&self) -> Sources<'_> {
        // Kept for the time of the call by the folder.
        Sources {
            file: Some(Box::leak(self.path("motemq.toml").into_boxed_path())),
            ..Sources::default()
        }
    }

    fn configure(&self, auth: &str, jwt: &str) {
        let text = configuration(&self.listener, auth, jwt);
        self.write("motemq.toml", &text);
    }

    fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(self.path(name), text).unwrap();
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), private).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn reload(&mut self) -> bool {
        let server = self.broker.running().server().clone();
        self.reloader.reload(&server)
    }

    fn port(&self) -> u16 {
        self.broker.address("mqtt").port()
    }

    fn token(&self, user: &str) -> String {
        self.signer.token(&claims(user, ""))
    }

    fn connect(&self, hello: &Hello<'_>) -> Client {
        Client::connect(self.port(), hello)
    }

    fn log_in(&self, user: &str, password: &str) -> Client {
        self.connect(&Hello {
            username: Some(user),
            password: Some(password),
            ..Hello::durable(user)
        })
    }

    /// The code of CONNACK.
    fn try_login(&self, username: Option<&str>, password: Option<&str>) -> ReasonCode {
        // An identifier of its own: the session of the one before may still be there for a moment.
        let number = self.attempts.fetch_add(1, Ordering::Relaxed);
        self.try_login_as(&format!("attempt-{number}"), username, password)
    }

    fn try_login_as(&self, id: &str, username: Option<&str>, password: Option<&str>) -> ReasonCode {
        self.refusal(&Hello {
            username,
            password,
            ..Hello::clean(id)
        })
    }

    fn refusal(&self, hello: &Hello<'_>) -> ReasonCode {
        refusal(self.port(), hello)
    }

    fn stop(self) {
        self.broker.stop();
    }
}

fn refusal(port: u16, hello: &Hello<'_>) -> ReasonCode {
    let mut client = Client::open(port, hello.version);
    client.send_bytes(&hello.bytes());
    match client.take() {
        Some(Got::ConnAck(false, code)) => code,
        other => panic!("{other:?}"),
    }
}

fn with_token<'a>(id: &'a str, token: &'a str) -> Hello<'a> {
    Hello {
        password: Some(token),
        ..Hello::clean(id)
    }
}

fn claims(user: &str, more: &str) -> String {
    format!("{{\"sub\":\"{user}\",\"exp\":{}{more}}}", now_s() + 600)
}

fn now_s() -> u64 {
    clock::now().as_ms() / 1000
}

fn configuration(listener: &str, auth: &str, jwt: &str) -> String {
    format!(
        "data_dir = \"\"\n[[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:0\"\n{listener}\n\
         [http]\nbind = \"\"\n[auth]\npassword_file = \"users\"\n{auth}\n\
         [auth.jwt]\nkeys_file = \"jwks.json\"\n{jwt}\n"
    )
}

/// Of "secret", as mosquitto_passwd 2.0.11 writes it in its two ways.
const MOSQUITTO: &str = "seven:$7$101$zyCcUFfglRT50qz4$GtKJ4lt1fnqw5IifX+P8pwdRcCGuDYr16qKKXHzgDtwXvX41K24tpd8DLzj3FjteokwatqKyVrCAC7uFVaxYCw==\nsix:$6$nTv0TzhDfuFACvC4$PufhEoaNlWM24E64OL57tYHDiuaMstx8vIMdX1fnh3IPU3lBvBKsUXICJ7a3gckwWaVHmMZMD4iBjikTjOk0Vg==\n";
