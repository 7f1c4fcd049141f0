//! Which keys there are, what each accepts, and what they must not contradict.
//!
//! This file is the table of keys: one line asks for one key, with its default and its range. Defaults come from
//! `settings.rs`. A key that is not asked for here is unknown.
//!
//! Does not know: where a value was written.

use super::error::{Place, Problem};
use super::number::{Range, Unit};
use super::section::{Reader, Section};
use super::settings::{
    AnonymousAccess, AuthConfig, ClientCert, Config, Durability, HttpConfig, Identity,
    LimitsConfig, ListenerConfig, LogConfig, LogFormat, MqttConfig, PersistenceConfig, QueueFull,
    ShareRedispatch, ShareStrategy, SharedSubscriptionsConfig, TlsConfig,
};
use std::net::SocketAddr;
use toml::de::DeTable;
use tracing_subscriber::EnvFilter;

/// Reads each field of a settings struct as the key of the same name: `key: kind(what it accepts)`.
macro_rules! read {
    ($section:ident, $default:ident, $settings:ident { $($key:ident: $kind:ident($($accepted:expr)?),)* }) => {
        $settings { $($key: $section.$kind(stringify!($key), $default.$key $(, $accepted)?),)* }
    };
}

/// Reads a document; mistakes are left with the reader.
pub(super) fn config<'a>(reader: &mut Reader<'a>, document: &'a DeTable<'a>) -> Config {
    let default = Config::default();
    let mut root = Section::root(reader, document);
    let mut addresses = Addresses::default();
    let config = Config {
        data_dir: root.path("data_dir", default.data_dir.as_deref()),
        listeners: listeners(&mut root, &mut addresses),
        limits: limits(root.table("limits", "limits")),
        mqtt: mqtt(root.table("mqtt", "mqtt")),
        shared_subscriptions: shared_subscriptions(
            root.table("shared_subscriptions", "shared_subscriptions"),
        ),
        persistence: persistence(root.table("persistence", "persistence")),
        http: http(root.table("http", "http"), &mut addresses),
        auth: auth(root.table("auth", "auth")),
        log: log(root.table("log", "log")),
    };
    root.finish();
    config
}

fn listeners(root: &mut Section<'_, '_>, addresses: &mut Addresses) -> Vec<ListenerConfig> {
    let Some(tables) = root.array("listeners") else {
        let place = root.place();
        let section = root.element("listeners", None, place);
        return vec![default_listener(section, addresses)];
    };
    let mut listeners: Vec<ListenerConfig> = Vec::new();
    for (table, place) in tables {
        let mut section = root.element("listeners", Some(table), place);
        let name = name(&mut section, &listeners);
        let address = address(&mut section);
        listeners.push(listener(section, name, address, addresses));
    }
    listeners
}

/// The listener of a document without any; flags and variables address it by its name.
fn default_listener(mut section: Section<'_, '_>, addresses: &mut Addresses) -> ListenerConfig {
    let default = ListenerConfig::default();
    section.accept_overrides(&format!("listeners.{}", default.name));
    let address = match section.is_written("bind") {
        true => address(&mut section),
        false => Some((default.bind, Place::Default)),
    };
    listener(section, default.name, address, addresses)
}

/// The name of a listener, from the file alone; afterwards overrides count.
fn name(section: &mut Section<'_, '_>, others: &[ListenerConfig]) -> String {
    let Some((name, place)) = section.required_text("name") else {
        return String::new();
    };
    let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if !name.bytes().all(is_allowed) || name.len() > LISTENER_NAME_BYTES_MAX || name.contains("__")
    {
        let expected =
            "1 to 32 lower-case letters, digits, \"-\" and single \"_\", such as \"mqtts\"";
        section.malformed("name", place, expected, name);
        return String::new();
    }
    let is_same = |other: &ListenerConfig| other.name.replace('-', "_") == name.replace('-', "_");
    if others.iter().any(is_same) {
        section
            .reader
            .report(place, Problem::DuplicateName(name.clone()));
    }
    section.accept_overrides(&format!("listeners.{name}"));
    name
}

fn address(section: &mut Section<'_, '_>) -> Option<(SocketAddr, Place)> {
    let (text, place) = section.required_text("bind")?;
    if text.starts_with("unix:") {
        let instead = "bind to an IP address and port such as \"127.0.0.1:1883\"";
        not_in_this_version(section, "bind", place, text, instead);
        return None;
    }
    section.parse_address("bind", text, place)
}

