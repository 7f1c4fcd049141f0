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
    AdminConfig, AnonymousAccess, AuthConfig, AuthSource, BanConfig, Bind, ClientCert, ClientIds,
    Config, CrlOverdue, Durability, EnrolmentConfig, HistoryConfig, HttpConfig, Identity,
    JwtConfig, LimitsConfig, ListenerConfig, LogConfig, LogFormat, MqttConfig, PersistenceConfig,
    ProfileConfig, Protocol, QueueFull, RateFull, ReloadConfig, ShareRedispatch, ShareStrategy,
    SharedSubscriptionsConfig, SysConfig, TlsConfig, TraceConfig, Watch,
};
use super::show::quoted_list;
use crate::listener::OPERATORS;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
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
    let data_dir = root.path("data_dir", default.data_dir.as_deref());
    let listeners = listeners(&mut root, &mut addresses);
    let has_certificates = listeners.iter().any(logs_in_by_certificate);
    let limits = limits(root.table("limits", "limits"));
    let profiles = profiles(&mut root, &limits, &listeners);
    let config = Config {
        data_dir,
        listeners,
        limits,
        profiles,
        mqtt: mqtt(root.table("mqtt", "mqtt")),
        shared_subscriptions: shared_subscriptions(
            root.table("shared_subscriptions", "shared_subscriptions"),
        ),
        persistence: persistence(root.table("persistence", "persistence")),
        http: http(root.table("http", "http"), &mut addresses),
        auth: auth(root.table("auth", "auth"), has_certificates),
        enrolment: enrolment(root.table("enrolment", "enrolment")),
        history: history(root.table("history", "history")),
        ban: ban(root.table("ban", "ban")),
        reload: reload(root.table("reload", "reload")),
        admin: admin(root.table("admin", "admin")),
        sys: sys(root.table("sys", "sys")),
        trace: trace(root.table("trace", "trace")),
        log: log(root.table("log", "log")),
    };
    if !config.enrolment.is_on() && config.listeners.iter().any(|listener| listener.enrolment) {
        let key = "listeners.enrolment".to_owned();
        let needs = "signer in [enrolment], the user name of the enrolment service".to_owned();
        let place = root.place();
        root.reader.report(place, Problem::Needs { key, needs });
    }
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
        let name = name(&mut section, "listeners", |name| {
            let is_same =
                |other: &ListenerConfig| other.name.replace('-', "_") == name.replace('-', "_");
            name == OPERATORS || listeners.iter().any(is_same)
        });
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
        false => {
            section.text_or("bind", &default.bind.to_string());
            Some((default.bind, Place::Default))
        }
    };
    listener(section, default.name, address, addresses)
}

/// The name of a listener or profile, from the file alone; afterwards overrides count.
fn name(section: &mut Section<'_, '_>, array: &str, is_taken: impl FnOnce(&str) -> bool) -> String {
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
    if is_taken(&name) {
        section
            .reader
            .report(place, Problem::DuplicateName(name.clone()));
    }
    section.accept_overrides(&format!("{array}.{name}"));
    name
}

fn address(section: &mut Section<'_, '_>) -> Option<(Bind, Place)> {
    let (text, place) = section.required_text("bind")?;
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() || path.contains('\0') {
            let expected = "unix: and the path of the socket, such as \"unix:/run/motemq.sock\"";
            section.malformed("bind", place, expected, text);
            return None;
        }
        let path = section.joined(path, &place);
        return Some((Bind::Unix(path), place));
    }
    let expected = "an IP address and port such as \"0.0.0.0:1883\" or \"[::]:1883\", or a Unix socket such as \"unix:/run/motemq.sock\"";
    let (address, place) = section.parse_address("bind", text, place, expected)?;
    Some((address.into(), place))
}

