//! What the broker can be told: the settings, their units and their defaults.
//!
//! Invariants:
//! - A [`Config`] from [`load`](super::load) is within every range of `read.rs` and free of contradictions; its relative
//!   paths have already been joined to the folder of the file.
//! - `Default` is the one place where a default is written; `deploy/motemq.toml` is held equal to it by a test.
//!
//! Does not know: files, text, environment. Field names are the key names of the TOML document.

use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Everything the broker can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Folder of the store; `None` (written `""`) keeps nothing on disk. Default `data`.
    pub data_dir: Option<PathBuf>,
    /// Where clients connect; never empty, names and addresses are unique. Default: [`ListenerConfig::default`] alone.
    pub listeners: Vec<ListenerConfig>,
    /// What one client, one session and the broker as a whole may use.
    pub limits: LimitsConfig,
    /// Other limits for some clients; the first profile that is for a client counts. Default none.
    pub profiles: Vec<ProfileConfig>,
    /// What clients are told.
    pub mqtt: MqttConfig,
    /// Who of a share group gets a message.
    pub shared_subscriptions: SharedSubscriptionsConfig,
    /// How the store writes.
    pub persistence: PersistenceConfig,
    /// Metrics and health over HTTP.
    pub http: HttpConfig,
    /// Who may log in.
    pub auth: AuthConfig,
    /// How devices get certificates.
    pub enrolment: EnrolmentConfig,
    /// What happened lately.
    pub history: HistoryConfig,
    /// Who is shut out for a while.
    pub ban: BanConfig,
    /// When files are read again.
    pub reload: ReloadConfig,
    /// How tools on this machine reach the running broker.
    pub admin: AdminConfig,
    /// Statistics below `$SYS`.
    pub sys: SysConfig,
    /// How much operators may trace.
    pub trace: TraceConfig,
    /// What is logged, and how.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: Some(PathBuf::from("data")),
            listeners: vec![ListenerConfig::default()],
            limits: LimitsConfig::default(),
            profiles: Vec::new(),
            mqtt: MqttConfig::default(),
            shared_subscriptions: SharedSubscriptionsConfig::default(),
            persistence: PersistenceConfig::default(),
            http: HttpConfig::default(),
            auth: AuthConfig::default(),
            enrolment: EnrolmentConfig::default(),
            history: HistoryConfig::default(),
            ban: BanConfig::default(),
            reload: ReloadConfig::default(),
            admin: AdminConfig::default(),
            sys: SysConfig::default(),
            trace: TraceConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// One address where MQTT clients connect: over TCP or a Unix socket, with or without WebSocket, with or without TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// Name in logs, metrics and `--set listeners.NAME.key`: lower-case letters, digits, `-`, `_`; 1 to 32 bytes.
    pub name: String,
    /// Where it listens.
    pub bind: Bind,
    /// Permissions of a Unix socket, in octal; who may write to it may connect. Default 0660.
    pub unix_mode: u32,
    /// What is spoken above TCP or TLS. Default [`Protocol::Mqtt`].
    pub protocol: Protocol,
    /// Whether clients without credentials are let in. Default [`AnonymousAccess::Refused`].
    pub anonymous: AnonymousAccess,
    /// Clients without credentials may connect to ask for a certificate, and do nothing else. Default false.
    pub enrolment: bool,
    /// Which client identifiers a client may have. Default [`ClientIds::Any`].
    pub client_id: ClientIds,
    /// Connections open at a time, 1 to 10,000,000; more are closed at once. Default 100,000.
    pub max_connections: u32,
    /// Messages that all its clients together may publish in a second; 0 is no limit. Above: `limits.publish_rate_full`. Default 0.
    pub publish_rate_max: u32,
    /// Bytes (topics, properties, payloads) that they may publish in a second; 0 is no limit. Default 0.
    pub publish_bytes_rate_max: u64,
    /// Connections a second; more are closed at once. Default 0: any number.
    pub connect_rate_max: u32,
    /// Highest QoS granted and accepted, 0 to 2. Default 2.
    pub qos_max: u8,
    /// Networks that clients may come from; empty is any. With `proxy_protocol`, the address in the header counts.
    pub allow_cidrs: Vec<IpNet>,
    /// Networks that clients may not come from, also when `allow_cidrs` has them. Default empty.
    pub deny_cidrs: Vec<IpNet>,
    /// Whether each connection starts with a PROXY protocol header (version 1 or 2), which is required then. Default
    /// `false`.
    pub proxy_protocol: bool,
    /// Networks of the proxies, the only ones that may connect then; never empty with `proxy_protocol` on an IP address.
    pub proxy_cidrs: Vec<IpNet>,
    /// Origins of web pages that may connect over WebSocket: `https://app.example.org`, or `*`. Empty: pages from the
    /// host that the client connects to. Clients that send no Origin are no browsers and always may.
    pub allow_origins: Vec<String>,
    /// Paths of the WebSocket URL; `/*` is every path. Default `/mqtt` and `/`.
    pub websocket_paths: Vec<String>,
    /// Data that a peer does not acknowledge for so long ends its connection, in seconds; 0 leaves it to the system, which
    /// gives up after about 15 minutes. Default 120.
    pub tcp_user_timeout_s: u32,
    /// TLS; `None` is plain TCP. Default `None`.
    pub tls: Option<TlsConfig>,
}

