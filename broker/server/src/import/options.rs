//! The table of mosquitto's options: what becomes of each.
//!
//! Invariants: sorted by name within a scope; every option of mosquitto.conf(5) 2.0 and those that 2.1 has added. The page
//! `deploy/FROM-MOSQUITTO.md` shows this table, and a test compares the two.

/// To what an option belongs.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// The broker.
    Global,
    /// The listener above it; before the first one, the default listener.
    Listener,
    /// The broker, or with `per_listener_settings` the listener.
    Security,
    /// A bridge.
    Bridge,
}

/// One option, or all that begin like it where the name ends with `*`.
#[derive(Debug)]
pub(super) struct MosquittoOption {
    pub(super) name: &'static str,
    pub(super) scope: Scope,
    /// The key of the configuration; empty: none.
    pub(super) key: &'static str,
    /// What differs, or why there is no key, or what to do instead.
    pub(super) remark: &'static str,
    pub(super) fate: Fate,
}

/// What becomes of an option as a rule; values may make it another one.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It is translated.
    Translated,
    /// There is nothing to translate, and nothing is lost.
    Unneeded,
    /// It cannot be translated.
    Left,
}

/// The option called `name`.
pub(super) fn find(name: &str) -> Option<&'static MosquittoOption> {
    OPTIONS
        .iter()
        .find(|option| match option.name.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => option.name == name,
        })
}

/// Whether what stands behind this option may be a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let starts = ["auth_opt_", "plugin_opt_"];
    starts.iter().any(|start| name.starts_with(start))
        || name.ends_with("password")
        || matches!(name, "bridge_psk" | "tls_engine_kpass_sha1")
}

/// The rows of the table in `deploy/FROM-MOSQUITTO.md`.
#[must_use]
pub fn table() -> Vec<String> {
    let row = |option: &MosquittoOption| {
        let key = match (option.key, option.fate) {
            ("", Fate::Left) => "**not translated**".to_owned(),
            ("", _) => "not needed".to_owned(),
            (key, _) => format!("`{key}`"),
        };
        format!("| `{}` | {key} | {} |", option.name, option.remark)
    };
    OPTIONS.iter().map(row).collect()
}

const fn key(
    scope: Scope,
    name: &'static str,
    key: &'static str,
    remark: &'static str,
) -> MosquittoOption {
    MosquittoOption {
        name,
        scope,
        key,
        remark,
        fate: Fate::Translated,
    }
}

const fn unneeded(scope: Scope, name: &'static str, remark: &'static str) -> MosquittoOption {
    MosquittoOption {
        name,
        scope,
        key: "",
        remark,
        fate: Fate::Unneeded,
    }
}

const fn left(scope: Scope, name: &'static str, remark: &'static str) -> MosquittoOption {
    MosquittoOption {
        name,
        scope,
        key: "",
        remark,
        fate: Fate::Left,
    }
}

use Scope::{Bridge, Global, Listener, Security};

const BRIDGES: &str = "there are no bridges: keep a small mosquitto that bridges between the two brokers, as a client of this one";
const PLUGINS: &str = "there are no plugins: users into a password file (`motemq passwd add`), tokens (`[auth.jwt]`) or certificates; rights into `auth.acl_file`";
const PSK: &str = "rustls has no TLS with pre-shared keys; the listener is left out: give its clients certificates (`motemq-certs`) or passwords";
const CIPHERS: &str = "TLS 1.2 and 1.3 with forward secrecy and authenticated encryption only; there is nothing weaker to take out";