fn listener(
    mut section: Section<'_, '_>,
    name: String,
    address: Option<(Bind, Place)>,
    addresses: &mut Addresses,
) -> ListenerConfig {
    let default = ListenerConfig::default();
    let is_bound = address.is_some();
    let bind = address
        .as_ref()
        .map_or(default.bind, |(address, _)| address.clone());
    addresses.take(&mut section, "bind", address);
    let unix_mode = unix_mode(&mut section, default.unix_mode);
    let protocol = section.choice("protocol", default.protocol, PROTOCOL);
    let anonymous = section.choice("anonymous", default.anonymous, ANONYMOUS);
    let enrolment = section.flag("enrolment", default.enrolment);
    let client_id = section.choice("client_id", default.client_id, CLIENT_IDS);
    let max_connections = section.number(
        "max_connections",
        default.max_connections,
        count(1, 10_000_000),
    );
    let publish_rate_max = section.number(
        "publish_rate_max",
        default.publish_rate_max,
        or_zero(count(1, 1_000_000_000)),
    );
    let publish_bytes_rate_max = section.number(
        "publish_bytes_rate_max",
        default.publish_bytes_rate_max,
        or_zero(bytes(1, TIB)),
    );
    let connect_rate_max = section.number("connect_rate_max", default.connect_rate_max, RATE);
    let qos_max = section.number("qos_max", default.qos_max, count(0, 2));
    let allow_cidrs = networks(&mut section, "allow_cidrs");
    let deny_cidrs = networks(&mut section, "deny_cidrs");
    let proxy_protocol = section.flag("proxy_protocol", default.proxy_protocol);
    let proxy_cidrs = networks(&mut section, "proxy_cidrs");
    let allow_origins = origins(&mut section);
    let websocket_paths = websocket_paths(&mut section, default.websocket_paths);
    let tcp_user_timeout_s = section.number(
        "tcp_user_timeout_s",
        default.tcp_user_timeout_s,
        or_zero(seconds(1, 86_400)),
    );
    let has_tls = section.has_table("tls");
    let tls = has_tls.then(|| tls(section.table("tls", "listeners.tls")));
    let listener = ListenerConfig {
        name,
        bind,
        unix_mode,
        protocol,
        anonymous,
        enrolment,
        client_id,
        max_connections,
        publish_rate_max,
        publish_bytes_rate_max,
        connect_rate_max,
        qos_max,
        allow_cidrs,
        deny_cidrs,
        proxy_protocol,
        proxy_cidrs,
        allow_origins,
        websocket_paths,
        tcp_user_timeout_s,
        tls,
    };
    if is_bound {
        check_transport(&mut section, &listener);
    }
    section.finish();
    listener
}

/// Settings that mean nothing for this kind of listener, and a proxy that nobody named.
fn check_transport(section: &mut Section<'_, '_>, listener: &ListenerConfig) {
    let is_unix = matches!(listener.bind, Bind::Unix(_));
    let knows_addresses = !is_unix || listener.proxy_protocol;
    let rules: [(&str, bool, &str); 7] = [
        ("unix_mode", is_unix, "bind = \"unix:PATH\""),
        (
            "tcp_user_timeout_s",
            !is_unix,
            "an IP address and port in bind",
        ),
        (
            "allow_origins",
            listener.protocol == Protocol::Ws,
            "protocol = \"ws\"",
        ),
        (
            "websocket_paths",
            listener.protocol == Protocol::Ws,
            "protocol = \"ws\"",
        ),
        (
            "allow_cidrs",
            knows_addresses,
            "an IP address and port in bind, or proxy_protocol = true",
        ),
        (
            "deny_cidrs",
            knows_addresses,
            "an IP address and port in bind, or proxy_protocol = true",
        ),
        (
            "proxy_cidrs",
            listener.proxy_protocol && !is_unix,
            "proxy_protocol = true and an IP address and port in bind",
        ),
    ];
    for (key, is_meant, other) in rules {
        if !is_meant && section.is_written(key) {
            needs(section, key, other);
        }
    }
    let is_loopback = matches!(&listener.bind, Bind::Ip(address) if address.ip().is_loopback());
    let is_private = listener.tls.is_some() || is_unix || is_loopback || listener.proxy_protocol;
    if listener.enrolment && !is_private {
        let other = "[listeners.tls], or an address of this machine: tokens would cross the network in the clear";
        needs(section, "enrolment", other);
    }
    if listener.proxy_protocol && !is_unix && listener.proxy_cidrs.is_empty() {
        let other = "proxy_cidrs, the networks of the proxies: whoever may send a header can claim any address";
        needs(section, "proxy_protocol", other);
    }
}