impl Default for ListenerConfig {
    /// `mqtt` on `0.0.0.0:1883`, plain TCP.
    fn default() -> Self {
        Self {
            name: "mqtt".to_owned(),
            bind: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1883).into(),
            unix_mode: 0o660,
            protocol: Protocol::Mqtt,
            anonymous: AnonymousAccess::Refused,
            enrolment: false,
            client_id: ClientIds::Any,
            max_connections: 100_000,
            publish_rate_max: 0,
            publish_bytes_rate_max: 0,
            connect_rate_max: 0,
            qos_max: 2,
            allow_cidrs: Vec::new(),
            deny_cidrs: Vec::new(),
            proxy_protocol: false,
            proxy_cidrs: Vec::new(),
            allow_origins: Vec::new(),
            websocket_paths: vec!["/mqtt".to_owned(), "/".to_owned()],
            tcp_user_timeout_s: 120,
            tls: None,
        }
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Bind {
    /// An IP address and port; port 0 lets the system choose.
    Ip(SocketAddr),
    /// The file of a Unix socket, written `unix:PATH`.
    Unix(PathBuf),
}

impl From<SocketAddr> for Bind {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// What a listener speaks above TCP, TLS or a Unix socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// `"mqtt"`: MQTT itself.
    Mqtt,
    /// `"ws"`: MQTT in WebSocket frames.
    Ws,
}

/// Whether a listener lets clients in that show neither a user name nor a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AnonymousAccess {
    /// `false`: refused as not authorized.
    Refused,
    /// `true`: let in from anywhere.
    Allowed,
    /// `"loopback"`: let in from this machine only.
    Loopback,
}

/// Which client identifiers a client may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientIds {
    /// `"any"`: any that is free, or its own from before.
    Any,
    /// `"user"`: the name that its login proved, and no other; without an identifier it gets that.
    User,
}

/// TLS of one listener.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsConfig {
    /// Server certificate chain, PEM. Required.
    pub cert: PathBuf,
    /// Its private key, PEM. Required.
    pub key: PathBuf,
    /// Authorities that sign client certificates, PEM; `None` when clients show none. Default `None`.
    pub client_ca: Option<PathBuf>,
    /// Certificates that these authorities have revoked, PEM; `None` is none. Default `None`.
    pub crl: Option<PathBuf>,
    /// What a list past its `nextUpdate` means for certificates of its issuer. Default [`CrlOverdue::Warn`].
    pub crl_overdue: CrlOverdue,
    /// The inventory of `motemq-certs`: only certificates that it has as issued may connect; `None` asks none. Default `None`.
    pub allow_list: Option<PathBuf>,
    /// Whether a client must show a certificate. Default: required with `client_ca`, else none.
    pub client_cert: ClientCert,
    /// What of a valid client certificate is the user name. Default: the common name when certificates are asked for.
    pub identity: Identity,
    /// Largest TLS record sent, in bytes, 512 to 16384, for devices with small buffers. Default 16384.
    pub record_bytes_max: u16,
}

/// What a revocation list means that nobody renewed in time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CrlOverdue {
    /// `"warn"`: what it said still holds.
    Warn,
    /// `"refuse"`: nobody with a certificate of its issuer comes in any more.
    Refuse,
}

/// Whether a TLS client must show a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientCert {
    /// `"required"`: the handshake fails without a valid one.
    Required,
    /// `"optional"`: a valid one logs in; without one the password decides.
    Optional,
    /// `"none"`: not asked for.
    None,
}

