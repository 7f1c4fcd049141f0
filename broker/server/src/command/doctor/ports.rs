//! Whether a broker answers, and whether the addresses of the configuration can be had.

use super::super::healthcheck::{Health, reachable};
use super::Finding;
use motemq::config::{Bind, Config};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub(super) fn look(config: &Config, health: &Health) -> Vec<Finding> {
    let mut findings = vec![broker(config, health)];
    let is_running = health.at.is_some();
    let listeners = config.listeners.iter();
    let tcp = listeners.filter_map(|listener| match &listener.bind {
        Bind::Ip(address) => Some((format!("listener {}", listener.name), *address)),
        Bind::Unix(_) => None,
    });
    let http = [
        ("http.bind", config.http.bind),
        ("http.metrics_bind", config.http.metrics_bind),
    ];
    let http = http.into_iter();
    let http = http.filter_map(|(key, address)| Some((key.to_owned(), address?)));
    // The system chooses port 0.
    let addresses = tcp.chain(http).filter(|(_, address)| address.port() != 0);
    findings.extend(addresses.map(|(what, address)| match is_running {
        true => answers(&what, address),
        false => is_free(&what, address),
    }));
    findings
}

fn broker(config: &Config, health: &Health) -> Finding {
    match &health.at {
        Some(at) if health.is_ready => {
            Finding::ok(BROKER, format!("a broker answers at {at}: ready"))
        }
        Some(_) => Finding::failed(
            BROKER,
            health.message.clone(),
            "its log (journalctl -u motemq) says why; deploy/RUNBOOK.md what to do",
        ),
        None if is_closed_to_us(config) => Finding::warning(
            BROKER,
            "a broker answers at its admin socket, but not to this user",
            "run this as the broker's user: sudo -u motemq motemq doctor -c FILE",
        ),
        None => Finding::ok(BROKER, "no broker runs with this configuration"),
    }
}

fn is_closed_to_us(config: &Config) -> bool {
    let socket = config.admin_socket();
    socket.is_some_and(|socket| {
        UnixStream::connect(socket).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    })
}

fn answers(what: &str, address: SocketAddr) -> Finding {
    let address = reachable(address);
    match TcpStream::connect_timeout(&address, CONNECT_TIME) {
        Ok(_) => Finding::ok(PORTS, format!("{what}: {address} accepts connections")),
        Err(error) => Finding::failed(
            PORTS,
            format!("{what}: a broker runs, but {address} does not accept connections: {error}"),
            "restart the broker if the address is new; look for a firewall (nft list ruleset)",
        ),
    }
}

fn is_free(what: &str, address: SocketAddr) -> Finding {
    let Err(error) = TcpListener::bind(address) else {
        return Finding::ok(PORTS, format!("{what}: {address} is free"));
    };
    let hint = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "stop what uses it (ss -ltnp 'sport = :{}' names it), or set another bind",
            address.port()
        ),
        ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE, as deploy/motemq.service can grant; or set another bind".to_owned(),
        ErrorKind::AddrNotAvailable => "this machine has no such address: set another bind".to_owned(),
        _ => "set another bind".to_owned(),
    };
    Finding::failed(
        PORTS,
        format!("{what}: {address} cannot be had: {error}"),
        hint,
    )
}

const BROKER: &str = "broker";
const PORTS: &str = "ports";
/// How long a connection to this machine may take.
const CONNECT_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_how_to_find_who_uses_it() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let found = is_free("listener mqtt", address);
        assert_eq!(found.verdict, Verdict::Failed);
        assert!(
            found
                .hint
                .unwrap()
                .contains(&format!(":{}'", address.port()))
        );
        assert_eq!(answers("listener mqtt", address).verdict, Verdict::Ok);
        drop(other);
        assert_eq!(is_free("listener mqtt", address).verdict, Verdict::Ok);
        assert_eq!(answers("listener mqtt", address).verdict, Verdict::Failed);
    }
}