/// Permissions in octal digits, as `chmod` takes them.
fn unix_mode(section: &mut Section<'_, '_>, default: u32) -> u32 {
    let Some((text, place)) = section.text_or("unix_mode", &format!("{default:04o}")) else {
        return default;
    };
    let is_octal = matches!(text.len(), 3 | 4) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    match u32::from_str_radix(&text, 8) {
        Ok(mode) if is_octal && mode <= 0o777 => mode,
        _ => {
            let expected = "permissions in octal, such as \"0660\"";
            section.malformed("unix_mode", place, expected, text);
            default
        }
    }
}

/// Networks, each `ADDRESS/BITS`; an address alone is a network of one.
fn networks(section: &mut Section<'_, '_>, key: &'static str) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (text, place) in section.texts(key).unwrap_or_default() {
        let network = text
            .parse::<IpAddr>()
            .map(IpNet::from)
            .or_else(|_| text.parse::<IpNet>());
        match network {
            Ok(network) if network == network.trunc() => networks.push(network),
            Ok(network) => {
                let (address, whole) = (network.addr(), network.trunc());
                let expected = format!(
                    "networks whose bits behind the prefix are 0: \"{whole}\", or \"{address}\" alone for one address"
                );
                section.malformed(key, place, &expected, text);
            }
            Err(_) => {
                let expected = "networks such as \"10.0.0.0/8\" or \"2001:db8::/32\", or addresses";
                section.malformed(key, place, expected, text);
            }
        }
    }
    networks
}

/// Origins as browsers send them: scheme, host, and a port where it is not the scheme's own.
fn origins(section: &mut Section<'_, '_>) -> Vec<String> {
    let mut origins = Vec::new();
    for (text, place) in section.texts("allow_origins").unwrap_or_default() {
        let host = text.split_once("://").map(|(_, host)| host);
        let is_host =
            |host: &str| !host.is_empty() && !host.contains(['/', '*', '?', '#', '@', ' ']);
        if matches!(text.as_str(), "*" | "null") || host.is_some_and(is_host) {
            origins.push(text.to_ascii_lowercase());
        } else {
            let expected = "origins such as \"https://app.example.org\" or \"http://10.0.0.5:8080\", without a path, or \"*\" for any";
            section.malformed("allow_origins", place, expected, text);
        }
    }
    origins
}

fn websocket_paths(section: &mut Section<'_, '_>, default: Vec<String>) -> Vec<String> {
    let place = section.place_of("websocket_paths");
    let Some(texts) = section.texts("websocket_paths") else {
        section.note_answer(quoted_list(&default));
        return default;
    };
    let expected = "paths that start with \"/\", such as \"/mqtt\", or \"/*\" for every path";
    if texts.is_empty() {
        section.malformed("websocket_paths", place, expected, "[]".to_owned());
    }
    let mut paths = Vec::new();
    for (text, place) in texts {
        let is_plain = text == "/*" || !text.contains(['?', '#', '*', ' ']);
        if text.starts_with('/') && is_plain {
            paths.push(text);
        } else {
            section.malformed("websocket_paths", place, expected, text);
        }
    }
    paths
}

fn tls(mut section: Section<'_, '_>) -> TlsConfig {
    let cert = section.required_path("cert");
    let key = section.required_path("key");
    let client_ca = section.path("client_ca", None);
    let crl = section.path("crl", None);
    let crl_overdue = section.choice("crl_overdue", CrlOverdue::Warn, CRL_OVERDUE);
    let allow_list = section.path("allow_list", None);
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
    } else if !is_asked_for && crl.is_some() {
        let other = "client_ca, and client_cert = \"required\" or \"optional\"";
        needs(&mut section, "crl", other);
    } else if !is_asked_for && allow_list.is_some() {
        let other = "client_ca, and client_cert = \"required\" or \"optional\"";
        needs(&mut section, "allow_list", other);
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
        crl,
        crl_overdue,
        allow_list,
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
    let rate = bytes(1, TIB);
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
            subscription_bytes_max: number(held),
            publish_rate_max: number(or_zero(items)),
            publish_bytes_rate_max: number(or_zero(rate)),
            identity_publish_rate_max: number(or_zero(items)),
            identity_publish_bytes_rate_max: number(or_zero(rate)),
            publish_rate_full: choice(RATE_FULL),
            sessions_max: number(items),
            identity_sessions_max: number(or_zero(items)),
            identity_connections_max: number(or_zero(items)),
            retained_messages_max: number(items),
            retained_bytes_max: number(held),
            client_retained_messages_max: number(or_zero(items)),
            client_retained_bytes_max: number(or_zero(held)),
            output_bytes_max: number(bytes(4 * KIB, GIB)),
            memory_bytes_max: number(or_zero(bytes(32 * MIB, TIB))),
            unauthenticated_max: number(count(1, 10_000_000)),
            password_checks_per_address_max: number(count(1, 1_000_000)),
            connect_rate_max: number(RATE),
            address_connect_rate_max: number(RATE),
            address_connections_max: number(or_zero(count(1, 10_000_000))),
            addresses_max: number(count(100, 10_000_000)),
            connect_timeout_s: number(seconds(1, 3_600)),
            stop_timeout_s: number(seconds(1, 3_600)),
            mailbox_memory_bytes: number(bytes(KIB, GIB)),
            tls_sessions_max: number(count(0, 10_000_000)),
            websocket_head_bytes_max: number(bytes(512, MIB)),
            websocket_frame_bytes_max: number(or_zero(bytes(128, PACKET_BYTES_MAX))),
        }
    );
    section.finish();
    limits
}

