//! The opening handshake of a WebSocket client: one HTTP request, one answer (RFC 6455 section 4.2).
//!
//! Promises:
//! - At most `head_bytes_max` bytes are read and kept; the time limit is the caller's.
//! - One request per connection: a body is refused, and what follows the head can only be frames. So no second request can
//!   hide behind the first.
//! - Whatever is wrong gets an HTTP answer that says so, and a [`Refusal`] that names the key for the log.
//!
//! A page in a browser may connect from the origins of the configuration; without any, from the host that it connects to. A
//! browser always sends Origin, so a request without one comes from no page and passes.
//!
//! Does not know: frames, MQTT.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use httparse::{EMPTY_HEADER, Request, Status};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What a listener asks of a request.
#[derive(Copy, Clone, Debug)]
pub(crate) struct HandshakeRules<'a> {
    pub(crate) head_bytes_max: usize,
    pub(crate) paths: &'a [String],
    pub(crate) allow_origins: &'a [String],
}

/// Why a client gets no WebSocket.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the connection ended before the request was complete")]
    Incomplete,
    #[error(
        "this is not HTTP: the listener has protocol = \"ws\", MQTT itself needs another listener"
    )]
    NotHttp,
    #[error("the request head is larger than limits.websocket_head_bytes_max")]
    HeadTooLarge,
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    #[error("a plain HTTP request; this listener speaks MQTT over WebSocket only")]
    NoUpgrade,
    #[error("a version of WebSocket that is not 13")]
    Version,
    #[error("the path {0:?} is not in websocket_paths of this listener")]
    Path(String),
    #[error(
        "pages from {0:?} may not connect: allow them with allow_origins = [{0:?}] in this listener"
    )]
    Origin(String),
    #[error("the client does not offer the subprotocol \"mqtt\"")]
    Subprotocol,
}

impl Refusal {
    /// Status line, further headers, and the text for whoever reads it.
    pub(crate) fn answer(&self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Incomplete | Self::NotHttp => (
                "400 Bad Request",
                "",
                "This port speaks MQTT over WebSocket, which starts with an HTTP request.",
            ),
            Self::HeadTooLarge => (
                "431 Request Header Fields Too Large",
                "",
                "The request head is too large.",
            ),
            Self::Malformed(what) => ("400 Bad Request", "", what),
            Self::NoUpgrade => (
                "426 Upgrade Required",
                "Upgrade: websocket\r\n",
                "This port speaks MQTT over WebSocket (subprotocol mqtt), not plain HTTP.",
            ),
            Self::Version => (
                "426 Upgrade Required",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
                "Only version 13 of WebSocket is spoken here.",
            ),
            Self::Path(_) => (
                "404 Not Found",
                "",
                "There is nothing at this path; MQTT is usually at /mqtt.",
            ),
            Self::Origin(_) => (
                "403 Forbidden",
                "",
                "Pages of this origin may not connect; the broker's log names the key.",
            ),
            Self::Subprotocol => (
                "400 Bad Request",
                "",
                "Offer the WebSocket subprotocol: Sec-WebSocket-Protocol: mqtt",
            ),
        }
    }

    fn response(&self) -> String {
        let (status, headers, text) = self.answer();
        // A refused Upgrade still belongs to this connection only, hence in Connection too.
        let connection = match headers.is_empty() {
            true => "close",
            false => "Upgrade, close",
        };
        let length = text.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\n{headers}Connection: {connection}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}\n"
        )
    }
}

/// Reads a request and answers it. The outcome is what came behind its head.
///
/// # Errors
/// When the client is refused; it has been told then, and only the socket is left to close.
pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    rules: HandshakeRules<'_>,
) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let outcome = read_request(socket, &mut bytes, rules).await;
    let response = match &outcome {
        Ok((_, response)) => response,
        Err(refusal) => &refusal.response(),
    };
    let told = socket.write_all(response.as_bytes()).await;
    let told = told.and(socket.flush().await);
    match outcome {
        Ok((length, _)) if told.is_ok() => Ok(bytes.split_off(length)),
        Ok(_) => Err(Refusal::Incomplete),
        Err(refusal) => {
            let _ = socket.shutdown().await;
            discard(socket).await;
            Err(refusal)
        }
    }
}

