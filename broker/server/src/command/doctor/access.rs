//! Who gets in, who can listen in, and who can read what nobody should.

use super::Finding;
use motemq::config::{
    AnonymousAccess, Bind, ClientCert, Config, Durability, Identity, ListenerConfig, TlsConfig,
};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

pub(super) fn look(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for listener in &config.listeners {
        findings.extend(anonymous(config, listener));
        findings.extend(plain(config, listener));
    }
    findings.extend(nobody(config));
    findings.extend(no_rules(config));
    findings.extend(open_http(config));
    findings.extend(open_files(config));
    findings.extend(persistence(config));
    findings.extend(log(config));
    if findings.is_empty() {
        findings.push(Finding::ok(
            ACCESS,
            "no listener is open to more than it says, no secret is readable by others",
        ));
    }
    findings
}

fn anonymous(config: &Config, listener: &ListenerConfig) -> Option<Finding> {
    let is_open = listener.anonymous == AnonymousAccess::Allowed;
    let from_where = match &listener.bind {
        Bind::Ip(address) if is_public(address) => "from the network".to_owned(),
        Bind::Unix(_) if listener.unix_mode & 0o002 != 0 => "on this machine".to_owned(),
        _ => return None,
    };
    let may = match has_rules(config) {
        true => "do what the rules let anonymous clients do",
        false => "read and write everything, as there are no access rules",
    };
    is_open.then(|| {
        Finding::warning(
            ACCESS,
            format!(
                "listener {} ({}): anybody {from_where} may come in without a login and {may}",
                listener.name, listener.bind
            ),
            format!(
                "listeners.{}.anonymous = \"loopback\" or false, or bind it to 127.0.0.1",
                listener.name
            ),
        )
    })
}

fn plain(config: &Config, listener: &ListenerConfig) -> Option<Finding> {
    let Bind::Ip(address) = &listener.bind else {
        return None;
    };
    // Behind a proxy, the proxy has the TLS.
    if !is_public(address) || listener.tls.is_some() || listener.proxy_protocol {
        return None;
    }
    let what = match has_passwords(config) {
        true => "passwords and messages",
        false => "messages",
    };
    Some(Finding::warning(
        ACCESS,
        format!(
            "listener {} ({address}) has no TLS: {what} can be read on the way",
            listener.name
        ),
        format!(
            "add [listeners.tls] with cert and key (motemq-certs server NAME makes them), or bind {} to 127.0.0.1",
            listener.name
        ),
    ))
}

fn nobody(config: &Config) -> Option<Finding> {
    let lets_in = |listener: &ListenerConfig| {
        listener.anonymous != AnonymousAccess::Refused
            || listener.tls.as_ref().is_some_and(names_users)
    };
    let is_closed = !has_passwords(config)
        && config.auth.jwt.keys_file.is_none()
        && !config.listeners.iter().any(lets_in);
    is_closed.then(|| {
        Finding::warning(
            ACCESS,
            "nobody can come in: there are no users, no certificates are asked for, and no listener lets anonymous clients in",
            "motemq passwd add NAME, then auth.password_file = \"users\"; or client_ca, or anonymous = \"loopback\" on a listener",
        )
    })
}

/// Whether certificates log users in.
fn names_users(tls: &TlsConfig) -> bool {
    tls.client_cert != ClientCert::None && tls.identity != Identity::None
}

fn no_rules(config: &Config) -> Option<Finding> {
    let is_reached = config
        .listeners
        .iter()
        .any(|listener| match &listener.bind {
            Bind::Ip(address) => is_public(address),
            Bind::Unix(_) => false,
        });
    // A token may bring its own rules.
    let has_users = has_passwords(config)
        || config
            .listeners
            .iter()
            .any(|listener| listener.tls.as_ref().is_some_and(names_users));
    (is_reached && has_users && !has_rules(config)).then(|| {
        Finding::warning(
            ACCESS,
            "there are no access rules: every client that logs in may read and write everything",
            "write rules as in deploy/acl.conf and set auth.acl_file; motemq acl test tries them",
        )
    })
}

fn open_http(config: &Config) -> Option<Finding> {
    let address = config.http.bind.filter(is_public)?;
    Some(Finding::warning(
        ACCESS,
        format!(
            "http.bind is {address}: the token of the API and the dashboard can be read on the way, as the HTTP port has no TLS"
        ),
        "http.bind = \"127.0.0.1:9883\", with a TLS proxy or ssh -L before it; http.metrics_bind for Prometheus",
    ))
}

fn open_files(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(token) = config.token_file()
        && mode(&token).is_some_and(|mode| mode & 0o077 != 0)
    {
        findings.push(Finding::failed(
            SECRETS,
            format!(
                "the token of the API, {}, may be read by others: the broker does not start with it",
                token.display()
            ),
            format!("chmod 600 {0}, or remove it: a start makes a new one", token.display()),
        ));
    }
    let auth = &config.auth;
    let users = [
        ("auth.password_file", &auth.password_file),
        (
            "auth.mosquitto_password_file",
            &auth.mosquitto_password_file,
        ),
        ("auth.scram_file", &auth.scram_file),
    ];
    let users = users.into_iter();
    let files = users.filter_map(|(key, path)| Some((key, path.clone()?)));
    let store = config.data_dir.as_ref().map(|dir| dir.join("store.redb"));
    let files = files.chain(store.map(|store| ("the store", store)));
    for (what, path) in files {
        if is_world_readable(&path) {
            findings.push(Finding::warning(
                SECRETS,
                format!(
                    "{what}, {}, is readable by everybody on this machine",
                    path.display()
                ),
                format!("chmod o-rwx {}", path.display()),
            ));
        }
    }
    findings
}