fn profiles(
    root: &mut Section<'_, '_>,
    limits: &LimitsConfig,
    listeners: &[ListenerConfig],
) -> Vec<ProfileConfig> {
    let mut profiles: Vec<ProfileConfig> = Vec::new();
    for (table, place) in root.array("profiles").unwrap_or_default() {
        let mut section = root.element("profiles", Some(table), place);
        let name = name(&mut section, "profiles", |name| {
            profiles.iter().any(|other| other.name == name)
        });
        profiles.push(profile(section, name, limits, listeners));
    }
    profiles
}

/// What a profile says of one client; what is of the broker as a whole is in `[limits]` alone.
fn profile(
    mut section: Section<'_, '_>,
    name: String,
    limits: &LimitsConfig,
    listeners: &[ListenerConfig],
) -> ProfileConfig {
    let mut names = |key: &'static str| {
        let texts = section.texts(key).unwrap_or_default();
        for (text, place) in &texts {
            if text.is_empty() {
                let expected = "names that are not empty; \"*\" stands for any run of characters";
                section.malformed(key, place.clone(), expected, text.clone());
            }
        }
        texts
    };
    let [of_listeners, users, clients] = ["listeners", "users", "clients"].map(&mut names);
    for (text, place) in &of_listeners {
        let known: Vec<_> = listeners
            .iter()
            .map(|one| (one.name.as_str(), ()))
            .collect();
        if !known.iter().any(|(name, ())| name == text) {
            section.unknown_value("listeners", place.clone(), text.clone(), &known);
        }
    }
    let texts = |list: Vec<(String, Place)>| list.into_iter().map(|(text, _)| text).collect();
    let items = count(1, 1_000_000_000);
    let rate = or_zero(bytes(1, TIB));
    let own = LimitsConfig {
        packet_bytes_max: section.number(
            "packet_bytes_max",
            limits.packet_bytes_max,
            bytes(256, PACKET_BYTES_MAX),
        ),
        payload_bytes_max: section.number(
            "payload_bytes_max",
            limits.payload_bytes_max,
            bytes(1, PACKET_BYTES_MAX),
        ),
        receive_maximum: section.number(
            "receive_maximum",
            limits.receive_maximum,
            count(1, 65_535),
        ),
        inflight_messages_max: section.number(
            "inflight_messages_max",
            limits.inflight_messages_max,
            count(1, 65_535),
        ),
        queue_messages_max: section.number("queue_messages_max", limits.queue_messages_max, items),
        queue_bytes_max: section.number("queue_bytes_max", limits.queue_bytes_max, bytes(KIB, TIB)),
        queue_full: section.choice("queue_full", limits.queue_full, QUEUE_FULL),
        session_expiry_max_s: section.number(
            "session_expiry_max_s",
            limits.session_expiry_max_s,
            seconds(1, 4_294_967_295),
        ),
        keep_alive_max_s: section.number(
            "keep_alive_max_s",
            limits.keep_alive_max_s,
            seconds(1, 65_535),
        ),
        subscriptions_max: section.number("subscriptions_max", limits.subscriptions_max, items),
        subscription_bytes_max: section.number(
            "subscription_bytes_max",
            limits.subscription_bytes_max,
            bytes(KIB, TIB),
        ),
        publish_rate_max: section.number(
            "publish_rate_max",
            limits.publish_rate_max,
            or_zero(items),
        ),
        publish_bytes_rate_max: section.number(
            "publish_bytes_rate_max",
            limits.publish_bytes_rate_max,
            rate,
        ),
        publish_rate_full: section.choice("publish_rate_full", limits.publish_rate_full, RATE_FULL),
        output_bytes_max: section.number(
            "output_bytes_max",
            limits.output_bytes_max,
            bytes(4 * KIB, GIB),
        ),
        ..limits.clone()
    };
    section.finish();
    ProfileConfig {
        name,
        listeners: texts(of_listeners),
        users: texts(users),
        clients: texts(clients),
        limits: own,
    }
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
    let max_connections =
        section.number("max_connections", default.max_connections, count(1, 10_000));
    let connection_timeout_s = section.number(
        "connection_timeout_s",
        default.connection_timeout_s,
        seconds(1, 3_600),
    );
    let streams_max = section.number("streams_max", default.streams_max, count(1, 10_000));
    let token_file = in_data_dir(&mut section, "token_file", default.token_file);
    section.finish();
    HttpConfig {
        bind,
        metrics_bind,
        max_connections,
        connection_timeout_s,
        streams_max,
        token_file,
    }
}