fn listener(
    mut section: Section<'_, '_>,
    name: String,
    address: Option<(SocketAddr, Place)>,
    addresses: &mut Addresses,
) -> ListenerConfig {
    let default = ListenerConfig::default();
    let bind = address
        .as_ref()
        .map_or(default.bind, |(address, _)| *address);
    addresses.take(&mut section, "bind", address);
    protocol(&mut section);
    let anonymous = section.choice("anonymous", default.anonymous, ANONYMOUS);
    let max_connections = section.number(
        "max_connections",
        default.max_connections,
        count(1, 10_000_000),
    );
    let qos_max = section.number("qos_max", default.qos_max, count(0, 2));
    let has_tls = section.has_table("tls");
    let tls = has_tls.then(|| tls(section.table("tls", "listeners.tls")));
    section.finish();
    ListenerConfig {
        name,
        bind,
        anonymous,
        max_connections,
        qos_max,
        tls,
    }
}

fn protocol(section: &mut Section<'_, '_>) {
    match section.text("protocol") {
        Some((text, place)) if text == "ws" => {
            let instead = "leave the key out: MQTT over TCP or TLS is the only protocol";
            not_in_this_version(section, "protocol", place, text, instead);
        }
        Some((text, place)) if text != "mqtt" => {
            section.unknown_value("protocol", place, text, &[("mqtt", ())])
        }
        _ => {}
    }
}

fn tls(mut section: Section<'_, '_>) -> TlsConfig {
    let cert = section.required_path("cert");
    let key = section.required_path("key");
    let client_ca = section.path("client_ca", None);
    let asked_for = if client_ca.is_some() {
        ClientCert::Required
    } else {
        ClientCert::None
    };
    let client_cert = section.choice("client_cert", asked_for, CLIENT_CERT);
    let is_asked_for = client_cert != ClientCert::None;
    let named_by = if is_asked_for {
        Identity::Cn
    } else {
        Identity::None
    };
    let identity = section.choice("identity", named_by, IDENTITY);
    let record_bytes_max = section.number("record_bytes_max", 16_384, bytes(512, 16_384));
    if is_asked_for && client_ca.is_none() {
        needs(
            &mut section,
            "client_cert",
            "client_ca, the authorities that sign client certificates",
        );
    } else if !is_asked_for && identity != Identity::None {
        needs(
            &mut section,
            "identity",
            "client_ca, and client_cert = \"required\" or \"optional\"",
        );
    }
    section.finish();
    TlsConfig {
        cert,
        key,
        client_ca,
        client_cert,
        identity,
        record_bytes_max,
    }
}

fn limits(mut section: Section<'_, '_>) -> LimitsConfig {
    let default = LimitsConfig::default();
    let packet = bytes(256, PACKET_BYTES_MAX);
    let held = bytes(KIB, TIB);
    let items = count(1, 1_000_000_000);
    let limits = read!(
        section,
        default,
        LimitsConfig {
            packet_bytes_max: number(packet),
            payload_bytes_max: number(bytes(1, PACKET_BYTES_MAX)),
            connect_packet_bytes_max: number(packet),
            receive_maximum: number(count(1, 65_535)),
            inflight_messages_max: number(count(1, 65_535)),
            queue_messages_max: number(items),
            queue_bytes_max: number(held),
            queue_full: choice(QUEUE_FULL),
            session_expiry_max_s: number(seconds(1, 4_294_967_295)),
            keep_alive_max_s: number(seconds(1, 65_535)),
            topic_levels_max: number(count(1, 65_535)),
            topic_alias_max: number(count(0, 65_535)),
            subscriptions_max: number(items),
            retained_messages_max: number(items),
            retained_bytes_max: number(held),
            unauthenticated_max: number(count(1, 10_000_000)),
            connect_timeout_s: number(seconds(1, 3_600)),
            mailbox_memory_bytes: number(bytes(KIB, GIB)),
        }
    );
    section.finish();
    limits
}

