//! Where the broker is: `mqtt://HOST[:PORT]` or `mqtts://HOST[:PORT]`.

use std::fmt;
use std::str::FromStr;

/// A broker's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Plain or encrypted.
    pub transport: Transport,
}

/// What MQTT runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, 1883 unless said otherwise.
    Tcp,
    /// TLS, 8883 unless said otherwise.
    Tls,
}

/// A broker address that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no broker address: write mqtt://HOST:PORT or mqtts://HOST:PORT")]
pub struct EndpointError(String);

impl Endpoint {
    /// A broker on this machine, without TLS.
    #[must_use]
    pub fn local() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 1883,
            transport: Transport::Tcp,
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        parse(text).ok_or_else(|| EndpointError(text.to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            Transport::Tcp => "mqtt",
            Transport::Tls => "mqtts",
        };
        let (host, port) = (&self.host, self.port);
        if host.contains(':') {
            write!(formatter, "{scheme}://[{host}]:{port}")
        } else {
            write!(formatter, "{scheme}://{host}:{port}")
        }
    }
}

fn parse(text: &str) -> Option<Endpoint> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("mqtt", text));
    let (transport, default_port) = match scheme {
        "mqtt" | "tcp" => (Transport::Tcp, 1883),
        "mqtts" | "ssl" => (Transport::Tls, 8883),
        _ => return None,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => default_port,
    };
    if host.is_empty() || host.contains(['/', '@']) {
        return None;
    }
    let host = host.to_owned();
    Some(Endpoint {
        host,
        port,
        transport,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_and_port_have_defaults() {
        check("localhost", "mqtt://localhost:1883");
        check("mqtt://10.0.0.5:18833", "mqtt://10.0.0.5:18833");
        check("mqtts://broker.example/", "mqtts://broker.example:8883");
        check("mqtt://[::1]", "mqtt://[::1]:1883");
        for wrong in [
            "",
            "http://a",
            "mqtt://",
            "mqtt://a:b",
            "mqtt://a:99999",
            "mqtt://u@h",
        ] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), expected);
    }
}
