//! Where the broker is: `mqtt://HOST[:PORT]`, `mqtts://`, or over WebSocket `ws://HOST[:PORT][/PATH]`, `wss://`.

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
    /// The path of the upgrade request when MQTT is spoken over WebSocket.
    pub websocket_path: Option<String>,
}

/// What MQTT or WebSocket runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP; port 1883, or 8083 for WebSocket, unless said otherwise.
    Tcp,
    /// TLS; port 8883, or 8084 for WebSocket, unless said otherwise.
    Tls,
}

/// The path that brokers offer.
const WEBSOCKET_PATH: &str = "/mqtt";

/// A broker address that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no broker address: write mqtt://HOST:PORT, mqtts://HOST:PORT, ws://HOST:PORT/mqtt or wss://HOST:PORT/mqtt"
)]
pub struct EndpointError(String);

impl Endpoint {
    /// A broker on this machine, without TLS.
    #[must_use]
    pub fn local() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 1883,
            transport: Transport::Tcp,
            websocket_path: None,
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
        let scheme = match (self.transport, &self.websocket_path) {
            (Transport::Tcp, None) => "mqtt",
            (Transport::Tls, None) => "mqtts",
            (Transport::Tcp, Some(_)) => "ws",
            (Transport::Tls, Some(_)) => "wss",
        };
        let (host, port) = (&self.host, self.port);
        let path = self.websocket_path.as_deref().unwrap_or_default();
        if host.contains(':') {
            write!(formatter, "{scheme}://[{host}]:{port}{path}")
        } else {
            write!(formatter, "{scheme}://{host}:{port}{path}")
        }
    }
}

fn parse(text: &str) -> Option<Endpoint> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("mqtt", text));
    let (transport, is_websocket, default_port) = match scheme {
        "mqtt" | "tcp" => (Transport::Tcp, false, 1883),
        "mqtts" | "ssl" => (Transport::Tls, false, 8883),
        "ws" => (Transport::Tcp, true, 8083),
        "wss" => (Transport::Tls, true, 8084),
        _ => return None,
    };
    let (rest, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let websocket_path = match (is_websocket, path) {
        (true, "") => Some(WEBSOCKET_PATH.to_owned()),
        (true, path) => Some(path.to_owned()),
        (false, "" | "/") => None,
        (false, _) => return None,
    };
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
    if host.is_empty() || host.contains('@') || path.contains(char::is_whitespace) {
        return None;
    }
    let host = host.to_owned();
    Some(Endpoint {
        host,
        port,
        transport,
        websocket_path,
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
        check("ws://localhost", "ws://localhost:8083/mqtt");
        check("ws://[::1]:9001/", "ws://[::1]:9001/");
        check("wss://a/b/c", "wss://a:8084/b/c");
        for wrong in [
            "",
            "http://a",
            "mqtt://",
            "mqtt://a:b",
            "mqtt://a:99999",
            "mqtt://u@h",
            "mqtt://h/path",
            "ws://",
            "ws://h/a b",
        ] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), expected);
    }
}