/// The part of a client certificate that names the user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Identity {
    /// `"cn"`: the subject's common name.
    Cn,
    /// `"san-uri"`: the first URI among the subject alternative names.
    SanUri,
    /// `"san-dns"`: the first DNS name among the subject alternative names.
    SanDns,
    /// `"none"`: the certificate opens the connection but logs nobody in.
    None,
}

/// Bounds on what clients can make the broker hold or do. 0 is refused except where it is given a meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitsConfig {
    /// Largest packet taken from a client, in bytes, announced as Maximum Packet Size. Default 1 MiB.
    pub packet_bytes_max: u32,
    /// Largest application message, in bytes. Default 1,000,000.
    pub payload_bytes_max: u32,
    /// Largest packet before a client is authenticated, in bytes. Default 128 KiB.
    pub connect_packet_bytes_max: u32,
    /// QoS 1 and 2 messages a client may have in flight towards us, announced as Receive Maximum. Default 100.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages in flight towards one client; its own Receive Maximum may lower this. Default 100.
    pub inflight_messages_max: u16,
    /// Messages queued for one session, unsent or offline. Default 10,000.
    pub queue_messages_max: u32,
    /// Bytes queued for one session, unsent or offline. Default 16 MiB.
    pub queue_bytes_max: u64,
    /// What happens to a message for a full queue. Default [`QueueFull::DropOldest`].
    pub queue_full: QueueFull,
    /// Longest time a session outlives its connection, in seconds; 4294967295 is for ever. Default 30 days.
    pub session_expiry_max_s: u32,
    /// Longest keep-alive for v5 clients, in seconds, sent as Server Keep Alive. Default 65535.
    pub keep_alive_max_s: u16,
    /// Levels in a topic name or filter. Default 128.
    pub topic_levels_max: u16,
    /// Topic aliases per connection and direction; 0 uses none. Default 64.
    pub topic_alias_max: u16,
    /// Subscriptions per client. Default 10,000.
    pub subscriptions_max: u32,
    /// Bytes of the filters of one client's subscriptions. Default 1 MiB.
    pub subscription_bytes_max: u64,
    /// Messages that one client may publish in a second, a second's worth of them at once; 0 is no limit. Default 0.
    pub publish_rate_max: u32,
    /// Bytes (topics, properties, payloads) that one client may publish in a second; 0 is no limit. Default 0.
    pub publish_bytes_rate_max: u64,
    /// Messages that all clients of one user or certificate name together may publish in a second; 0 is no limit. Default 0.
    pub identity_publish_rate_max: u32,
    /// Bytes (topics, properties, payloads) that they may publish in a second; 0 is no limit. Default 0.
    pub identity_publish_bytes_rate_max: u64,
    /// What happens to what a client publishes faster than one of these rates, or that of its listener. Default [`RateFull::Delay`].
    pub publish_rate_full: RateFull,
    /// Sessions in the whole broker, connected or not. Default 1,000,000.
    pub sessions_max: u32,
    /// Sessions of one user or certificate name, connected or not; 0 is no limit. Default 0.
    pub identity_sessions_max: u32,
    /// Connections of one user or certificate name; 0 is no limit. Default 0.
    pub identity_connections_max: u32,
    /// Retained messages in the whole broker. Default 1,000,000.
    pub retained_messages_max: u32,
    /// Bytes of retained messages in the whole broker. Default 1 GiB.
    pub retained_bytes_max: u64,
    /// Retained messages that one client identifier published last; 0 is no limit. Default 0.
    pub client_retained_messages_max: u32,
    /// Bytes of them; 0 is no limit. Default 0.
    pub client_retained_bytes_max: u64,
    /// Bytes held for one client that does not take them, beside its queue; then it is not read either. Default 256 KiB.
    pub output_bytes_max: u64,
    /// Memory of the whole process, in bytes; 0 is four fifths of what the machine or the control group has. From 85 % of it
    /// on the publishers that send most are not read, from 90 % new clients are refused with 0x89, from 95 % QoS 0 messages are
    /// dropped. Default 0.
    pub memory_bytes_max: u64,
    /// Connections that have not been accepted yet, over all listeners; a newcomer takes the place of the oldest one of the address
    /// that has most. Default 2000.
    pub unauthenticated_max: u32,
    /// Password checks of one address that wait for their turn; the client of another one is told to come back later. Default 200.
    pub password_checks_per_address_max: u32,
    /// Connections a second over all listeners; more are closed at once. Default 0: any number.
    pub connect_rate_max: u32,
    /// Connections a second from one address; more are closed at once. Default 0: any number.
    pub address_connect_rate_max: u32,
    /// Connections open at a time from one address; more are closed at once. Default 0: any number.
    pub address_connections_max: u32,
    /// Addresses whose rates, failures and log lines are remembered; the others start anew. Default 100,000.
    pub addresses_max: u32,
    /// Time from the connection to a complete CONNECT, TLS handshake included, in seconds. Default 120.
    pub connect_timeout_s: u32,
    /// Time that a stop gives connections to take what they are owed, in seconds. Default 5.
    pub stop_timeout_s: u32,
    /// Memory for the queued messages of one session, in bytes, some 400 more each than topic and payload; the rest is read
    /// from disk when its turn comes. Default 64 KiB.
    pub mailbox_memory_bytes: u64,
    /// TLS sessions that clients may resume, over all listeners; 0 is none. Default 100,000.
    pub tls_sessions_max: u32,
    /// Largest HTTP request head of a WebSocket client, in bytes. Default 8 KiB.
    pub websocket_head_bytes_max: u32,
    /// Largest WebSocket frame from a client, in bytes; 0 is `packet_bytes_max`. Default 0.
    pub websocket_frame_bytes_max: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            packet_bytes_max: 1_048_576,
            payload_bytes_max: 1_000_000,
            connect_packet_bytes_max: 131_072,
            receive_maximum: 100,
            inflight_messages_max: 100,
            queue_messages_max: 10_000,
            queue_bytes_max: 16_777_216,
            queue_full: QueueFull::DropOldest,
            session_expiry_max_s: 2_592_000,
            keep_alive_max_s: 65_535,
            topic_levels_max: 128,
            topic_alias_max: 64,
            subscriptions_max: 10_000,
            subscription_bytes_max: 1_048_576,
            publish_rate_max: 0,
            publish_bytes_rate_max: 0,
            identity_publish_rate_max: 0,
            identity_publish_bytes_rate_max: 0,
            publish_rate_full: RateFull::Delay,
            sessions_max: 1_000_000,
            identity_sessions_max: 0,
            identity_connections_max: 0,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 1_073_741_824,
            client_retained_messages_max: 0,
            client_retained_bytes_max: 0,
            output_bytes_max: 262_144,
            memory_bytes_max: 0,
            unauthenticated_max: 2_000,
            password_checks_per_address_max: 200,
            connect_rate_max: 0,
            address_connect_rate_max: 0,
            address_connections_max: 0,
            addresses_max: 100_000,
            connect_timeout_s: 120,
            stop_timeout_s: 5,
            mailbox_memory_bytes: 65_536,
            tls_sessions_max: 100_000,
            websocket_head_bytes_max: 8_192,
            websocket_frame_bytes_max: 0,
        }
    }
}