/// Length of the head, and the answer that accepts it.
async fn read_request<S: AsyncRead + Unpin>(
    socket: &mut S,
    bytes: &mut Vec<u8>,
    rules: HandshakeRules<'_>,
) -> Result<(usize, String), Refusal> {
    loop {
        let room = rules.head_bytes_max.saturating_sub(bytes.len());
        if room == 0 {
            return Err(Refusal::HeadTooLarge);
        }
        let start = bytes.len();
        bytes.reserve(room.min(READ_BYTES));
        let read = (&mut *socket).take(room as u64).read_buf(bytes).await;
        if !matches!(read, Ok(1..)) {
            return Err(Refusal::Incomplete);
        }
        if !bytes.first().is_some_and(u8::is_ascii_uppercase) {
            return Err(Refusal::NotHttp);
        }
        // A head can only be complete behind the end of a line.
        let is_line_over = bytes.iter().skip(start).any(|byte| *byte == b'\n');
        if is_line_over && let Some(accepted) = examine(bytes, rules)? {
            return Ok(accepted);
        }
    }
}

/// Reads away what a refused client still sends, for a moment: closing over unread bytes would destroy the answer.
async fn discard<S: AsyncRead + Unpin>(socket: &mut S) {
    let mut rest = (&mut *socket).take(DISCARD_BYTES_MAX);
    let mut bytes = [0; 1024];
    let drain = async { while matches!(rest.read(&mut bytes).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(DISCARD_TIME, drain).await;
}

/// Looks at a request: `None` while its head is incomplete, else its length and the answer.
fn examine(bytes: &[u8], rules: HandshakeRules<'_>) -> Result<Option<(usize, String)>, Refusal> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Err(_) => return Err(Refusal::Malformed("This is not an HTTP request.")),
    };
    let headers: Vec<_> = request
        .headers
        .iter()
        .map(|header| (header.name, header.value))
        .collect();
    check_upgrade(&headers)?;
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(Refusal::Malformed(
            "The upgrade has to be a GET of HTTP 1.1.",
        ));
    }
    let target = request.path.unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    if !rules
        .paths
        .iter()
        .any(|known| known == "/*" || known == path)
    {
        return Err(Refusal::Path(quoted(path)));
    }
    let Agreed {
        accept_key,
        subprotocol,
    } = agree(&headers, rules.allow_origins)?;
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept_key}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n",
    );
    Ok(Some((length, response)))
}

/// Header lines of a request: names and values.
pub(crate) type Headers<'a> = [(&'a str, &'a [u8])];

/// What an answer that accepts says.
#[derive(Debug)]
pub(crate) struct Agreed {
    /// Sec-WebSocket-Accept.
    pub(crate) accept_key: String,
    /// Sec-WebSocket-Protocol.
    pub(crate) subprotocol: &'static str,
}

/// Whether it is an upgrade to WebSocket at all, and nothing else with it.
///
/// # Errors
/// What it lacks.
pub(crate) fn check_upgrade(headers: &Headers<'_>) -> Result<(), Refusal> {
    let has = |name, token| has_token(headers, name, token);
    if !has("upgrade", "websocket") || !has("connection", "upgrade") {
        return Err(Refusal::NoUpgrade);
    }
    let has_body = values(headers, "transfer-encoding").next().is_some()
        || values(headers, "content-length").any(|value| value != b"0");
    match has_body {
        true => Err(Refusal::Malformed("The upgrade cannot have a body.")),
        false => Ok(()),
    }
}

/// Agrees with a client that asks for an upgrade at the right path; without `allow_origins`, pages of the host itself may connect.
///
/// # Errors
/// What is wrong with the request.
pub(crate) fn agree(headers: &Headers<'_>, allow_origins: &[String]) -> Result<Agreed, Refusal> {
    if only(headers, "sec-websocket-version")? != Some("13") {
        return Err(Refusal::Version);
    }
    let Some(host) = only(headers, "host")? else {
        return Err(Refusal::Malformed("The header Host is missing."));
    };
    if let Some(origin) = only(headers, "origin")?
        && !admits_origin(allow_origins, origin, host)
    {
        return Err(Refusal::Origin(quoted(origin)));
    }
    let key = only(headers, "sec-websocket-key")?.unwrap_or_default();
    if BASE64.decode(key).map_or(0, |nonce| nonce.len()) != NONCE_BYTES {
        let what = "The header Sec-WebSocket-Key has to hold 16 bytes in base64.";
        return Err(Refusal::Malformed(what));
    }
    let offers = |name: &&&str| has_token(headers, "sec-websocket-protocol", name);
    let Some(subprotocol) = SUBPROTOCOLS.iter().find(offers) else {
        return Err(Refusal::Subprotocol);
    };
    Ok(Agreed {
        accept_key: accept_key(key),
        subprotocol,
    })
}