fn mqtt(mut section: Section<'_, '_>) -> MqttConfig {
    let default = MqttConfig::default();
    let response_information = section.text("response_information").map_or(
        default.response_information,
        |(text, place)| {
            let is_sendable =
                text.len() <= RESPONSE_INFORMATION_BYTES_MAX && !text.contains(['\0', '+', '#']);
            if !is_sendable {
                let expected =
                    "the beginning of response topics, at most 1024 bytes, such as \"reply/%c/\"";
                section.malformed("response_information", place, expected, text.clone());
            }
            text
        },
    );
    section.finish();
    MqttConfig {
        response_information,
    }
}

fn shared_subscriptions(mut section: Section<'_, '_>) -> SharedSubscriptionsConfig {
    let default = SharedSubscriptionsConfig::default();
    let shared = read!(
        section,
        default,
        SharedSubscriptionsConfig {
            strategy: choice(SHARE_STRATEGY),
            redispatch: choice(SHARE_REDISPATCH),
        }
    );
    section.finish();
    shared
}

fn persistence(mut section: Section<'_, '_>) -> PersistenceConfig {
    let default = PersistenceConfig::default();
    let persistence = read!(
        section,
        default,
        PersistenceConfig {
            durability: choice(DURABILITY),
            two_phase_commit: flag(),
            commit_delay_ms: number(milliseconds(0, 1_000)),
            journal_bytes_max: number(bytes(MIB, TIB)),
            reserve_bytes: number(bytes(0, TIB)),
            store_bytes_max: number(or_zero(bytes(64 * MIB, 1_024 * TIB))),
            cache_bytes: number(bytes(MIB, TIB)),
            fold_rows_max: number(count(1, 1_000_000)),
            fold_ms_max: number(milliseconds(1, 10_000)),
            journal_queue_bytes_max: number(bytes(64 * KIB, 64 * GIB)),
        }
    );
    section.finish();
    persistence
}

fn http(mut section: Section<'_, '_>, addresses: &mut Addresses) -> HttpConfig {
    let default = HttpConfig::default();
    let bind = optional_address(&mut section, "bind", default.bind, addresses);
    let metrics_bind = optional_address(
        &mut section,
        "metrics_bind",
        default.metrics_bind,
        addresses,
    );
    section.finish();
    HttpConfig { bind, metrics_bind }
}

/// An address that `""` turns off.
fn optional_address(
    section: &mut Section<'_, '_>,
    key: &'static str,
    default: Option<SocketAddr>,
    addresses: &mut Addresses,
) -> Option<SocketAddr> {
    let address = match section.text(key) {
        None => default.map(|address| (address, Place::Default)),
        Some((text, _)) if text.is_empty() => None,
        Some((text, place)) => section.parse_address(key, text, place),
    };
    let bind = address.as_ref().map(|(address, _)| *address);
    addresses.take(section, key, address);
    bind
}

fn auth(mut section: Section<'_, '_>) -> AuthConfig {
    let password_file = section.path("password_file", None);
    let scram_file = section.path("scram_file", None);
    section.finish();
    AuthConfig {
        password_file,
        scram_file,
    }
}

fn log(mut section: Section<'_, '_>) -> LogConfig {
    let default = LogConfig::default();
    let level = section
        .text("level")
        .map_or(default.level, |(level, place)| {
            check_level(&mut section, &level, place);
            level
        });
    let format = section.choice("format", default.format, LOG_FORMAT);
    section.finish();
    LogConfig { level, format }
}

/// A filter may be a bare target, so that `inof` would silently mean "all of a module called inof": a part without
/// `=` and spans has to be a level.
fn check_level(section: &mut Section<'_, '_>, level: &str, place: Place) {
    for part in level.split(',').map(str::trim) {
        let is_level = LEVELS
            .iter()
            .any(|(name, ())| name.eq_ignore_ascii_case(part));
        if !is_level && !part.contains(['=', '[', ']', '{', '}', '"']) {
            section.unknown_value("level", place, part.to_owned(), LEVELS);
            return;
        }
    }
    if EnvFilter::try_new(level).is_err() {
        let expected =
            "a level such as \"info\", or levels by target such as \"info,motemq=debug\"";
        section.malformed("level", place, expected, level.to_owned());
    }
}

/// The addresses taken so far, and by which keys.
#[derive(Debug, Default)]
struct Addresses(Vec<(SocketAddr, String)>);