/// Limits of some clients.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileConfig {
    /// Name in errors and `--set profiles.NAME.key`, as that of a listener.
    pub name: String,
    /// Names of the listeners that the clients connect to; empty is any.
    pub listeners: Vec<String>,
    /// Their user or certificate names, `*` for any run of characters; empty is any, and anonymous ones too.
    pub users: Vec<String>,
    /// Their client identifiers, `*` for any run of characters; empty is any.
    pub clients: Vec<String>,
    /// Those of `[limits]`, with what the profile says of one client in their place.
    pub limits: LimitsConfig,
}

/// What happens to a message for a session whose queue is full.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueueFull {
    /// `"drop-oldest"`: the oldest unsent message makes room.
    DropOldest,
    /// `"drop-newest"`: the new message is dropped for this session.
    DropNewest,
    /// `"refuse"`: the publisher is answered 0x97 (3.1.1: its connection is closed).
    Refuse,
    /// `"disconnect"`: the slow client is disconnected.
    Disconnect,
}

/// What happens to what a client publishes faster than it may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RateFull {
    /// `"delay"`: nothing of the client is read until it may go on.
    Delay,
    /// `"drop-qos0"`: QoS 0 messages are dropped; for the others the client waits.
    DropQoS0,
    /// `"disconnect"`: the client is disconnected with 0x96.
    Disconnect,
}

