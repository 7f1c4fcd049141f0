//! As whom the service logs in: with a certificate that it issues to itself, or with a name and a password.
//!
//! The certificate lives a week and in memory only; a new one is made when half of that is over. It is in the inventory like any other,
//! so it can be revoked.

use super::address::Address;
use super::{Arguments, ServeError};
use motemq_certs::{Authority, CertsError, Entry, Inventory, KeyType, Order, Validity, now_unix_s};
use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::v5::ConnectProperties;
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What is needed to log in.
pub(super) struct Identity {
    name: String,
    login: Option<(String, String)>,
    roots: Arc<RootCertStore>,
    /// With when it is to be replaced, in seconds since 1970.
    own: Option<(Arc<ClientConfig>, i64)>,
}

impl Identity {
    pub(super) fn new(arguments: &Arguments, authority: &Authority) -> Result<Self, ServeError> {
        let login = match (&arguments.user, &arguments.password_file) {
            (Some(user), Some(path)) => Some((user.clone(), password(path)?)),
            _ => None,
        };
        let roots = match &arguments.ca {
            Some(path) => {
                let roots = trusted(read(path)?.as_bytes());
                if roots.is_empty() {
                    return Err(ServeError::NoAuthority(path.clone()));
                }
                roots
            }
            None => trusted(
                format!("{}{}", authority.root_pem(), authority.certificate_pem()).as_bytes(),
            ),
        };
        Ok(Self {
            name: arguments.name.clone(),
            login,
            roots: Arc::new(roots),
            own: None,
        })
    }

    /// How to connect now; issues a certificate if there is none, or if it is to be replaced.
    pub(super) fn options(
        &mut self,
        broker: &Address,
        authority: &Authority,
    ) -> Result<MqttOptions, ServeError> {
        let mut options = match broker {
            Address::Tls { host, port } => {
                let mut options = MqttOptions::new(&self.name, host, *port);
                let tls = self.tls(authority)?;
                options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)));
                options
            }
            Address::Tcp { host, port } => MqttOptions::new(&self.name, host, *port),
            Address::Unix(path) => {
                let mut options = MqttOptions::new(&self.name, path.to_string_lossy(), 0);
                options.set_transport(Transport::unix());
                options
            }
        };
        if let Some((user, password)) = &self.login {
            options.set_credentials(user, password);
        }
        options
            .set_clean_start(false)
            .set_manual_acks(true)
            .set_keep_alive(KEEP_ALIVE)
            .set_connection_timeout(CONNECT_TIMEOUT_S)
            .set_outgoing_inflight_upper_limit(ANSWERS_IN_FLIGHT_MAX)
            .set_connect_properties(ConnectProperties {
                session_expiry_interval: Some(SESSION_EXPIRY_S),
                receive_maximum: Some(REQUESTS_IN_FLIGHT_MAX),
                max_packet_size: Some(PACKET_BYTES_MAX),
                ..ConnectProperties::new()
            });
        Ok(options)
    }

    /// When to connect anew because the certificate is to be replaced.
    pub(super) fn renew_in(&self) -> Option<Duration> {
        let (_, renew_at_s) = self.own.as_ref()?;
        let left_s = renew_at_s.saturating_sub(now_unix_s());
        Some(Duration::from_secs(u64::try_from(left_s).unwrap_or(0)))
    }

    fn tls(&mut self, authority: &Authority) -> Result<Arc<ClientConfig>, ServeError> {
        if self.login.is_some() {
            return Ok(Arc::new(self.tls_builder()?.with_no_client_auth()));
        }
        if let Some((own, renew_at_s)) = &self.own
            && *renew_at_s > now_unix_s()
        {
            return Ok(Arc::clone(own));
        }
        let order = Order::service(&self.name)?.valid(Validity::Days(OWN_DAYS));
        let issued = authority.issue(&order, KeyType::P256)?;
        Inventory::open_to_issue(authority.dir())?.append(&[Entry::issued(&order, &issued)])?;
        let chain = certificates(issued.chain_pem.as_bytes());
        let key = PrivatePkcs8KeyDer::from(issued.private_key_der.clone());
        let config = self
            .tls_builder()?
            .with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key))?;
        let now_s = now_unix_s();
        // At least a minute, should the authority itself be about to expire.
        let half_s = ((issued.not_after_unix_s - now_s) / 2).max(60);
        super::log(&format!(
            "issued {} to {:?}, the service itself",
            issued.serial_hex, self.name
        ));
        let own = Arc::new(config);
        self.own = Some((Arc::clone(&own), now_s + half_s));
        Ok(own)
    }

    fn tls_builder(
        &self,
    ) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, ServeError>
    {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&self.roots));
        Ok(builder)
    }
}

fn password(path: &Path) -> Result<String, ServeError> {
    let text = read(path)?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(ServeError::NoPassword(path.to_owned())),
    }
}

fn read(path: &Path) -> Result<String, CertsError> {
    fs::read_to_string(path).map_err(|source| CertsError::File {
        path: path.to_owned(),
        source,
    })
}

/// The certificates in `pem`, as whom to trust.
pub(super) fn trusted(pem: &[u8]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(pem));
    roots
}

/// The certificates in `pem`.
pub(super) fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem)
        .filter_map(Result::ok)
        .collect()
}

/// How long the service's own certificate is valid.
const OWN_DAYS: u32 = 7;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT_S: u64 = 10;
/// How long requests wait in the broker while the service is away: a day.
const SESSION_EXPIRY_S: u32 = 24 * 60 * 60;
/// Requests that the broker sends before it waits for acknowledgements.
const REQUESTS_IN_FLIGHT_MAX: u16 = 16;
/// Answers that wait for the broker's acknowledgement: never more than requests.
const ANSWERS_IN_FLIGHT_MAX: u16 = 64;
/// A signing request of 16 KiB with the longest properties that a client may add.
const PACKET_BYTES_MAX: u32 = 256 * 1024;