/// Every option.
pub(super) const OPTIONS: &[MosquittoOption] = &[
    // The broker.
    left(
        Global,
        "allow_duplicate_messages",
        "true: a client with overlapping subscriptions gets a message once here, with every subscription identifier",
    ),
    unneeded(
        Global,
        "autosave_interval",
        "what is acknowledged is on disk already",
    ),
    unneeded(
        Global,
        "autosave_on_changes",
        "what is acknowledged is on disk already",
    ),
    unneeded(
        Global,
        "check_retain_source",
        "who published a retained message is not asked again; who may no longer publish there keeps what is retained: remove it (publish an empty retained message)",
    ),
    left(
        Global,
        "clientid_prefixes",
        "anybody can choose an identifier, so it protects nothing; `client_id = \"user\"` binds it to the login, and `[client PREFIX*]` in `auth.acl_file` gives rights by it",
    ),
    key(
        Global,
        "connection_messages",
        "log.level",
        "false: `motemq::driver=warn`",
    ),
    left(
        Global,
        "global_max_clients",
        "`max_connections` of each listener, and `limits.sessions_max`",
    ),
    left(
        Global,
        "global_max_connections",
        "`max_connections` of each listener",
    ),
    key(
        Global,
        "include_dir",
        "",
        "its files are read, in the order of mosquitto",
    ),
    key(
        Global,
        "log_dest",
        "",
        "the log goes to standard error, which systemd takes; `none`: `log.level = \"off\"`; not translated: `file`, `topic`, `dlt`",
    ),
    unneeded(Global, "log_facility", "systemd's journal has the log"),
    unneeded(Global, "log_timestamp", "every line has one"),
    unneeded(Global, "log_timestamp_format", "RFC 3339, in UTC"),
    key(
        Global,
        "log_type",
        "log.level",
        "the most talkative of the types counts",
    ),
    left(
        Global,
        "max_inflight_bytes",
        "`limits.inflight_messages_max` bounds messages, `limits.output_bytes_max` bytes not taken by a client",
    ),
    key(
        Global,
        "max_inflight_messages",
        "limits.inflight_messages_max",
        "0: 65535. Without it mosquitto's default, 20, is written",
    ),
    key(Global, "max_keepalive", "limits.keep_alive_max_s", ""),
    key(
        Global,
        "max_packet_size",
        "limits.packet_bytes_max",
        "at least 256. Without it 2,000,000 is written, the default of mosquitto 2.1 (2.0 takes 256 MiB)",
    ),
    key(
        Global,
        "max_queued_bytes",
        "limits.queue_bytes_max",
        "at least 1024; 0: 1 TiB",
    ),
    key(
        Global,
        "max_queued_messages",
        "limits.queue_messages_max",
        "0: 1,000,000,000. Without it mosquitto's default, 1000, is written; `queue_full = \"drop-newest\"` always, as mosquitto does",
    ),
    key(
        Global,
        "max_topic_alias_broker",
        "limits.topic_alias_max",
        "one number for both directions",
    ),
    key(
        Global,
        "memory_limit",
        "limits.memory_bytes_max",
        "the resident set, not the heap; heavy publishers wait and new clients are refused before it is reached; below 32 MiB it is not translated",
    ),
    key(
        Global,
        "message_size_limit",
        "limits.payload_bytes_max",
        "0: as `max_packet_size`. MQTT 3.1.1 clients are disconnected; mosquitto acknowledges and drops",
    ),
    unneeded(
        Global,
        "packet_buffer_size",
        "buffers belong to threads, not to connections",
    ),
    key(
        Global,
        "per_listener_settings",
        "",
        "users and rights are the broker's here: listeners whose files differ from the first one's are left out",
    ),
    key(
        Global,
        "persistence",
        "data_dir",
        "false: `\"\"`. Without it the store is on, which mosquitto's is not",
    ),
    unneeded(
        Global,
        "persistence_file",
        "`store.redb` in `data_dir`; what mosquitto has stored is not taken over",
    ),
    unneeded(
        Global,
        "persistence_location",
        "`data` beside `motemq.toml`; another folder: `data_dir`",
    ),
    key(
        Global,
        "persistent_client_expiration",
        "limits.session_expiry_max_s",
        "Without it sessions never expire, as in mosquitto (4294967295)",
    ),
    unneeded(Global, "pid_file", "systemd knows the process"),
    left(
        Global,
        "queue_qos0_messages",
        "true: QoS 0 is never queued for who is away, as the specification has it; publish with QoS 1",
    ),
    left(
        Global,
        "retain_available",
        "false: `deny publish # retain=yes` in `auth.acl_file` refuses them",
    ),
    left(
        Global,
        "retain_expiry_interval",
        "publish with a Message Expiry Interval",
    ),
    unneeded(
        Global,
        "retry_interval",
        "obsolete in mosquitto too: nothing is sent again within a connection",
    ),
    unneeded(Global, "set_tcp_nodelay", "always on"),
    unneeded(Global, "store_clean_interval", "obsolete in mosquitto too"),
    key(
        Global,
        "sys_interval",
        "sys.interval_s",
        "at most 86,400; 0: never",
    ),
    left(
        Global,
        "upgrade_outgoing_qos",
        "true: a message is never delivered with more than its publisher's QoS",
    ),
    unneeded(
        Global,
        "user",
        "the unit in `deploy` runs it as a user of its own; it needs no root, but CAP_NET_BIND_SERVICE for ports below 1024",
    ),
    key(
        Global,
        "websockets_headers_size",
        "limits.websocket_head_bytes_max",
        "at least 512",
    ),
    unneeded(
        Global,
        "websockets_log_level",
        "the log has handshakes that fail",
    ),
    // Listeners.
    left(
        Listener,
        "accept_protocol_versions",
        "3.1, 3.1.1 and 5 are always taken",
    ),
    key(
        Listener,
        "bind_address",
        "listeners.bind",
        "a name but `localhost` is not translated",
    ),
    left(
        Listener,
        "bind_interface",
        "the listener is left out: write the interface's address into `bind`",
    ),
    key(
        Listener,
        "cafile",
        "listeners.tls.client_ca",
        "with `require_certificate true`; without, mosquitto asks for no certificate either",
    ),
    left(
        Listener,
        "capath",
        "the listener is left out if it needs it: `cat DIR/*.pem > ca.pem`, and cafile",
    ),
    key(Listener, "certfile", "listeners.tls.cert", ""),
    unneeded(Listener, "ciphers", CIPHERS),
    unneeded(Listener, "ciphers_tls1.3", CIPHERS),
    key(
        Listener,
        "crlfile",
        "listeners.tls.crl",
        "with `require_certificate true`; authorities without a list have revoked nothing",
    ),
    unneeded(Listener, "dhparamfile", CIPHERS),
    left(
        Listener,
        "disable_client_cert_date_checks",
        "a certificate that has expired is never taken: `motemq-certs renew`",
    ),
    left(
        Listener,
        "enable_proxy_protocol",
        "the listener is left out: `proxy_protocol = true` needs `proxy_cidrs`, the networks of the proxies",
    ),
    left(
        Listener,
        "http_dir",
        "there is no server of files: nginx or Caddy, in front or beside",
    ),
    key(
        Listener,
        "keyfile",
        "listeners.tls.key",
        "PEM; the broker's user must be able to read it",
    ),
    key(
        Listener,
        "listener",
        "listeners.bind",
        "without an address `[::]`, which takes IPv4 too; a name but `localhost` is not translated",
    ),
    unneeded(
        Listener,
        "listener_auto_id_prefix",
        "assigned identifiers are random",
    ),
    key(
        Listener,
        "max_connections",
        "listeners.max_connections",
        "-1: 100,000, the default",
    ),
    key(Listener, "max_qos", "listeners.qos_max", ""),
    key(
        Listener,
        "max_topic_alias",
        "limits.topic_alias_max",
        "the highest of all listeners",
    ),
    left(
        Listener,
        "mount_point",
        "the listener is left out, its clients would see all topics: put the prefix into the topics, and hold clients to it by `auth.acl_file`",
    ),
    key(Listener, "port", "listeners.bind", ""),
    key(
        Listener,
        "protocol",
        "listeners.protocol",
        "`websockets`: `ws`, on every path (`/*`) and, but for anonymous clients, from every origin, as in mosquitto; `http_api` is left out: `[http]`",
    ),
    left(Listener, "psk_hint", PSK),
    key(
        Listener,
        "require_certificate",
        "listeners.tls.client_cert",
        "true: `required`",
    ),
    key(
        Listener,
        "socket_domain",
        "listeners.bind",
        "`ipv4`: `0.0.0.0`. `ipv6`: `[::]`, which takes IPv4 too where the system maps it",
    ),
    left(
        Listener,
        "tls_engine",
        "keys are files; the listener is left out if `tls_keyform` is `engine`",
    ),
    left(Listener, "tls_engine_kpass_sha1", "keys are files"),
    unneeded(
        Listener,
        "tls_keyform",
        "`pem` is what there is; `engine`: the listener is left out",
    ),
    unneeded(
        Listener,
        "tls_version",
        "TLS 1.2 and 1.3 are offered, whatever it says; `tlsv1.3` alone cannot be had",
    ),
    key(
        Listener,
        "use_identity_as_username",
        "listeners.tls.identity",
        "true: `cn`",
    ),
    left(
        Listener,
        "use_subject_as_username",
        "the listener is left out: `identity = \"cn\"`, and the common names in place of the subjects in `auth.acl_file`",
    ),
    key(
        Listener,
        "use_username_as_clientid",
        "listeners.client_id",
        "true: `user`: clients must send their user name, or no identifier, which then is the user name; mosquitto replaces any",
    ),
    key(Listener, "websockets_origin", "listeners.allow_origins", ""),
    // Who may do what.
    key(
        Security,
        "acl_file",
        "auth.mosquitto_acl_file",
        "copied, and read with mosquitto's meaning; `--translate-acl`: `auth.acl_file`, in our format",
    ),
    key(
        Security,
        "allow_anonymous",
        "listeners.anonymous",
        "of every listener; default false, but true where nothing says where to listen",
    ),
    left(
        Security,
        "allow_zero_length_clientid",
        "false: clients without an identifier are given one",
    ),
    unneeded(
        Security,
        "auth_plugin_deny_special_chars",
        "always so: a name or identifier with `+` or `#` is allowed nothing by a pattern",
    ),
    left(Security, "auth_plugin", PLUGINS),
    left(Security, "auth_opt_*", PLUGINS),
    unneeded(
        Security,
        "auto_id_prefix",
        "assigned identifiers are random",
    ),
    key(
        Security,
        "listener_allow_anonymous",
        "listeners.anonymous",
        "",
    ),
    key(
        Security,
        "password_file",
        "auth.password_file",
        "the users with their hashes; a line in plain text stops it: hash it by `mosquitto_passwd -U`",
    ),
    left(Security, "plugin_load", PLUGINS),
    left(Security, "plugin_use", PLUGINS),
    left(Security, "plugin_opt_*", PLUGINS),
    left(Security, "plugin", PLUGINS),
    left(Security, "psk_file", PSK),
    // Bridges.
    left(Bridge, "address", BRIDGES),
    left(Bridge, "addresses", BRIDGES),
    left(Bridge, "bridge_*", BRIDGES),
    left(Bridge, "cleansession", BRIDGES),
    left(Bridge, "clientid", BRIDGES),
    left(Bridge, "connection", BRIDGES),
    left(Bridge, "idle_timeout", BRIDGES),
    left(Bridge, "keepalive_interval", BRIDGES),
    left(Bridge, "local_*", BRIDGES),
    left(Bridge, "notification_topic", BRIDGES),
    left(Bridge, "notifications", BRIDGES),
    left(Bridge, "notifications_local_only", BRIDGES),
    left(Bridge, "password", BRIDGES),
    left(Bridge, "remote_*", BRIDGES),
    left(Bridge, "restart_timeout", BRIDGES),
    left(Bridge, "round_robin", BRIDGES),
    left(Bridge, "start_type", BRIDGES),
    left(Bridge, "threshold", BRIDGES),
    left(Bridge, "topic", BRIDGES),
    left(Bridge, "try_private", BRIDGES),
    left(Bridge, "username", BRIDGES),
];
