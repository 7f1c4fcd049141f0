//! `motemq pub` and `motemq sub`: a small MQTT client for operators, with the letters of mosquitto_pub and mosquitto_sub.
//!
//! Promises: exit code 0 only when what was asked for is complete (QoS 1 and 2 acknowledged to the end); what went wrong is said with what
//! to change. `link.rs` moves packets, `tls.rs` knows TLS, `publish.rs` and `subscribe.rs` what each of the two does.
//!
//! Does not know: the broker's configuration; it may be any broker.

mod link;
mod publish;
mod subscribe;
mod tls;

pub(crate) use publish::{PubArgs, run as publish};
pub(crate) use subscribe::{SubArgs, run as subscribe};

use clap::{Args, ValueEnum};
use link::{Got, Link, Target};
use motemq_codec::{
    Connect, ConnectProperties, Disconnect, Forwarded, Packet, PacketId, ProtocolVersion, QoS,
    ReasonCode, Will,
};
use rand::RngExt as _;
use std::fmt;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Who connects where.
#[derive(Args)]
pub(crate) struct ConnectArgs {
    /// Host of the broker.
    #[arg(short = 'h', long, default_value = "localhost")]
    host: String,
    /// Port; without it 1883, or 8883 with --cafile.
    #[arg(short, long)]
    port: Option<u16>,
    /// Client identifier; without it a random one.
    #[arg(short, long)]
    id: Option<String>,
    /// User name.
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// Password. Others see it in the list of processes: --password-file or the environment are better.
    #[arg(
        short = 'P',
        long = "pw",
        value_name = "PASSWORD",
        env = "MOTEMQ_PASSWORD",
        hide_env_values = true
    )]
    password: Option<String>,
    /// File whose first line is the password.
    #[arg(long, value_name = "FILE", overrides_with = "password")]
    password_file: Option<PathBuf>,
    /// Version of the protocol.
    #[arg(short = 'V', long = "protocol-version", value_enum, default_value_t = Version::V5, ignore_case = true)]
    version: Version,
    /// Keep alive in seconds; 0 is none.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    keepalive: u16,
    /// Speak TLS, and trust brokers whose certificates come from the authority in this file (PEM).
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Certificate to show (PEM), with those that lead to the authority, if any.
    #[arg(long, value_name = "FILE", requires_all = ["key", "cafile"])]
    cert: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Topic of the will: what the broker publishes when the connection is lost.
    #[arg(long, value_name = "TOPIC")]
    will_topic: Option<String>,
    /// Payload of the will.
    #[arg(
        long,
        value_name = "TEXT",
        requires = "will_topic",
        default_value = "",
        hide_default_value = true
    )]
    will_payload: String,
    /// QoS of the will.
    #[arg(long, value_name = "QOS", requires = "will_topic", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2), hide_default_value = true)]
    will_qos: u8,
    /// The will is retained.
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
    /// Say on standard error which packets come and go.
    #[arg(short, long)]
    debug: bool,
    /// Show what can be said.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// A version of the protocol, by any of its names.
#[derive(Copy, Clone, PartialEq, Eq, ValueEnum)]
enum Version {
    #[value(name = "5", aliases = ["mqttv5", "5.0"])]
    V5,
    #[value(name = "3.1.1", aliases = ["mqttv311", "311", "4"])]
    V3_1_1,
    #[value(name = "3.1", aliases = ["mqttv31", "31", "3"])]
    V3_1,
}

impl From<Version> for ProtocolVersion {
    fn from(version: Version) -> Self {
        match version {
            Version::V5 => Self::V5,
            Version::V3_1_1 => Self::V3_1_1,
            Version::V3_1 => Self::V3_1,
        }
    }
}

/// Why it did not work, and what to change.
#[derive(Debug)]
struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn failure<T>(what: impl Into<String>) -> Result<T, Failure> {
    Err(Failure(what.into()))
}

/// What a session of the client is to be.
struct Session {
    clean_start: bool,
    expiry_s: Option<u32>,
}

/// What CONNACK said.
struct Welcome {
    receive_maximum: u16,
    qos_max: QoS,
    packet_bytes_max: usize,
}

impl ConnectArgs {
    /// Connects and logs in.
    async fn connect(&self, session: &Session) -> Result<(Link, Welcome), Failure> {
        let tls = self.tls()?;
        let default_port = if tls.is_some() { 8883 } else { 1883 };
        let target = Target {
            host: self.host.clone(),
            port: self.port.unwrap_or(default_port),
            tls,
        };
        let shown = target.to_string();
        let password = self.password()?;
        let connecting = async {
            let version = self.version.into();
            let mut link = Link::open(target, version, self.debug).await?;
            let id = self.client_id();
            self.greet(&mut link, &id, password.as_deref(), session)?;
            let welcome = self.welcome(&mut link).await?;
            Ok((link, welcome))
        };
        match tokio::time::timeout(CONNECT_TIME, connecting).await {
            Ok(connected) => connected,
            Err(_) => failure(format!(
                "no answer from {shown} within {} seconds: is it the right host and port, and is no firewall between?",
                CONNECT_TIME.as_secs()
            )),
        }
    }