fn values<'a>(headers: &'a Headers<'a>, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let named = headers
        .iter()
        .filter(move |header| header.0.eq_ignore_ascii_case(name));
    named.map(|header| header.1)
}

/// The value of a header that may be there once.
fn only<'a>(headers: &'a Headers<'a>, name: &'a str) -> Result<Option<&'a str>, Refusal> {
    let mut values = values(headers, name);
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(Refusal::Malformed("A header is there twice."));
    }
    let text = first.map(|value| std::str::from_utf8(value).map(str::trim));
    text.transpose()
        .map_err(|_| Refusal::Malformed("A header is not UTF-8."))
}

/// Whether a header that is a list, perhaps over several lines, holds `token`. Subprotocols are compared by case, the others
/// not; ours have no capitals, and no client is helped by the difference.
fn has_token(headers: &Headers<'_>, name: &str, token: &str) -> bool {
    values(headers, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The start of what a client sent, for a line in the log.
fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}

fn admits_origin(allowed: &[String], origin: &str, host: &str) -> bool {
    if allowed.is_empty() {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        return authority
            .is_some_and(|authority| name_of(authority).eq_ignore_ascii_case(name_of(host)));
    }
    allowed
        .iter()
        .any(|known| known == "*" || known.eq_ignore_ascii_case(origin))
}

/// A host without its port.
fn name_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}

/// The proof that the server has understood (RFC 6455 section 4.2.2).
fn accept_key(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    BASE64.encode(hash.as_ref())
}