impl Addresses {
    /// Takes an address for `key`; one that is taken is an error. Port 0 is never the same twice.
    fn take(
        &mut self,
        section: &mut Section<'_, '_>,
        key: &str,
        address: Option<(SocketAddr, Place)>,
    ) {
        let Some((address, place)) = address else {
            return;
        };
        let owner = self.0.iter().find(|(taken, _)| *taken == address);
        if let Some((_, owner)) = owner.filter(|_| address.port() != 0) {
            let (key, owner) = (section.full(key), owner.clone());
            section.reader.report(
                place,
                Problem::DuplicateBind {
                    key,
                    address,
                    owner,
                },
            );
        }
        self.0.push((address, section.full(key)));
    }
}

fn not_in_this_version(
    section: &mut Section<'_, '_>,
    key: &str,
    place: Place,
    found: String,
    instead: &str,
) {
    let (key, instead) = (section.full(key), instead.to_owned());
    let problem = Problem::NotInThisVersion {
        key,
        found,
        instead,
    };
    section.reader.report(place, problem);
}

/// Reports that the value written for `key` means nothing without something else.
fn needs(section: &mut Section<'_, '_>, key: &str, needs: &str) {
    let place = section.place_of(key);
    let (key, needs) = (section.full(key), needs.to_owned());
    section.reader.report(place, Problem::Needs { key, needs });
}

const fn count(min: u64, max: u64) -> Range {
    range(min, max, Unit::Count)
}

const fn bytes(min: u64, max: u64) -> Range {
    range(min, max, Unit::Bytes)
}

const fn seconds(min: u64, max: u64) -> Range {
    range(min, max, Unit::Seconds)
}

const fn milliseconds(min: u64, max: u64) -> Range {
    range(min, max, Unit::Milliseconds)
}

const fn range(min: u64, max: u64, unit: Unit) -> Range {
    let or_zero = false;
    Range {
        min,
        max,
        or_zero,
        unit,
    }
}

const fn or_zero(range: Range) -> Range {
    let or_zero = true;
    Range { or_zero, ..range }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// The largest packet that MQTT can express: 5 bytes of fixed header and 268,435,455 after it.
const PACKET_BYTES_MAX: u64 = 268_435_460;

/// It travels in every CONNACK that is asked for it.
const RESPONSE_INFORMATION_BYTES_MAX: usize = 1024;

/// Listeners' names are metric labels.
const LISTENER_NAME_BYTES_MAX: usize = 32;

const ANONYMOUS: &[(&str, AnonymousAccess)] = &[
    ("false", AnonymousAccess::Refused),
    ("true", AnonymousAccess::Allowed),
    ("loopback", AnonymousAccess::Loopback),
];

const CLIENT_CERT: &[(&str, ClientCert)] = &[
    ("required", ClientCert::Required),
    ("optional", ClientCert::Optional),
    ("none", ClientCert::None),
];

const IDENTITY: &[(&str, Identity)] = &[
    ("cn", Identity::Cn),
    ("san-uri", Identity::SanUri),
    ("san-dns", Identity::SanDns),
    ("none", Identity::None),
];

const QUEUE_FULL: &[(&str, QueueFull)] = &[
    ("drop-oldest", QueueFull::DropOldest),
    ("drop-newest", QueueFull::DropNewest),
    ("refuse", QueueFull::Refuse),
    ("disconnect", QueueFull::Disconnect),
];

const SHARE_STRATEGY: &[(&str, ShareStrategy)] = &[
    ("round-robin", ShareStrategy::RoundRobin),
    ("random", ShareStrategy::Random),
    ("sticky", ShareStrategy::Sticky),
    ("hash-client", ShareStrategy::HashClient),
    ("hash-topic", ShareStrategy::HashTopic),
];

const SHARE_REDISPATCH: &[(&str, ShareRedispatch)] = &[
    ("disconnect", ShareRedispatch::Disconnect),
    ("session-end", ShareRedispatch::SessionEnd),
];

const DURABILITY: &[(&str, Durability)] = &[
    ("commit", Durability::Commit),
    ("relaxed", Durability::Relaxed),
];

const LOG_FORMAT: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

const LEVELS: &[(&str, ())] = &[
    ("off", ()),
    ("error", ()),
    ("warn", ()),
    ("info", ()),
    ("debug", ()),
    ("trace", ()),
];