    fn client_id(&self) -> String {
        self.id
            .clone()
            .unwrap_or_else(|| format!("motemq-{:08x}", rand::rng().random::<u32>()))
    }

    fn tls(&self) -> Result<Option<tls::Trust>, Failure> {
        let Some(cafile) = &self.cafile else {
            return match self.port {
                Some(8883) => failure(
                    "port 8883 speaks TLS: give --cafile FILE with the authority of the broker's certificate (motemq-certs makes it as root.crt)",
                ),
                _ => Ok(None),
            };
        };
        let own = self.cert.as_deref().zip(self.key.as_deref());
        tls::Trust::load(cafile, own).map(Some)
    }

    fn password(&self) -> Result<Option<String>, Failure> {
        let Some(file) = &self.password_file else {
            return Ok(self.password.clone());
        };
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| Failure(format!("{}: {error}", file.display())))?;
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(Some(line.to_owned())),
            _ => failure(format!("{}: the first line is empty", file.display())),
        }
    }

    fn greet(
        &self,
        link: &mut Link,
        id: &str,
        password: Option<&str>,
        session: &Session,
    ) -> Result<(), Failure> {
        let will = self.will_topic.as_deref().map(|topic| Will {
            qos: qos(self.will_qos),
            retain: self.will_retain,
            topic,
            payload: self.will_payload.as_bytes(),
            delay_s: 0,
            message_expiry_s: None,
            forwarded: Forwarded::default(),
        });
        let connect = Connect {
            version: self.version.into(),
            client_id: id,
            clean_start: session.clean_start,
            keep_alive_s: self.keepalive,
            username: self.username.as_deref(),
            password: password.map(str::as_bytes),
            will,
            properties: ConnectProperties {
                session_expiry_s: session.expiry_s,
                receive_maximum: NonZeroU16::new(RECEIVE_MAXIMUM),
                ..ConnectProperties::default()
            },
        };
        if password.is_some() && self.username.is_none() && self.version != Version::V5 {
            return failure(
                "a password needs a user name (-u) in this version of the protocol; -V 5 does not",
            );
        }
        link.keep_alive(self.keepalive);
        link.send(&Packet::Connect(Box::new(connect)))
    }

    async fn welcome(&self, link: &mut Link) -> Result<Welcome, Failure> {
        let got = link.next().await;
        let target = link.target().to_string();
        match got {
            Ok(Got::ConnAck {
                code: ReasonCode::Success,
                receive_maximum,
                qos_max,
                packet_bytes_max,
                keep_alive_s,
            }) => {
                link.keep_alive(keep_alive_s.unwrap_or(self.keepalive));
                Ok(Welcome {
                    receive_maximum,
                    qos_max,
                    packet_bytes_max,
                })
            }
            Ok(Got::ConnAck { code, .. }) => {
                let said = link.reason();
                failure(format!(
                    "{target} refused: {}{said}{}",
                    words(code),
                    advice(code)
                ))
            }
            Ok(_) => failure(format!("what answers at {target} is no MQTT broker")),
            Err(_) if link.has_seen_tls() => failure(format!(
                "{target} speaks TLS: give --cafile FILE with the authority of the broker's certificate"
            )),
            Err(Failure(error)) => failure(format!(
                "{error}: {target} has not answered CONNECT; it may want TLS (--cafile), or another version (-V 3.1.1), or it is no MQTT broker"
            )),
        }
    }
}

/// What to change after a refused CONNECT.
fn advice(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::UnsupportedProtocolVersion => "; try -V 3.1.1",
        ReasonCode::ClientIdentifierNotValid => "; give another identifier with -i",
        ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized => {
            "; look at -u, -P (or MOTEMQ_PASSWORD, --password-file), -i, and at --cert where the broker wants one"
        }
        _ => "",
    }
}

/// A reason code as the specification calls it.
fn words(code: ReasonCode) -> String {
    format!("{} (0x{:02x})", code.words(), code as u8)
}

fn qos(number: u8) -> QoS {
    match number {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

/// Leaves in peace: everything that was sent arrives before the connection ends.
async fn leave(mut link: Link) {
    let goodbye = Packet::Disconnect(Disconnect::new(ReasonCode::Success));
    if link.send(&goodbye).is_ok() {
        let _ = tokio::time::timeout(LEAVE_TIME, link.finish()).await;
    }
}

/// Runs to the end, and says why if it fails.
fn run_to_the_end(work: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return crate::fail(&error),
    };
    let result = runtime.block_on(work);
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(&error),
    }
}

/// The least packet identifier.
const FIRST_ID: PacketId = const { PacketId::new(1).unwrap() };
/// How long connecting and logging in may take.
const CONNECT_TIME: Duration = Duration::from_secs(15);
/// How long the broker may take to close the connection after DISCONNECT.
const LEAVE_TIME: Duration = Duration::from_secs(5);
/// Deliveries at QoS 1 and 2 that are taken at a time.
const RECEIVE_MAXIMUM: u16 = 100;