/// What clients are told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MqttConfig {
    /// Response Information for clients that ask for it; `%c` is the client identifier, empty is none. Default empty.
    pub response_information: String,
}

/// Who of a share group gets a message.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedSubscriptionsConfig {
    /// How the member is chosen. Default [`ShareStrategy::RoundRobin`].
    pub strategy: ShareStrategy,
    /// When unacknowledged QoS 1 messages of a member go to the others. Default [`ShareRedispatch::Disconnect`].
    pub redispatch: ShareRedispatch,
}

impl Default for SharedSubscriptionsConfig {
    fn default() -> Self {
        Self {
            strategy: ShareStrategy::RoundRobin,
            redispatch: ShareRedispatch::Disconnect,
        }
    }
}

/// How a share group chooses a member for a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ShareStrategy {
    /// `"round-robin"`: by turns; a member with a full window is passed over.
    RoundRobin,
    /// `"random"`: by lot; a member with a full window is passed over.
    Random,
    /// `"sticky"`: one member until it leaves.
    Sticky,
    /// `"hash-client"`: the same member for the same publisher.
    HashClient,
    /// `"hash-topic"`: the same member for the same topic.
    HashTopic,
}

/// When unacknowledged QoS 1 messages of a member go to the others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ShareRedispatch {
    /// `"disconnect"`: when its connection ends.
    Disconnect,
    /// `"session-end"`: when its session ends.
    SessionEnd,
}

/// How the store writes.
#[derive(Clone, Debug, PartialEq)]
pub struct PersistenceConfig {
    /// When a message is acknowledged. Default [`Durability::Commit`].
    pub durability: Durability,
    /// Commits by two syncs instead of one and a checksum. Default `false`.
    pub two_phase_commit: bool,
    /// Time the writer waits for more records before a commit, in milliseconds, 0 to 1000. Default 0.
    pub commit_delay_ms: u32,
    /// Bytes of journal not yet folded into the tables. Default 256 MiB.
    pub journal_bytes_max: u64,
    /// Disk space kept for deletes and acknowledgements once the disk is full, in bytes; 0 keeps none.
    /// Default 16 MiB.
    pub reserve_bytes: u64,
    /// Bytes of the store on disk; 0 is the whole disk. Default 0.
    pub store_bytes_max: u64,
    /// Memory for pages of the store, in bytes. Default 4 MiB.
    pub cache_bytes: u64,
    /// Journal rows folded into the tables within one commit. Default 2000.
    pub fold_rows_max: u32,
    /// Time that folding may add to one commit, in milliseconds. Default 5.
    pub fold_ms_max: u32,
    /// Bytes of records that wait for the writer before publishers' sockets are no longer read. Default 16 MiB.
    pub journal_queue_bytes_max: u64,
}

impl Default for PersistenceConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Commit,
            two_phase_commit: false,
            commit_delay_ms: 0,
            journal_bytes_max: 268_435_456,
            reserve_bytes: 16_777_216,
            store_bytes_max: 0,
            cache_bytes: 4_194_304,
            fold_rows_max: 2_000,
            fold_ms_max: 5,
            journal_queue_bytes_max: 16_777_216,
        }
    }
}

/// When a QoS 1 or 2 message is acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// `"commit"`: once it is on disk.
    Commit,
    /// `"relaxed"`: once it is handed to the store; a power cut loses the last moments.
    Relaxed,
}

/// Metrics and health over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    /// Address of the HTTP server; `None` (written `""`) turns it off. Default `127.0.0.1:9883`.
    pub bind: Option<SocketAddr>,
    /// A second address that serves metrics and nothing else; `None` (written `""`) is none. Default `None`.
    pub metrics_bind: Option<SocketAddr>,
    /// Connections at a time, for each of the two; more wait. Default 64.
    pub max_connections: u32,
    /// How long a connection lasts, in seconds. Default 10.
    pub connection_timeout_s: u32,
    /// Streams and jobs at a time that may last longer, for each address; one more is refused. Default 16.
    pub streams_max: u32,
    /// File with the token of the API, a relative path from `data_dir`, made if it is not there; `None` (written `""`) is none:
    /// the API answers on the admin socket only. Default `api.token`.
    pub token_file: Option<PathBuf>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            bind: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9883)),
            metrics_bind: None,
            max_connections: 64,
            connection_timeout_s: 10,
            streams_max: 16,
            token_file: Some(PathBuf::from("api.token")),
        }
    }
}

