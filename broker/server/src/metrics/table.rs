//! Every metric: name, type, labels and help text. The unit is in the name; `deploy/METRICS.md` is made of this.
//!
//! Label values come from closed sets: never a client id, topic, address or user.

/// One metric.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Metric {
    /// Its name, with the unit where it has one.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// Kinds of metrics.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values counted by size.
    Histogram,
}

impl Kind {
    /// Its name in the text format.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Metric {
    /// The unit, as the name says; empty for plain numbers.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        let units = ["seconds", "bytes"];
        let mut words = self.name.split('_');
        let unit = words.find_map(|word| units.into_iter().find(|unit| *unit == word));
        unit.unwrap_or_default()
    }
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $id: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*
        /// All metrics, in the order of the page.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    // The process.
    BUILD_INFO: Gauge "mqtt_broker_build_info" ["version", "commit"]
        "Always 1; version and commit are in the labels.";
    CPU_SECONDS: Counter "process_cpu_seconds_total" []
        "CPU time of the process, user and system.";
    RESIDENT_BYTES: Gauge "process_resident_memory_bytes" []
        "Resident memory of the process, as of now.";
    VIRTUAL_BYTES: Gauge "process_virtual_memory_bytes" []
        "Virtual memory of the process.";
    OPEN_FDS: Gauge "process_open_fds" []
        "Open file descriptors; every connection has one.";
    MAX_FDS: Gauge "process_max_fds" []
        "The most file descriptors that the process may open.";
    START_TIME: Gauge "process_start_time_seconds" []
        "When the process started (Unix time).";
    MEMORY_BYTES: Gauge "mqtt_broker_memory_bytes" []
        "Resident memory as last compared with the ceiling.";
    MEMORY_BYTES_MAX: Gauge "mqtt_broker_memory_bytes_max" []
        "The ceiling: limits.memory_bytes_max.";
    MEMORY_PRESSURE: Gauge "mqtt_broker_memory_pressure" []
        "What is done about memory: 0 nothing, 1 the heaviest publishers are not read, 2 and new clients refused, 3 and QoS 0 dropped.";
    MEMORY_PRESSURE_BYTES: Gauge "mqtt_broker_memory_pressure_bytes" ["level"]
        "From how many bytes on each level of mqtt_broker_memory_pressure holds.";
    LOOP_LAG: Histogram "mqtt_broker_event_loop_lag_seconds" []
        "How much later than it wanted a task ran; measured once a second for each thread of the runtime.";
    PANICS: Counter "mqtt_broker_connection_panics_total" []
        "Connection tasks ended by a bug of the broker.";

    // The configuration.
    RELOAD_SUCCESSFUL: Gauge "mqtt_broker_config_last_reload_successful" []
        "1 when the last reload took effect or there was none, 0 when it was refused; the log says why.";
    RELOAD_TIME: Gauge "mqtt_broker_config_last_reload_success_timestamp_seconds" []
        "When the configuration in force was read (Unix time).";
    RELOADS: Counter "mqtt_broker_config_reloads_total" ["result"]
        "Reloads of the configuration, by result: success, failure.";

    // Connections.
    CONNECTIONS: Gauge "mqtt_broker_connections" ["listener", "transport", "version"]
        "Clients connected, by listener, what their bytes travel in (tcp, tls, ws, wss, unix) and MQTT version.";
    OPENED: Counter "mqtt_broker_connections_opened_total" ["listener", "transport", "version"]
        "Clients that were let in.";
    ACCEPTED: Counter "mqtt_broker_connections_accepted_total" ["listener"]
        "Sockets accepted.";
    CLOSED: Counter "mqtt_broker_connections_closed_total" ["listener", "reason"]
        "Connections ended, by reason.";
    REFUSED: Counter "mqtt_broker_connections_refused_total" ["listener", "reason"]
        "Connections and clients refused, by reason; refused CONNECTs are reason connect.";
    CONNECTS_REFUSED: Counter "mqtt_broker_connects_refused_total" ["listener", "reason"]
        "CONNECTs and re-authentications refused, by what the reason code says.";
    UNAUTHENTICATED: Gauge "mqtt_broker_connections_unauthenticated" []
        "Sockets whose first byte, TLS handshake or CONNECT is awaited.";
    EVICTED: Counter "mqtt_broker_connections_evicted_total" []
        "Connections without a session that gave way to newcomers: limits.unauthenticated_max, or too few descriptors.";
    KEEP_ALIVE_TIMEOUTS: Counter "mqtt_broker_keepalive_timeouts_total" []
        "Connections ended because the client was silent.";
    STALLS: Counter "mqtt_broker_mailbox_stalls_total" []
        "Times that a client's socket began to leave what was ready for it: the client, or its link, is slower than its messages.";
    SLOW_CONSUMERS: Gauge "mqtt_broker_slow_consumers" []
        "Connected clients whose socket does not take what is ready for them, now.";
    TRACES: Gauge "mqtt_broker_traces" []
        "Traces of packets that are open.";
    TRACES_REFUSED: Counter "mqtt_broker_traces_refused_total" []
        "Traces refused because there were trace.streams_max.";
    TRACE_PACKETS_LOST: Counter "mqtt_broker_trace_packets_lost_total" []
        "Packets that a trace did not show: its reader was too slow, or there were more than trace.packets_rate_max in a second.";
    PASSWORD_CHECKS_REFUSED: Counter "mqtt_broker_password_checks_refused_total" []
        "Clients told to come back later because their address had limits.password_checks_per_address_max password checks waiting.";
    BANS: Gauge "mqtt_broker_bans" []
        "Bans that hold.";
    BANS_IMPOSED: Counter "mqtt_broker_bans_imposed_total" ["cause"]
        "Bans that came by themselves, by cause: failures (of one user from one address), address_failures, flapping.";
    WEBSOCKET_VIOLATIONS: Counter "mqtt_broker_websocket_violations_total" ["listener", "reason"]
        "WebSocket connections ended because the client broke a rule of the framing, by reason.";

    // TLS.
    HANDSHAKES: Counter "mqtt_broker_tls_handshakes_total" ["listener", "result", "version"]
        "TLS handshakes by result: full, resumed or failed (then version is none).";
    HANDSHAKE_SECONDS: Histogram "mqtt_broker_tls_handshake_duration_seconds" ["listener", "result"]
        "How long TLS handshakes took from the client's first byte on, its link included.";
    HANDSHAKE_BYTES: Counter "mqtt_broker_tls_handshake_bytes_total" ["listener", "direction"]
        "Bytes of completed TLS handshakes, as they were on the wire.";
    CERT_EXPIRY: Gauge "mqtt_broker_cert_expiry_timestamp_seconds" ["listener", "of"]
        "When the first of a listener's certificates, client authorities or revocation lists ends (Unix time): certificate, client_ca, crl.";
    CLIENT_CERTS_EXPIRING: Gauge "mqtt_broker_client_certs_expiring" ["within"]
        "Connected clients whose certificate ends within so many days: 7d, 30d, 90d.";
    CRL_OVERDUE: Gauge "mqtt_broker_tls_crl_overdue" ["listener"]
        "1 when a certificate revocation list of a listener is past its nextUpdate; crl_overdue says what that means.";
    ALLOW_LIST_CERTIFICATES: Gauge "mqtt_broker_tls_allow_list_certificates" ["listener"]
        "Certificates that the inventory of a listener (allow_list) admits.";
    ALLOW_LIST_BROKEN: Gauge "mqtt_broker_tls_allow_list_broken" ["listener"]
        "1 when the inventory of a listener cannot be read to its end: nobody new is admitted; the log names the line.";
    ENROLMENT_REQUESTS: Counter "mqtt_broker_enrolment_requests_total" ["outcome"]
        "Requests for a certificate, by outcome: relayed to the enrolment service, refused before it saw them.";
    ENROLMENT_ANSWERS: Counter "mqtt_broker_enrolment_answers_total" ["outcome"]
        "Answers of the enrolment service, by outcome: delivered, unclaimed (who had asked was gone).";

    // Messages.
    BYTES: Counter "mqtt_broker_bytes_total" ["direction"]
        "MQTT bytes, without TLS and WebSocket framing.";
    PACKETS: Counter "mqtt_broker_packets_total" ["direction", "type"]
        "MQTT packets, by type.";
    PUBLISHES: Counter "mqtt_broker_publish_total" ["direction", "qos", "version"]
        "PUBLISH packets, by QoS and the client's MQTT version.";
    PAYLOAD_BYTES: Counter "mqtt_broker_publish_payload_bytes_total" ["direction", "qos", "version"]
        "Payload bytes of PUBLISH packets, by QoS and the client's MQTT version.";
    PUBLISHES_REFUSED: Counter "mqtt_broker_publish_refused_total" []
        "Publishes refused by a limit or rule.";
    DROPPED: Counter "mqtt_broker_messages_dropped_total" ["reason"]
        "Messages, or deliveries of one, given up, by reason; no_subscriber is a publish that nobody receives.";
    LIMITS: Counter "mqtt_broker_limit_reached_total" ["limit"]
        "Times that a limit was reached, by its key in the configuration: what happens then stands beside the key.";
    ACL_DENIED: Counter "mqtt_broker_acl_denied_total" ["action"]
        "What the ACL denied, by action: publish, subscribe (filters), connect (its will), will (when it was due). Deliveries are among mqtt_broker_messages_dropped_total.";
    ACKNOWLEDGEMENTS: Counter "mqtt_broker_acknowledgements_total" ["basis"]
        "PUBACK, PUBREC and PUBCOMP sent, by what they rest on: fsynced, elided (every durable receiver had acknowledged) or volatile (nothing durable was promised).";
    IN_FLIGHT: Gauge "mqtt_broker_inflight_messages" ["direction"]
        "QoS 1 and 2 messages under way: in, received and not yet acknowledged; out, sent and not yet acknowledged.";
    DELIVERY_LATENCY: Histogram "mqtt_broker_delivery_latency_seconds" ["qos"]
        "From reading a PUBLISH to handing it to a receiver's socket, waiting for the disk included; one message in 64 of each publisher. Without what waited for its receiver to connect.";
    ACK_ROUND_TRIP: Histogram "mqtt_broker_ack_rtt_seconds" ["qos"]
        "From sending a PUBLISH to the PUBACK or PUBCOMP that ends it: client and link; one delivery in 64 of each client.";
    ALIAS_BYTES_SAVED: Counter "mqtt_broker_topic_alias_bytes_saved_total" []
        "Bytes of topics that aliases saved towards clients.";
    WILLS: Counter "mqtt_broker_wills_published_total" []
        "Wills published.";

    // What the broker holds.
    SESSIONS: Gauge "mqtt_broker_sessions" ["state"]
        "Sessions, by state: connected, offline.";
    TAKEOVERS: Counter "mqtt_broker_session_takeovers_total" []
        "Sessions taken over by a newer connection.";
    SESSIONS_EXPIRED: Counter "mqtt_broker_sessions_expired_total" []
        "Sessions ended because their client did not come back in time.";
    QUEUE_MESSAGES: Gauge "mqtt_broker_session_queue_messages" []
        "Messages waiting to be sent, over all sessions and share groups.";
    QUEUE_BYTES: Gauge "mqtt_broker_session_queue_bytes" []
        "Bytes of the messages waiting to be sent.";
    QUEUE_MESSAGES_MAX: Gauge "mqtt_broker_session_queue_messages_max" []
        "Messages waiting in the session that has most.";
    QUEUE_BYTES_MAX: Gauge "mqtt_broker_session_queue_bytes_max" []
        "Bytes waiting in the session that has most.";
    QUEUE_OLDEST: Gauge "mqtt_broker_session_queue_oldest_seconds" []
        "How long the oldest message has been waiting; of a session whose oldest is in the store only, how long its client has been away.";
    SUBSCRIPTIONS: Gauge "mqtt_broker_subscriptions" []
        "Subscriptions.";
    RETAINED_MESSAGES: Gauge "mqtt_broker_retained_messages" []
        "Retained messages.";
    RETAINED_BYTES: Gauge "mqtt_broker_retained_bytes" []
        "Bytes of the retained messages.";

    // The store.
    COMMIT_SECONDS: Histogram "mqtt_broker_storage_commit_duration_seconds" []
        "Duration of commits, fsync included.";
    COMMIT_RECORDS: Histogram "mqtt_broker_storage_commit_records" []
        "Records in each commit.";
    STORE_RECORDS: Counter "mqtt_broker_storage_records_total" []
        "Records made durable.";
    STORE_BODIES_READ: Counter "mqtt_broker_storage_bodies_read_total" []
        "Queued messages read back from disk.";
    STORE_FULL: Counter "mqtt_broker_storage_full_total" []
        "Times the disk was found full.";
    STORE_FILE_BYTES: Gauge "mqtt_broker_storage_file_bytes" []
        "The store's file, up to the highest byte written; it is used again inside and never shrinks.";
    STORE_JOURNAL_BYTES: Gauge "mqtt_broker_storage_journal_bytes" []
        "Journal not yet folded into tables.";
    STORE_QUEUE_BYTES: Gauge "mqtt_broker_storage_queue_bytes" []
        "Records waiting for the writer.";
}