/// An address that `""` turns off.
fn optional_address(
    section: &mut Section<'_, '_>,
    key: &'static str,
    default: Option<SocketAddr>,
    addresses: &mut Addresses,
) -> Option<SocketAddr> {
    let shown = default.map_or_else(String::new, |address| address.to_string());
    let address = match section.text_or(key, &shown) {
        None => default.map(|address| (address, Place::Default)),
        Some((text, _)) if text.is_empty() => None,
        Some((text, place)) => section.parse_address(key, text, place, IP_AND_PORT),
    };
    let bind = address.as_ref().map(|(address, _)| *address);
    let address = address.map(|(address, place)| (address.into(), place));
    addresses.take(section, key, address);
    bind
}

fn auth(mut section: Section<'_, '_>, has_certificates: bool) -> AuthConfig {
    let order = order(&mut section);
    let password_file = section.path("password_file", None);
    let mosquitto_password_file = section.path("mosquitto_password_file", None);
    let scram_file = section.path("scram_file", None);
    let acl_file = section.path("acl_file", None);
    let mosquitto_acl_file = section.path("mosquitto_acl_file", None);
    let jwt = jwt(section.table("jwt", "auth.jwt"));
    let configured = [
        (AuthSource::Certificate, has_certificates, CERTIFICATES_OFF),
        (
            AuthSource::Password,
            password_file.is_some() || mosquitto_password_file.is_some(),
            "unset auth.password_file and auth.mosquitto_password_file",
        ),
        (
            AuthSource::Jwt,
            jwt.keys_file.is_some(),
            "unset auth.jwt.keys_file",
        ),
        (
            AuthSource::Scram,
            scram_file.is_some(),
            "unset auth.scram_file",
        ),
    ];
    for (source, is_configured, cure) in configured {
        if is_configured && !order.contains(&source) {
            let name = source.name();
            let other = format!("\"{name}\" in it, which is configured: add it, or {cure}");
            needs(&mut section, "order", &other);
        }
    }
    section.finish();
    AuthConfig {
        order,
        password_file,
        mosquitto_password_file,
        scram_file,
        acl_file,
        mosquitto_acl_file,
        jwt,
    }
}

fn logs_in_by_certificate(listener: &ListenerConfig) -> bool {
    let tls = listener.tls.as_ref();
    tls.is_some_and(|tls| tls.identity != Identity::None)
}

