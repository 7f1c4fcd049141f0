//! One listener of mosquitto as one of ours, or why it is left out.
//!
//! Does not know: users and rules, but for what they are called.

use super::document::{Entry, quoted};
use super::lines::beside;
use super::sorted::{Settings, Sorted};
use super::{Status, options};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// A listener as it is written.
#[derive(Debug)]
pub(super) struct OurListener {
    /// Its place among theirs.
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) entries: Vec<Entry>,
    /// Of `[listeners.tls]`.
    pub(super) tls: Vec<Entry>,
}

/// Why a listener is left out, and the line that says so, if one does.
#[derive(Debug)]
pub(super) struct LeftOut {
    pub(super) line: Option<usize>,
    pub(super) reason: String,
}

/// What is to be translated.
pub(super) struct Task<'a> {
    pub(super) conf: &'a Path,
    pub(super) index: usize,
    /// Nothing says where to listen: this machine only.
    pub(super) is_local_only: bool,
    pub(super) is_anonymous: bool,
    /// So many listeners have been translated.
    pub(super) count: usize,
}

/// Where it listens.
enum Place {
    Ip(SocketAddr),
    Unix(String),
}

impl Task<'_> {
    fn settings(&self, sorted: &Sorted) -> Settings {
        let listener = sorted.listeners.get(self.index);
        listener
            .map(|listener| listener.settings.clone())
            .unwrap_or_default()
    }

    /// Translates the listener; what becomes of its lines is noted.
    pub(super) fn translate(&self, sorted: &mut Sorted) -> Result<OurListener, LeftOut> {
        let settings = self.settings(sorted);
        let has_tls = self.check(sorted, &settings)?;
        let place = self.place(sorted, &settings)?;
        let is_websocket = value(sorted, &settings, "protocol") == Some("websockets");
        let name = match &place {
            Place::Unix(_) => format!("unix-{}", self.count + 1),
            Place::Ip(address) => {
                let scheme = match (is_websocket, has_tls) {
                    (false, false) => "mqtt",
                    (false, true) => "mqtts",
                    (true, false) => "ws",
                    (true, true) => "wss",
                };
                format!("{scheme}-{}", address.port())
            }
        };
        let mut ours = OurListener {
            index: self.index,
            entries: vec![Entry::new(
                "bind",
                quoted(&shown(&place)),
                self.origin(sorted, &settings),
            )],
            name,
            tls: Vec::new(),
        };
        self.transport(sorted, &settings, is_websocket, &mut ours);
        let anonymous = match self.is_anonymous {
            true => "true",
            false => "false",
        };
        ours.entries.push(Entry::new("anonymous", anonymous, ""));
        self.limits(sorted, &settings, &mut ours);
        if has_tls {
            self.tls(sorted, &settings, &mut ours);
        } else {
            for name in TLS_ONLY {
                note(
                    sorted,
                    &settings,
                    name,
                    Status::Unneeded,
                    "",
                    "without certfile and keyfile there is no TLS, in mosquitto too",
                );
            }
        }
        Ok(ours)
    }

    /// Whether it has TLS; what stands in the way of having it at all.
    fn check(&self, sorted: &Sorted, settings: &Settings) -> Result<bool, LeftOut> {
        let is = |name: &str, expected: &str| value(sorted, settings, name) == Some(expected);
        let has = |name: &str| settings.contains_key(name);
        let has_tls = has("certfile") && has("keyfile");
        let wants_certificates = has_tls && is("require_certificate", "true");
        let protocol = value(sorted, settings, "protocol").unwrap_or("mqtt");
        let obstacles = [
            ("psk_hint", has("psk_hint")),
            ("mount_point", has("mount_point")),
            ("bind_interface", has("bind_interface")),
            (
                "enable_proxy_protocol",
                has("enable_proxy_protocol") && !is("enable_proxy_protocol", "0"),
            ),
            (
                "use_subject_as_username",
                wants_certificates
                    && is("use_subject_as_username", "true")
                    && !is("use_identity_as_username", "true"),
            ),
            ("tls_keyform", has_tls && is("tls_keyform", "engine")),
            ("capath", wants_certificates && has("capath")),
        ];
        for (name, is_there) in obstacles {
            if is_there {
                let remark = options::find(name).map_or("", |option| option.remark);
                return Err(LeftOut {
                    line: settings.get(name).copied(),
                    reason: remark.to_owned(),
                });
            }
        }
        let broken = |name: &str, reason: &str| {
            Err(LeftOut {
                line: settings.get(name).copied(),
                reason: reason.to_owned(),
            })
        };
        if !matches!(protocol, "mqtt" | "websockets") {
            return broken(
                "protocol",
                "the listener is left out: only mqtt and websockets are clients' protocols; metrics and health are in [http]",
            );
        }
        if has("certfile") != has("keyfile") {
            let name = if has("certfile") {
                "certfile"
            } else {
                "keyfile"
            };
            return broken(
                name,
                "the listener is left out: certfile and keyfile are needed together",
            );
        }
        if wants_certificates && !has("cafile") {
            return broken(
                "require_certificate",
                "the listener is left out: nothing says whose certificates (cafile)",
            );
        }
        Ok(has_tls)
    }

    fn origin(&self, sorted: &Sorted, settings: &Settings) -> String {
        let line = sorted
            .listeners
            .get(self.index)
            .and_then(|listener| listener.line);
        let line = line.or_else(|| settings.get("port").copied());
        let line = line.or_else(|| settings.get("bind_address").copied());
        line.map_or_else(
            || "mosquitto's default listener".to_owned(),
            |line| sorted.place(line),
        )
    }

    fn place(&self, sorted: &mut Sorted, settings: &Settings) -> Result<Place, LeftOut> {
        let line = sorted
            .listeners
            .get(self.index)
            .and_then(|listener| listener.line);
        let (at, port, host) = match line {
            Some(at) => {
                let text = sorted.value(at).to_owned();
                let (port, host) = text.split_once(' ').unwrap_or((&text, ""));
                (Some(at), port.to_owned(), host.trim().to_owned())
            }
            None => {
                let port = value(sorted, settings, "port").unwrap_or("1883").to_owned();
                let host = value(sorted, settings, "bind_address").unwrap_or_default();
                (settings.get("bind_address").copied(), port, host.to_owned())
            }
        };
        // In a listener of its own these two say nothing.
        for name in ["port", "bind_address"] {
            match line {
                None => note(
                    sorted,
                    settings,
                    name,
                    Status::Translated,
                    "listeners.bind",
                    "",
                ),
                Some(_) => note(
                    sorted,
                    settings,
                    name,
                    Status::Unneeded,
                    "",
                    "it is about the default listener, and stands below another one",
                ),
            }
        }
        let left_out = |reason: String| Err(LeftOut { line: at, reason });
        let Ok(port) = port.parse::<u16>() else {
            return left_out(format!("the listener is left out: {port} is no port"));
        };
        if port == 0 && !host.is_empty() {
            if let Some(at) = at {
                sorted.note(at, Status::Differs, "listeners.bind", "who belongs to the socket's group may connect (unix_mode = \"0660\"); with mosquitto the umask decides");
            }
            let path = beside(self.conf, &host);
            return Ok(Place::Unix(path.display().to_string()));
        }
        let domain = value(sorted, settings, "socket_domain")
            .unwrap_or_default()
            .to_owned();
        note(
            sorted,
            settings,
            "socket_domain",
            Status::Translated,
            "listeners.bind",
            "",
        );
        let ip = match (host.as_str(), domain.as_str()) {
            ("", _) if self.is_local_only => Ipv4Addr::LOCALHOST.into(),
            ("", "ipv4") => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            ("", _) => Ipv6Addr::UNSPECIFIED.into(),
            ("localhost", "ipv6") => Ipv6Addr::LOCALHOST.into(),
            ("localhost", _) => Ipv4Addr::LOCALHOST.into(),
            (host, _) => match host.trim_matches(['[', ']']).parse() {
                Ok(ip) => ip,
                Err(_) => {
                    return left_out(format!(
                        "the listener is left out: {host} is a name; write the address it stands for"
                    ));
                }
            },
        };
        if let Some(at) = line {
            sorted.note(at, Status::Translated, "listeners.bind", "");
        }
        if domain == "ipv6" && ip.is_unspecified() {
            note(
                sorted,
                settings,
                "socket_domain",
                Status::Differs,
                "listeners.bind",
                "[::] takes IPv4 too, unless the system has net.ipv6.bindv6only = 1",
            );
        }
        Ok(Place::Ip(SocketAddr::new(ip, port)))
    }

    fn transport(
        &self,
        sorted: &mut Sorted,
        settings: &Settings,
        is_websocket: bool,
        ours: &mut OurListener,
    ) {
        note(
            sorted,
            settings,
            "protocol",
            Status::Translated,
            "listeners.protocol",
            "",
        );
        let Some(line) = settings.get("protocol").copied().filter(|_| is_websocket) else {
            note(
                sorted,
                settings,
                "websockets_origin",
                Status::Unneeded,
                "",
                "it says nothing without protocol websockets, in mosquitto too",
            );
            return;
        };
        let origin = sorted.place(line);
        ours.entries.push(Entry::new("protocol", "\"ws\"", &origin));
        ours.entries
            .push(Entry::new("websocket_paths", "[\"/*\"]", &origin));
        if let Some(origins) = value(sorted, settings, "websockets_origin") {
            let origins = format!("[{}]", quoted(origins));
            ours.entries
                .push(Entry::new("allow_origins", origins, origin));
            note(
                sorted,
                settings,
                "websockets_origin",
                Status::Translated,
                "listeners.allow_origins",
                "",
            );
        } else if self.is_anonymous {
            sorted.note(line, Status::Differs, "listeners.protocol", "pages of other hosts may not connect, since clients need no password: list them in allow_origins");
        } else {
            ours.entries
                .push(Entry::new("allow_origins", "[\"*\"]", origin));
        }
    }

    fn limits(&self, sorted: &mut Sorted, settings: &Settings, ours: &mut OurListener) {
        if let Some(line) = settings.get("max_connections").copied() {
            let (key, most) = ("listeners.max_connections", 10_000_000);
            match sorted.value(line).parse::<i64>() {
                Ok(count) if (1..=most).contains(&count) => {
                    let origin = sorted.place(line);
                    ours.entries
                        .push(Entry::new("max_connections", count.to_string(), origin));
                    sorted.note(line, Status::Translated, key, "");
                }
                Ok(count) if count < 0 || count > most => {
                    sorted.note(
                        line,
                        Status::Differs,
                        key,
                        "100,000, the default: each costs a file descriptor",
                    );
                }
                _ => sorted.note(
                    line,
                    Status::Left,
                    "",
                    "no number of connections: 1 to 10,000,000",
                ),
            }
        }
        if let Some(line) = settings.get("max_qos").copied() {
            let qos = sorted.value(line).to_owned();
            if matches!(qos.as_str(), "0" | "1" | "2") {
                ours.entries
                    .push(Entry::new("qos_max", qos, sorted.place(line)));
                sorted.note(line, Status::Translated, "listeners.qos_max", "");
            }
        }
        if let Some(line) = settings.get("use_username_as_clientid").copied() {
            if sorted.value(line) == "true" {
                ours.entries
                    .push(Entry::new("client_id", "\"user\"", sorted.place(line)));
                let remark = "clients must send their user name as identifier, or none, which then is the user name; mosquitto replaces whatever they send";
                sorted.note(line, Status::Differs, "listeners.client_id", remark);
            } else {
                sorted.note(line, Status::Unneeded, "", "so it is here");
            }
        }
    }

    fn tls(&self, sorted: &mut Sorted, settings: &Settings, ours: &mut OurListener) {
        let is = |sorted: &Sorted, name: &str| value(sorted, settings, name) == Some("true");
        let mut file = |sorted: &mut Sorted, name: &str, key: &str| {
            if let Some(line) = settings.get(name).copied() {
                let path = beside(self.conf, sorted.value(line));
                let path = quoted(&path.display().to_string());
                ours.tls.push(Entry::new(key, path, sorted.place(line)));
                sorted.note(
                    line,
                    Status::Translated,
                    &format!("listeners.tls.{key}"),
                    "",
                );
            }
        };
        file(sorted, "certfile", "cert");
        file(sorted, "keyfile", "key");
        let wants_certificates = is(sorted, "require_certificate");
        if wants_certificates {
            file(sorted, "cafile", "client_ca");
            file(sorted, "crlfile", "crl");
            let by_name = is(sorted, "use_identity_as_username");
            let identity = if by_name { "\"cn\"" } else { "\"none\"" };
            let line = settings.get("require_certificate").copied();
            let origin = line.map(|line| sorted.place(line)).unwrap_or_default();
            ours.tls
                .push(Entry::new("client_cert", "\"required\"", origin));
            let line = settings.get("use_identity_as_username").copied();
            let origin = line.map(|line| sorted.place(line)).unwrap_or_default();
            ours.tls.push(Entry::new("identity", identity, origin));
            note(
                sorted,
                settings,
                "require_certificate",
                Status::Translated,
                "listeners.tls.client_cert",
                "",
            );
            note(
                sorted,
                settings,
                "use_identity_as_username",
                Status::Translated,
                "listeners.tls.identity",
                "",
            );
        } else {
            for name in [
                "cafile",
                "capath",
                "crlfile",
                "require_certificate",
                "use_identity_as_username",
                "use_subject_as_username",
            ] {
                note(
                    sorted,
                    settings,
                    name,
                    Status::Unneeded,
                    "",
                    "without require_certificate true clients are asked for no certificate, in mosquitto too",
                );
            }
        }
        match value(sorted, settings, "tls_version") {
            Some("tlsv1.3") => note(
                sorted,
                settings,
                "tls_version",
                Status::Left,
                "",
                "TLS 1.2 is offered too, for the devices that speak nothing newer; it cannot be turned off",
            ),
            Some("tlsv1.1" | "tlsv1") => note(
                sorted,
                settings,
                "tls_version",
                Status::Differs,
                "",
                "TLS 1.2 is the least: clients that speak only older ones cannot connect",
            ),
            _ => {}
        }
    }
}

/// The value of an option of this listener.
pub(super) fn value<'a>(sorted: &'a Sorted, settings: &Settings, name: &str) -> Option<&'a str> {
    settings.get(name).map(|line| sorted.value(*line))
}

/// Says what became of an option's line, if there is one.
fn note(
    sorted: &mut Sorted,
    settings: &Settings,
    name: &str,
    status: Status,
    key: &str,
    remark: &str,
) {
    if let Some(line) = settings.get(name) {
        sorted.note(*line, status, key, remark);
    }
}

fn shown(place: &Place) -> String {
    match place {
        Place::Ip(address) => address.to_string(),
        Place::Unix(path) => format!("unix:{path}"),
    }
}

/// Options that say nothing without a certificate of the listener.
pub(super) const TLS_ONLY: [&str; 13] = [
    "cafile",
    "capath",
    "ciphers",
    "ciphers_tls1.3",
    "crlfile",
    "dhparamfile",
    "disable_client_cert_date_checks",
    "require_certificate",
    "tls_engine",
    "tls_keyform",
    "tls_version",
    "use_identity_as_username",
    "use_subject_as_username",
];