/// Who may log in.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthConfig {
    /// Which sources are asked, in this order; never empty, each at most once, and no other source is configured. Default: all, as
    /// [`AuthSource::ALL`] has them.
    pub order: Vec<AuthSource>,
    /// Users and their password hashes; `None` (written `""`) is no users. Default `None`.
    pub password_file: Option<PathBuf>,
    /// Users and their password hashes as mosquitto has them; `None` (written `""`) is no users. Default `None`.
    pub mosquitto_password_file: Option<PathBuf>,
    /// Users who log in by SCRAM-SHA-256; `None` (written `""`) is no SCRAM. Default `None`.
    pub scram_file: Option<PathBuf>,
    /// Who may publish and subscribe where; `None` (written `""`) allows everything but `$` topics. Default `None`.
    pub acl_file: Option<PathBuf>,
    /// The same, in mosquitto's format. Default `None`.
    pub mosquitto_acl_file: Option<PathBuf>,
    /// Users who log in by a token.
    pub jwt: JwtConfig,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            order: AuthSource::ALL.into(),
            password_file: None,
            mosquitto_password_file: None,
            scram_file: None,
            acl_file: None,
            mosquitto_acl_file: None,
            jwt: JwtConfig::default(),
        }
    }
}

/// Where clients may be known from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AuthSource {
    /// `"certificate"`: the name in a client certificate.
    Certificate,
    /// `"password"`: the password files.
    Password,
    /// `"jwt"`: a token in the place of the password.
    Jwt,
    /// `"scram"`: the authentication method.
    Scram,
}

impl AuthSource {
    /// All of them, in the order of the default.
    pub const ALL: [Self; 4] = [Self::Certificate, Self::Password, Self::Jwt, Self::Scram];

    /// As the document writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Password => "password",
            Self::Jwt => "jwt",
            Self::Scram => "scram",
        }
    }
}

/// Users who log in by a token (JWT), which they send as their password.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtConfig {
    /// The keys that tokens are signed with (JWKS); `None` (written `""`) takes no tokens. Default `None`.
    pub keys_file: Option<PathBuf>,
    /// What `iss` must be; empty is anything. Default empty.
    pub issuer: String,
    /// What `aud` must be or have; empty is anything. Default empty.
    pub audience: String,
    /// The claim that names the user. Default `sub`.
    pub user_claim: String,
    /// The claim that must be the client identifier; empty is none. Default empty.
    pub client_id_claim: String,
    /// The claim with the groups of the user; empty is none. Default `groups`.
    pub groups_claim: String,
    /// The claim with what the user may do; empty is none. Default `acl`.
    pub acl_claim: String,
    /// How much clocks may differ, in seconds, 0 to 3600: for so long a token is taken, and a connection stays, beyond its end.
    /// Default 30.
    pub leeway_s: u32,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            keys_file: None,
            issuer: String::new(),
            audience: String::new(),
            user_claim: "sub".to_owned(),
            client_id_claim: String::new(),
            groups_claim: "groups".to_owned(),
            acl_claim: "acl".to_owned(),
            leeway_s: 30,
        }
    }
}

/// How devices get certificates over MQTT (`motemq-certs serve`).
#[derive(Clone, Debug, PartialEq)]
pub struct EnrolmentConfig {
    /// The user name by which the enrolment service logs in; empty: there is none, and nobody can enrol. Default empty.
    pub signer: String,
    /// Largest request, in bytes of payload and of everything that goes with it: names, token, correlation data. Default 4096.
    pub request_bytes_max: u32,
    /// Requests of one connection within an hour. Default 10.
    pub requests_max: u32,
    /// Connections at a time that can only enrol. Default 1000.
    pub applicants_max: u32,
    /// How long such a connection may last, in seconds. Default 600.
    pub connection_max_s: u32,
}

impl Default for EnrolmentConfig {
    fn default() -> Self {
        Self {
            signer: String::new(),
            request_bytes_max: 4_096,
            requests_max: 10,
            applicants_max: 1_000,
            connection_max_s: 600,
        }
    }
}

impl EnrolmentConfig {
    /// Whether anybody can enrol.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.signer.is_empty()
    }
}

/// The events of clients, and the ledger of messages that did not arrive.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryConfig {
    /// Memory for the events, in bytes, taken as they come; 0 keeps none. Default 64 MiB.
    pub bytes_max: u64,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            bytes_max: 64 << 20,
        }
    }
}

