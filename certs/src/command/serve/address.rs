//! Where the broker is: `mqtts://HOST[:PORT]`, `mqtt://HOST[:PORT]`, or `unix:PATH`.
//!
//! Without TLS only this machine is accepted: requests carry tokens.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A broker's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tls { host: String, port: u16 },
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.strip_prefix("//").unwrap_or(path) {
                "" => Err("unix: needs a path, such as unix:/run/motemq/motemq.sock".to_owned()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("not mqtts://HOST, mqtt://HOST or unix:PATH")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        match scheme {
            "mqtts" => {
                let (host, port) = host_and_port(rest, 8883)?;
                if host.contains(':') {
                    return Err(
                        "TLS to an IPv6 address is not supported: give a host name".to_owned()
                    );
                }
                Ok(Self::Tls { host, port })
            }
            "mqtt" => {
                let (host, port) = host_and_port(rest, 1883)?;
                if !is_this_machine(&host) {
                    return Err(
                        "tokens would cross the network in the clear: use mqtts://".to_owned()
                    );
                }
                Ok(Self::Tcp { host, port })
            }
            _ => Err(format!("{scheme} is unknown: use mqtts, mqtt or unix")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls { host, port } => write!(formatter, "mqtts://{host}:{port}"),
            Self::Tcp { host, port } => write!(formatter, "mqtt://{host}:{port}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// An IPv6 address keeps its brackets.
fn host_and_port(text: &str, port: u16) -> Result<(String, u16), String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, digits)) if !digits.ends_with(']') => {
            let port = digits.parse();
            (host, port.map_err(|_| format!("{digits:?} is no port"))?)
        }
        _ => (text, port),
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(bare) if bare.parse::<IpAddr>().is_ok() => Ok((host.to_owned(), port)),
        None if !host.is_empty() && !host.contains([':', '/', '@', '[', ']']) => {
            Ok((host.to_owned(), port))
        }
        _ => Err(format!("{host:?} is no host")),
    }
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url() {
        for (text, expected) in [
            ("mqtts://broker.example", "mqtts://broker.example:8883"),
            ("mqtts://10.0.0.5:8884/", "mqtts://10.0.0.5:8884"),
            ("mqtt://localhost", "mqtt://localhost:1883"),
            ("mqtt://127.0.0.2:7", "mqtt://127.0.0.2:7"),
            ("mqtt://[::1]", "mqtt://[::1]:1883"),
            ("mqtt://[::1]:7", "mqtt://[::1]:7"),
            ("unix:/run/motemq.sock", "unix:/run/motemq.sock"),
            ("unix:///run/motemq.sock", "unix:/run/motemq.sock"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), expected);
        }
    }

    #[test]
    fn without_tls_only_this_machine_is_an_address() {
        for text in [
            "mqtt://broker.example",
            "mqtt://10.0.0.5",
            "mqtt://localhost.example",
            "mqtt://[fe80::1]",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains("mqtts://"), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "broker",
            "http://a",
            "mqtts://",
            "mqtts://a:b",
            "mqtts://a:70000",
            "mqtts://u@a",
            "mqtts://::1",
            "mqtts://[::1]",
            "mqtt://[x]",
            "unix:",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