/// What a client may offer, best first: [MQTT5-6.0.0-3] names `mqtt`; clients of MQTT 3.1 offer the other.
const SUBPROTOCOLS: &[&str] = &["mqtt", "mqttv3.1"];
/// Characters of a request in the log.
const QUOTED_CHARS_MAX: usize = 200;
/// Header lines in a request.
const HEADERS_MAX: usize = 64;
/// Bytes read at a time.
const READ_BYTES: usize = 1024;
/// Length of the nonce in Sec-WebSocket-Key.
const NONCE_BYTES: usize = 16;
/// How long, and how much, a refused client is listened to.
const DISCARD_TIME: std::time::Duration = std::time::Duration::from_secs(1);
const DISCARD_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: broker.example.org:8083\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

    fn look(request: &str, origins: &[&str]) -> Result<Option<(usize, String)>, Refusal> {
        let paths = ["/mqtt".to_owned(), "/".to_owned()];
        let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
        let rules = HandshakeRules {
            head_bytes_max: 8192,
            paths: &paths,
            allow_origins: &origins,
        };
        examine(request.as_bytes(), rules)
    }

    fn check_refused(request: &str, expected: Refusal, status: &str) {
        assert_eq!(look(request, &[]).unwrap_err(), expected, "{request}");
        let response = expected.response();
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{response}"
        );
    }

    fn with(from: &str, to: &str) -> String {
        assert!(REQUEST.contains(from), "{from}");
        REQUEST.replace(from, to)
    }

    fn with_origin(origin: &str) -> String {
        with(
            "Upgrade: websocket",
            &format!("Origin: {origin}\r\nUpgrade: websocket"),
        )
    }

    #[test]
    fn the_example_of_the_rfc_is_answered_as_there_with_the_subprotocol() {
        // [MQTT5-6.0.0-4]: the server selects "mqtt".
        let (length, response) = look(REQUEST, &[]).unwrap().unwrap();
        assert_eq!(length, REQUEST.len());
        assert!(response.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(response.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"));
        assert!(!response.contains("Extensions"));
    }

    #[test]
    fn a_head_cut_anywhere_is_incomplete() {
        for cut in 0..REQUEST.len() {
            assert_eq!(look(&REQUEST[..cut], &[]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn a_client_must_offer_mqtt_and_the_old_name_is_taken_too() {
        // [MQTT5-6.0.0-3]
        let none = with("Sec-WebSocket-Protocol: mqtt\r\n", "");
        check_refused(&none, Refusal::Subprotocol, "400");
        let other = with("Protocol: mqtt", "Protocol: mqttx, amqp");
        check_refused(&other, Refusal::Subprotocol, "400");
        let (_, response) = look(&with("Protocol: mqtt", "Protocol: mqttv3.1"), &[])
            .unwrap()
            .unwrap();
        assert!(response.contains("Protocol: mqttv3.1\r\n"));
        let both = with(
            "Protocol: mqtt",
            "Protocol: mqttv3.1\r\nSec-WebSocket-Protocol: x,mqtt",
        );
        let (_, response) = look(&both, &[]).unwrap().unwrap();
        assert!(response.contains("Protocol: mqtt\r\n"));
    }

    #[test]
    fn whatever_is_no_upgrade_gets_an_answer_that_says_so() {
        check_refused(
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Refusal::NoUpgrade,
            "426",
        );
        check_refused("POST /x HTTP/1.0\r\n\r\n", Refusal::NoUpgrade, "426");
        check_refused(&with("Version: 13", "Version: 8"), Refusal::Version, "426");
        assert!(
            Refusal::Version
                .response()
                .contains("Sec-WebSocket-Version: 13\r\n")
        );
        check_refused(
            &with("/mqtt", "/other?x=1"),
            Refusal::Path("/other".to_owned()),
            "404",
        );
        assert!(look(&with("/mqtt", "/mqtt?token=1"), &[]).is_ok());
        let malformed = |request: &str| {
            let refusal = look(request, &[]).unwrap_err();
            assert!(
                matches!(refusal, Refusal::Malformed(_)),
                "{request}: {refusal:?}"
            );
        };
        malformed("GET\r\n\r\n");
        malformed(&with("GET", "POST"));
        malformed(&with("HTTP/1.1", "HTTP/1.0"));
        malformed(&with("Host: broker.example.org:8083\r\n", ""));
        malformed(&with("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"));
        malformed(&with(
            "Sec-WebSocket-Version",
            "Host: other\r\nSec-WebSocket-Version",
        ));
    }

    #[test]
    fn no_second_request_hides_behind_the_first() {
        // D6: a body would be read by one side and not by the other.
        for header in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            let request = with(
                "Upgrade: websocket",
                &format!("{header}\r\nUpgrade: websocket"),
            );
            assert!(matches!(look(&request, &[]), Err(Refusal::Malformed(_))));
        }
        // What follows the head is not looked at here: it is frames, and a G has reserved bits.
        let twice = format!("{REQUEST}{REQUEST}");
        assert_eq!(look(&twice, &[]).unwrap().unwrap().0, REQUEST.len());
    }

    #[test]
    fn pages_connect_from_the_same_host_or_from_the_origins_allowed() {
        let is_allowed =
            |origin: &str, allowed: &[&str]| look(&with_origin(origin), allowed).is_ok();
        for same in [
            "https://broker.example.org",
            "http://Broker.Example.org:8080",
        ] {
            assert!(is_allowed(same, &[]), "{same}");
            assert!(!is_allowed(same, &["https://app.example.org"]), "{same}");
        }
        for foreign in [
            "https://evil.example",
            "https://broker.example.org.evil.example",
            "null",
            "",
        ] {
            check_refused(
                &with_origin(foreign),
                Refusal::Origin(foreign.to_owned()),
                "403",
            );
        }
        let list = ["https://app.example.org", "http://10.0.0.5:8080"];
        assert!(is_allowed("https://APP.example.org", &list));
        assert!(is_allowed("http://10.0.0.5:8080", &list));
        assert!(!is_allowed("http://app.example.org", &list));
        assert!(!is_allowed("http://10.0.0.5", &list));
        assert!(is_allowed("https://evil.example", &["*"]));
        assert!(look(REQUEST, &list).is_ok(), "no browser, no Origin");
        let long = format!("https://{}", "x".repeat(5000));
        let refusal = look(&with_origin(&long), &[]).unwrap_err();
        assert!(refusal.to_string().len() < 600, "it goes to the log");
        let twice = with(
            "Upgrade: websocket",
            "Origin: https://app.example.org\r\nOrigin: https://evil.example\r\nUpgrade: websocket",
        );
        assert!(look(&twice, &list).is_err());
    }
}
