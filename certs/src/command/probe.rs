//! What a TLS listener shows to whoever connects: a handshake without a certificate of our own, and nothing after it.
//!
//! Does not know: MQTT. Whatever the listener shows is taken and described; whether it is to be trusted is asked afterwards.

use motemq_certs::CertsError;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
};
use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a listener that wants a certificate may take to refuse us.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(500);

/// A listener's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// A name or address.
    pub(crate) host: String,
    port: u16,
}

impl Peer {
    /// Reads `HOST:PORT`, an IPv6 address in brackets.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let unbracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = unbracketed.unwrap_or(host);
        let is_host = !host.is_empty() && !host.contains(['/', '[', ']']);
        let is_address = unbracketed.is_some() || !host.contains(':');
        if !is_host || !is_address {
            return None;
        }
        Some(Self {
            host: host.to_owned(),
            port: port.parse().ok().filter(|port| *port != 0)?,
        })
    }
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) version: String,
    pub(crate) cipher: String,
    pub(crate) key_exchange: String,
    pub(crate) asks: Asks,
}

/// Whether a listener asks for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    No,
    /// It goes on without one, as far as can be seen.
    Optional,
    /// It refuses who has none.
    Required,
}

/// Connects and shakes hands.
pub(crate) fn probe(peer: &Peer) -> Result<Shown, CertsError> {
    let failed = |problem: String| CertsError::Probe {
        peer: format!("{}:{}", peer.host, peer.port),
        problem,
    };
    let mut socket = connect(peer).map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused => {
            failed("nobody listens there: is the broker running?".to_owned())
        }
        _ => failed(error.to_string()),
    })?;
    let asked = Arc::new(Asked::default());
    let config = config(&asked).map_err(|error| failed(error.to_string()))?;
    let name = ServerName::try_from(peer.host.clone())
        .map_err(|_| failed("the host is neither a DNS name nor an address".to_owned()))?;
    let mut connection =
        ClientConnection::new(Arc::new(config), name).map_err(|error| failed(error.to_string()))?;
    let shaken = handshake(&mut connection, &mut socket);
    let is_refused = match shaken {
        Ok(()) => asked.was_asked() && is_refused(&mut connection, &mut socket),
        // In TLS 1.2 the refusal comes before the handshake has ended; what there is to see has been seen.
        Err(_) if asked.was_asked() && connection.peer_certificates().is_some() => true,
        Err(error) => return Err(failed(said(&error))),
    };
    let chain = connection.peer_certificates().unwrap_or_default();
    Ok(Shown {
        chain: chain
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect(),
        version: connection
            .protocol_version()
            .map_or_else(unseen, |version| {
                format!("{version:?}")
                    .replace('_', ".")
                    .replace("TLSv", "TLS ")
            }),
        cipher: connection
            .negotiated_cipher_suite()
            .map_or_else(unseen, |suite| format!("{:?}", suite.suite())),
        key_exchange: connection
            .negotiated_key_exchange_group()
            .map_or_else(unseen, |group| format!("{:?}", group.name())),
        asks: match (asked.was_asked(), is_refused) {
            (false, _) => Asks::No,
            (true, false) => Asks::Optional,
            (true, true) => Asks::Required,
        },
    })
}

fn unseen() -> String {
    "not seen".to_owned()
}

fn connect(peer: &Peer) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in (peer.host.as_str(), peer.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(socket) => {
                socket.set_read_timeout(Some(TIMEOUT))?;
                socket.set_write_timeout(Some(TIMEOUT))?;
                return Ok(socket);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn handshake(connection: &mut ClientConnection, socket: &mut TcpStream) -> io::Result<()> {
    while connection.is_handshaking() {
        connection.complete_io(socket)?;
    }
    Ok(())
}

/// Whether the other side ends the connection now that it knows that we have no certificate.
fn is_refused(connection: &mut ClientConnection, socket: &mut TcpStream) -> bool {
    if socket.set_read_timeout(Some(REFUSAL_TIMEOUT)).is_err() {
        return false;
    }
    // Tickets may come first; then there is a refusal, or nothing to be read.
    while connection.wants_read() {
        match connection.read_tls(socket) {
            Ok(0) => return true,
            Ok(_) if connection.process_new_packets().is_err() => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            }
        }
    }
    false
}

/// What a failed handshake means.
fn said(error: &io::Error) -> String {
    let hint = "is this a listener without [listeners.tls]?";
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match (cause, error.kind()) {
        (Some(Error::AlertReceived(AlertDescription::ProtocolVersion)), _) => {
            "it speaks neither TLS 1.2 nor 1.3".to_owned()
        }
        (Some(Error::AlertReceived(AlertDescription::HandshakeFailure)), _) => {
            "it has no cipher or key exchange in common with us".to_owned()
        }
        (Some(Error::InvalidMessage(_)), _) => format!("what it answers is not TLS: {hint}"),
        (_, ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            format!("no answer to the TLS handshake within 5 seconds: {hint}")
        }
        (_, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            format!(
                "it closed the connection in the TLS handshake: {hint} Or does it refuse this address?"
            )
        }
        _ => error.to_string(),
    }
}

fn config(asked: &Arc<Asked>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_client_cert_resolver(asked.clone());
    Ok(config)
}

/// Notes that a certificate was asked for, and has none.
#[derive(Debug, Default)]
struct Asked(Mutex<bool>);

impl Asked {
    fn was_asked(&self) -> bool {
        self.0.lock().is_ok_and(|asked| *asked)
    }
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        if let Ok(mut asked) = self.0.lock() {
            *asked = true;
        }
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes every certificate whose key the other side holds.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_from_files() {
        for (text, host) in [
            ("localhost:8883", "localhost"),
            ("10.0.0.5:1", "10.0.0.5"),
            ("[::1]:8883", "::1"),
        ] {
            assert_eq!(Peer::parse(text).unwrap().host, host);
        }
        for text in [
            "localhost",
            "a.crt",
            "::1:8883",
            ":8883",
            "a/b:1",
            "a:0",
            "a:x",
            "a:70000",
        ] {
            assert_eq!(Peer::parse(text), None, "{text}");
        }
    }
}