fn persistence(config: &Config) -> Option<Finding> {
    if config.data_dir.is_none() {
        return Some(Finding::warning(
            "persistence",
            "data_dir is \"\": a restart loses every session, queued and retained message",
            "data_dir = \"/var/lib/motemq\"",
        ));
    }
    (config.persistence.durability == Durability::Relaxed).then(|| {
        Finding::warning(
            "persistence",
            "persistence.durability is relaxed: a power cut loses what was acknowledged last",
            "persistence.durability = \"commit\"",
        )
    })
}

fn log(config: &Config) -> Option<Finding> {
    let level = &config.log.level;
    let is_chatty = level.contains("debug") || level.contains("trace");
    is_chatty.then(|| {
        Finding::warning(
            "log",
            format!("log.level is {level:?}: it fills disks and costs time"),
            "log.level = \"info\"; motemq log set FILTER --for 10m when it is needed",
        )
    })
}

fn has_passwords(config: &Config) -> bool {
    let auth = &config.auth;
    auth.password_file.is_some()
        || auth.mosquitto_password_file.is_some()
        || auth.scram_file.is_some()
}

fn has_rules(config: &Config) -> bool {
    config.auth.acl_file.is_some() || config.auth.mosquitto_acl_file.is_some()
}

fn is_public(address: &SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

fn mode(path: &Path) -> Option<u32> {
    Some(path.metadata().ok()?.permissions().mode())
}

/// Whether everybody may read it, and reach it through its folder.
fn is_world_readable(path: &Path) -> bool {
    let is_reached = path
        .parent()
        .and_then(mode)
        .is_none_or(|mode| mode & 0o001 != 0);
    is_reached && mode(path).is_some_and(|mode| mode & 0o004 != 0)
}

const ACCESS: &str = "access";
const SECRETS: &str = "secrets";

#[cfg(test)]
mod tests {
    use super::*;
    use motemq::config::{self, Sources};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_listener_on_loopback_with_users_has_no_smell() {
        check(
            &[
                "listeners.mqtt.bind=127.0.0.1:1883",
                "auth.password_file=users",
            ],
            &[],
        );
    }

    #[test]
    fn a_public_listener_is_warned_of_for_anonymous_clients_plain_text_and_no_rules() {
        check(
            &["listeners.mqtt.anonymous=true"],
            &[
                "may come in without a login and read and write everything",
                "has no TLS: messages",
            ],
        );
        check(
            &["auth.password_file=users"],
            &["has no TLS: passwords and messages", "no access rules"],
        );
        check(
            &["auth.password_file=users", "auth.acl_file=acl.conf"],
            &["has no TLS"],
        );
    }

    #[test]
    fn a_broker_that_nobody_can_enter_is_warned_of() {
        check(
            &["listeners.mqtt.bind=127.0.0.1:1883"],
            &["nobody can come in"],
        );
    }

    #[test]
    fn what_is_not_kept_is_warned_of() {
        let local = [
            "listeners.mqtt.bind=127.0.0.1:1883",
            "listeners.mqtt.anonymous=loopback",
        ];
        let with = |setting| [&local[..], &[setting]].concat();
        check(&with("data_dir="), &["data_dir is \"\""]);
        check(&with("persistence.durability=relaxed"), &["relaxed"]);
        check(&with("log.level=debug"), &["log.level"]);
        check(
            &with("http.bind=0.0.0.0:9883"),
            &["http.bind is 0.0.0.0:9883"],
        );
    }

    #[test]
    fn secrets_that_others_may_read_are_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for name in ["users", "api.token"] {
            std::fs::write(dir.path().join(name), "").unwrap();
            std::fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(0o644))
                .unwrap();
        }
        let folder = dir.path().display();
        let settings = [
            format!("data_dir={folder}"),
            format!("auth.password_file={folder}/users"),
            "listeners.mqtt.bind=127.0.0.1:1883".to_owned(),
        ];
        let settings = settings.each_ref().map(String::as_str);
        check(&settings, &["the token of the API", "auth.password_file"]);
    }

    fn check(settings: &[&str], expected: &[&str]) {
        let sources = Sources {
            set: settings.iter().map(|&setting| setting.to_owned()).collect(),
            ..Sources::default()
        };
        let findings = look(&config::load(&sources).unwrap());
        let found: Vec<_> = findings
            .iter()
            .filter(|finding| finding.hint.is_some())
            .collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (finding, part) in found.iter().zip(expected) {
            assert!(
                finding.message.contains(part),
                "{finding:?} has no {part:?}"
            );
        }
    }
}
