//! `motemq run --dev`: certificates, a LAN user and listeners out of nothing, reused at the next start.
//!
//! Clients on this machine need no password; clients elsewhere need the generated one. Nothing here has a default
//! password.

use crate::config::{
    AnonymousAccess, Bind, ClientCert, Config, CrlOverdue, Identity, ListenerConfig, TlsConfig,
};
use crate::password;
use motemq_certs::{Authority, CertsError, Created};
use rand::RngExt as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What `--dev` prepared, for printing.
#[derive(Debug)]
pub struct DevSetup {
    pki: PathBuf,
    authority: &'static str,
    lan_password: String,
    data_dir: PathBuf,
    plain: SocketAddr,
    tls: SocketAddr,
}

/// `--dev` cannot prepare its files.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A certificate.
    #[error(transparent)]
    Certificates(#[from] CertsError),
    /// The password file.
    #[error(transparent)]
    Passwords(#[from] password::PasswordFileError),
    /// The listeners of dev mode have ports.
    #[error("dev mode needs an IP address and port, not unix:{}: set listeners.mqtt.bind", .0.display())]
    UnixSocket(PathBuf),
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Prepares certificates and the LAN user beside the data directory, and changes the configuration to use them.
///
/// # Errors
/// When a file cannot be read or written.
pub fn prepare(config: &mut Config) -> Result<DevSetup, DevError> {
    let data_dir = config
        .data_dir
        .get_or_insert_with(|| PathBuf::from("data"))
        .clone();
    let pki = data_dir.join("pki");
    make_private_dir(&pki)?;
    let (authority, created) = Authority::open_or_create(&pki, "MoteMQ dev CA")?;
    let (server_cert, server_key) = (pki.join("server.crt"), pki.join("server.key"));
    issue_server(&authority, &server_cert, &server_key)?;
    let (device_cert, device_key) = (pki.join("device.crt"), pki.join("device.key"));
    if !device_cert.exists() {
        authority
            .issue_device(DEV_DEVICE)?
            .write(&device_cert, &device_key)?;
    }
    let password_file = data_dir.join("dev-users");
    let lan_password = lan_password(&data_dir, &password_file)?;
    config.auth.password_file = Some(password_file);
    // `--set listeners.mqtt.bind=...` moves both: TLS is 7000 ports above, as 8883 is above 1883.
    let plain = config
        .listeners
        .iter()
        .find(|listener| listener.name == "mqtt");
    let bind = match plain.map_or_else(|| ListenerConfig::default().bind, |l| l.bind.clone()) {
        Bind::Ip(address) => address,
        Bind::Unix(path) => return Err(DevError::UnixSocket(path)),
    };
    let tls_bind = SocketAddr::new(bind.ip(), bind.port().wrapping_add(TLS_PORT_DISTANCE));
    config.listeners = vec![
        listener("mqtt", bind, None),
        listener(
            "mqtts",
            tls_bind,
            Some(TlsConfig {
                cert: server_cert,
                key: server_key,
                client_ca: Some(authority.certificate_path()),
                crl: None,
                crl_overdue: CrlOverdue::Warn,
                allow_list: None,
                client_cert: ClientCert::Optional,
                identity: Identity::Cn,
                record_bytes_max: 16_384,
            }),
        ),
    ];
    Ok(DevSetup {
        pki,
        authority: match created {
            Created::New => "created",
            Created::Reused => "reused",
        },
        lan_password,
        data_dir,
        plain: bind,
        tls: tls_bind,
    })
}

impl DevSetup {
    /// A dozen lines: where to connect, with commands to paste.
    #[must_use]
    pub fn describe(&self, ready_in: Duration, http: Option<SocketAddr>) -> String {
        let pki = self.pki.display();
        let (local, lan) = ("localhost", lan_address());
        let host = lan.map_or_else(|| local.to_owned(), |address| address.to_string());
        let password = &self.lan_password;
        let port = match self.plain.port() {
            1883 => String::new(),
            port => format!(" -p {port}"),
        };
        let http = http.map_or_else(
            || "off".to_owned(),
            |address| format!("http://{address}/metrics"),
        );
        format!(
            "MoteMQ {version}  dev mode: clients on this machine need no password, others do
  mqtt   {plain}   mosquitto_sub{port} -t 'hello/#' -v
                        mosquitto_pub{port} -t hello/world -m hi
         from the LAN   mosquitto_pub -h {host}{port} -u {DEV_USER} -P {password} -t hello/lan -m hi
  mqtts  {tls}   mosquitto_pub -h {local} -p {tls_port} --cafile {pki}/ca.crt --cert {pki}/device.crt --key {pki}/device.key -t hello/tls -m hi
         from the LAN   mosquitto_pub -h {host} -p {tls_port} --cafile ca.crt -u {DEV_USER} -P {password} -t hello/lan -m hi
  http   {http}
  data   {data}   certificates {pki} (CA {authority}); delete the folder to start over
ready in {ms} ms (Ctrl-C stops)",
            plain = self.plain,
            tls = self.tls,
            tls_port = self.tls.port(),
            version = env!("CARGO_PKG_VERSION"),
            authority = self.authority,
            data = self.data_dir.display(),
            ms = ready_in.as_millis(),
        )
    }
}

fn listener(name: &str, bind: SocketAddr, tls: Option<TlsConfig>) -> ListenerConfig {
    ListenerConfig {
        name: name.to_owned(),
        bind: bind.into(),
        anonymous: AnonymousAccess::Loopback,
        tls,
        ..ListenerConfig::default()
    }
}

/// Issues the server certificate unless the one there names every address of this machine and lives long enough.
fn issue_server(authority: &Authority, cert: &Path, key: &Path) -> Result<(), DevError> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    if let Ok(host) = hostname::get() {
        names.extend(host.into_string().ok().filter(|host| host != "localhost"));
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    names.extend(
        interfaces
            .iter()
            .filter(|i| !i.is_loopback())
            .map(|i| i.ip().to_string()),
    );
    if cert.exists() && key.exists() {
        let pem = std::fs::read_to_string(cert).map_err(file_error(cert))?;
        let known = motemq_certs::certificate_names(&pem)?;
        let now_s = i64::try_from(crate::clock::now().as_ms() / 1000).unwrap_or(i64::MAX);
        let is_complete = names.iter().all(|name| known.contains(name));
        if is_complete && !motemq_certs::expires_within(&pem, RENEW_DAYS, now_s)? {
            return Ok(());
        }
    }
    for old in [cert, key] {
        if old.exists() {
            std::fs::remove_file(old).map_err(file_error(old))?;
        }
    }
    Ok(authority.issue_server(&names)?.write(cert, key)?)
}

/// The generated password of the LAN user: kept in a private file so that the next start prints the same one.
fn lan_password(data_dir: &Path, users: &Path) -> Result<String, DevError> {
    let path = data_dir.join("dev-password");
    if path.exists() && users.exists() {
        let password = std::fs::read_to_string(&path).map_err(file_error(&path))?;
        return Ok(password.trim().to_owned());
    }
    let mut rng = rand::rng();
    let letters = b"abcdefghjkmnpqrstuvwxyz23456789";
    let password: String = (0..16)
        .map(|_| char::from(letters[rng.random_range(0..letters.len())]))
        .collect();
    let mut how = std::fs::File::options();
    how.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut how, 0o600);
    let mut file = how.open(&path).map_err(file_error(&path))?;
    writeln!(file, "{password}").map_err(file_error(&path))?;
    password::set_user(users, DEV_USER, password.as_bytes())?;
    Ok(password)
}

fn lan_address() -> Option<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().ok()?;
    let lan = interfaces
        .into_iter()
        .filter(|i| !i.is_loopback())
        .map(|i| i.ip());
    lan.into_iter().find(IpAddr::is_ipv4)
}

fn make_private_dir(dir: &Path) -> Result<(), DevError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(file_error(dir))
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> DevError {
    let path = path.to_owned();
    move |source| DevError::File { path, source }
}

/// From the port of the plain listener to that of the TLS listener.
const TLS_PORT_DISTANCE: u16 = 7000;
/// The user that clients from the network log in as.
const DEV_USER: &str = "dev";
/// The name in the device certificate.
const DEV_DEVICE: &str = "dev-device";
/// The server certificate is renewed when it has fewer days left.
const RENEW_DAYS: u32 = 30;