/// Who is shut out for a while without an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct BanConfig {
    /// Failed logins of one user from one address within `failures_window_s` after which that user is banned from there; 0 is
    /// never. Default 20.
    pub failures_max: u32,
    /// Failed logins from one address within `failures_window_s` after which the address is banned; 0 is never. Default 1000.
    pub address_failures_max: u32,
    /// Default 60.
    pub failures_window_s: u32,
    /// Connects of one client identifier within `flaps_window_s` after which it is banned; 0 is never. Default 0.
    pub flaps_max: u32,
    /// Default 60.
    pub flaps_window_s: u32,
    /// How long a ban lasts that came by itself, in seconds; 0 imposes none. Default 300.
    pub ban_s: u32,
    /// Bans at a time; more are not imposed. Default 100,000.
    pub bans_max: u32,
}

impl Default for BanConfig {
    fn default() -> Self {
        Self {
            failures_max: 20,
            address_failures_max: 1_000,
            failures_window_s: 60,
            flaps_max: 0,
            flaps_window_s: 60,
            ban_s: 300,
            bans_max: 100_000,
        }
    }
}

/// When files are read again.
#[derive(Clone, Debug, PartialEq)]
pub struct ReloadConfig {
    /// Which files are watched. Default [`Watch::Files`].
    pub watch: Watch,
    /// How often they are looked at, in milliseconds; a change counts when it has been at rest for as long. Default 250.
    pub interval_ms: u32,
}

impl Default for ReloadConfig {
    fn default() -> Self {
        Self {
            watch: Watch::Files,
            interval_ms: 250,
        }
    }
}

/// Which files are read again when they change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Watch {
    /// `"off"`: none.
    Off,
    /// `"files"`: those that the configuration names.
    Files,
    /// `"all"`: and the configuration file itself.
    All,
}

/// How much operators may trace.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceConfig {
    /// Traces at a time; one more is refused. Default 4.
    pub streams_max: u32,
    /// How long one may last, in seconds. Default 3600.
    pub duration_max_s: u32,
    /// Packets shown in a second by each; more are counted instead. Default 2000.
    pub packets_rate_max: u32,
    /// Packets that wait for a slow reader of each; more are counted instead. Default 4096.
    pub queue_packets_max: u32,
    /// Memory that they take, in bytes. Default 4 MiB.
    pub queue_bytes_max: usize,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            streams_max: 4,
            duration_max_s: 3_600,
            packets_rate_max: 2_000,
            queue_packets_max: 4_096,
            queue_bytes_max: 4 << 20,
        }
    }
}

/// How tools on this machine reach the running broker.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminConfig {
    /// Unix socket for `motemq store`, a relative path from `data_dir`; `None` (written `""`) is none. Default `admin.sock`.
    pub socket: Option<PathBuf>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            socket: Some(PathBuf::from("admin.sock")),
        }
    }
}

impl Config {
    /// Where the admin socket is; `None` without one, and when a relative path has no `data_dir` to start from.
    #[must_use]
    pub fn admin_socket(&self) -> Option<PathBuf> {
        self.in_data_dir(self.admin.socket.as_ref()?)
    }

    /// Where the token of the API is; `None` without one, and when a relative path has no `data_dir` to start from.
    #[must_use]
    pub fn token_file(&self) -> Option<PathBuf> {
        self.in_data_dir(self.http.token_file.as_ref()?)
    }

    fn in_data_dir(&self, path: &Path) -> Option<PathBuf> {
        match &self.data_dir {
            Some(dir) => Some(dir.join(path)),
            None => path.is_absolute().then(|| path.to_owned()),
        }
    }
}

/// Statistics below `$SYS`, as mosquitto has them.
#[derive(Clone, Debug, PartialEq)]
pub struct SysConfig {
    /// How often they are published, in seconds, 0 to 86,400; 0 is never. Default 10.
    pub interval_s: u32,
    /// Whether each client that comes or goes is an event of its own, with identifier and address. Default `false`.
    pub client_events: bool,
}

impl Default for SysConfig {
    fn default() -> Self {
        Self {
            interval_s: 10,
            client_events: false,
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// A filter in the syntax of `tracing_subscriber::EnvFilter`: a level, or levels by target. Default `info`.
    pub level: String,
    /// Default [`LogFormat::Text`].
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// `"text"`: for people.
    Text,
    /// `"json"`: one object a line.
    Json,
}