/// The sources, each at most once. A mistake leaves all of them, so that it is the only one.
fn order(section: &mut Section<'_, '_>) -> Vec<AuthSource> {
    let default = AuthSource::ALL.map(|source| source.name().to_owned());
    let place = section.place_of("order");
    let Some(texts) = section.texts("order") else {
        section.note_answer(quoted_list(&default));
        return AuthSource::ALL.into();
    };
    if texts.is_empty() {
        let expected = format!(
            "at least one source, or absent for all: {}",
            quoted_list(&default)
        );
        section.malformed("order", place, &expected, "[]".to_owned());
        return AuthSource::ALL.into();
    }
    let mut order = Vec::new();
    let mut is_right = true;
    for (text, place) in texts {
        match AUTH_SOURCES.iter().find(|(name, _)| *name == text) {
            Some((_, source)) if order.contains(source) => {
                let expected = "a list with each source once";
                section.malformed("order", place, expected, format!("{text} twice"));
                is_right = false;
            }
            Some((_, source)) => order.push(*source),
            None => {
                section.unknown_value("order", place, text, AUTH_SOURCES);
                is_right = false;
            }
        }
    }
    match is_right {
        true => order,
        false => AuthSource::ALL.into(),
    }
}

fn jwt(mut section: Section<'_, '_>) -> JwtConfig {
    let default = JwtConfig::default();
    let keys_file = section.path("keys_file", None);
    let mut text = |key, default: String| {
        let text = section.text_or(key, &default);
        let is_other = text.as_ref().is_some_and(|(text, _)| *text != default);
        if is_other && keys_file.is_none() {
            let other = "auth.jwt.keys_file, the keys that tokens are signed with (JWKS)";
            needs(&mut section, key, other);
        }
        text.map_or(default, |(text, _)| text)
    };
    let jwt = JwtConfig {
        issuer: text("issuer", default.issuer),
        audience: text("audience", default.audience),
        user_claim: text("user_claim", default.user_claim),
        client_id_claim: text("client_id_claim", default.client_id_claim),
        groups_claim: text("groups_claim", default.groups_claim),
        acl_claim: text("acl_claim", default.acl_claim),
        leeway_s: section.number("leeway_s", default.leeway_s, seconds(0, 3_600)),
        keys_file,
    };
    if jwt.user_claim.is_empty() {
        let place = section.place_of("user_claim");
        let expected = "the name of a claim, such as \"sub\"";
        section.malformed("user_claim", place, expected, String::new());
    }
    section.finish();
    jwt
}

fn enrolment(mut section: Section<'_, '_>) -> EnrolmentConfig {
    let default = EnrolmentConfig::default();
    let signer = section.text_or("signer", &default.signer);
    let enrolment = EnrolmentConfig {
        signer: signer.map_or(default.signer, |(signer, _)| signer),
        request_bytes_max: section.number(
            "request_bytes_max",
            default.request_bytes_max,
            bytes(512, 65_536),
        ),
        requests_max: section.number("requests_max", default.requests_max, count(1, 1_000_000)),
        applicants_max: section.number(
            "applicants_max",
            default.applicants_max,
            count(1, 1_000_000),
        ),
        connection_max_s: section.number(
            "connection_max_s",
            default.connection_max_s,
            seconds(10, 86_400),
        ),
    };
    section.finish();
    enrolment
}

fn history(mut section: Section<'_, '_>) -> HistoryConfig {
    let default = HistoryConfig::default();
    let range = or_zero(bytes(64 << 10, 16 << 30));
    let history = HistoryConfig {
        bytes_max: section.number("bytes_max", default.bytes_max, range),
    };
    section.finish();
    history
}

fn ban(mut section: Section<'_, '_>) -> BanConfig {
    let default = BanConfig::default();
    let number_max = or_zero(count(1, 1_000_000_000));
    let ban = read!(
        section,
        default,
        BanConfig {
            failures_max: number(number_max),
            address_failures_max: number(number_max),
            failures_window_s: number(seconds(1, 86_400)),
            flaps_max: number(number_max),
            flaps_window_s: number(seconds(1, 86_400)),
            ban_s: number(or_zero(seconds(1, 31_536_000))),
            bans_max: number(count(1, 10_000_000)),
        }
    );
    section.finish();
    ban
}

fn reload(mut section: Section<'_, '_>) -> ReloadConfig {
    let default = ReloadConfig::default();
    let reload = read!(
        section,
        default,
        ReloadConfig {
            watch: choice(WATCH),
            interval_ms: number(milliseconds(50, 3_600_000)),
        }
    );
    section.finish();
    reload
}

fn admin(mut section: Section<'_, '_>) -> AdminConfig {
    let default = AdminConfig::default();
    let socket = in_data_dir(&mut section, "socket", default.socket);
    section.finish();
    AdminConfig { socket }
}

fn trace(mut section: Section<'_, '_>) -> TraceConfig {
    let default = TraceConfig::default();
    let trace = read!(
        section,
        default,
        TraceConfig {
            streams_max: number(count(0, 1_000)),
            duration_max_s: number(seconds(1, 604_800)),
            packets_rate_max: number(count(1, 1_000_000)),
            queue_packets_max: number(count(16, 1_000_000)),
            queue_bytes_max: number(bytes(64 * KIB, GIB)),
        }
    );
    section.finish();
    trace
}

/// A path that `""` turns off. Not joined to the folder of the file: a relative one starts from `data_dir`.
fn in_data_dir(
    section: &mut Section<'_, '_>,
    key: &'static str,
    default: Option<PathBuf>,
) -> Option<PathBuf> {
    let shown = default.as_deref().map(|path| path.display().to_string());
    match section.text_or(key, &shown.unwrap_or_default()) {
        None => default,
        Some((text, _)) if text.is_empty() => None,
        Some((text, _)) => Some(PathBuf::from(text)),
    }
}

fn sys(mut section: Section<'_, '_>) -> SysConfig {
    let default = SysConfig::default();
    let sys = read!(
        section,
        default,
        SysConfig {
            interval_s: number(or_zero(seconds(1, 86_400))),
            client_events: flag(),
        }
    );
    section.finish();
    sys
}

fn log(mut section: Section<'_, '_>) -> LogConfig {
    let default = LogConfig::default();
    let level = section
        .text_or("level", &default.level)
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
struct Addresses(Vec<(Bind, String)>);

impl Addresses {
    /// Takes an address for `key`; one that is taken is an error. Port 0 is never the same twice.
    fn take(&mut self, section: &mut Section<'_, '_>, key: &str, address: Option<(Bind, Place)>) {
        let Some((address, place)) = address else {
            return;
        };
        let owner = self.0.iter().find(|(taken, _)| *taken == address);
        let is_any_port = matches!(&address, Bind::Ip(address) if address.port() == 0);
        if let Some((_, owner)) = owner.filter(|_| !is_any_port) {
            let (key, owner) = (section.full(key), owner.clone());
            section.reader.report(
                place,
                Problem::DuplicateBind {
                    key,
                    address: address.clone(),
                    owner,
                },
            );
        }
        self.0.push((address, section.full(key)));
    }
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

/// So many a second; 0 is any number.
const RATE: Range = or_zero(count(1, 1_000_000));

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

/// The addresses that [`SocketAddr`] reads.
const IP_AND_PORT: &str = "an IP address and port such as \"127.0.0.1:9883\" or \"[::1]:9883\"";

const PROTOCOL: &[(&str, Protocol)] = &[("mqtt", Protocol::Mqtt), ("ws", Protocol::Ws)];

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

const CRL_OVERDUE: &[(&str, CrlOverdue)] =
    &[("warn", CrlOverdue::Warn), ("refuse", CrlOverdue::Refuse)];

const CLIENT_IDS: &[(&str, ClientIds)] = &[("any", ClientIds::Any), ("user", ClientIds::User)];

const IDENTITY: &[(&str, Identity)] = &[
    ("cn", Identity::Cn),
    ("san-uri", Identity::SanUri),
    ("san-dns", Identity::SanDns),
    ("none", Identity::None),
];

const RATE_FULL: &[(&str, RateFull)] = &[
    ("delay", RateFull::Delay),
    ("drop-qos0", RateFull::DropQoS0),
    ("disconnect", RateFull::Disconnect),
];

const AUTH_SOURCES: &[(&str, AuthSource)] = &[
    ("certificate", AuthSource::Certificate),
    ("password", AuthSource::Password),
    ("jwt", AuthSource::Jwt),
    ("scram", AuthSource::Scram),
];

/// How listeners are told not to log in by certificate.
const CERTIFICATES_OFF: &str =
    "set identity = \"none\" in [listeners.tls] where client_cert is not \"none\"";

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

const WATCH: &[(&str, Watch)] = &[
    ("off", Watch::Off),
    ("files", Watch::Files),
    ("all", Watch::All),
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
