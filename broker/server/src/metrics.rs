//! Every metric: name, unit, help text and where its value comes from.
//!
//! The broker counts in plain structs; a scrape copies the sums into the `metrics` recorder and renders it. Label values
//! come from closed sets: never a client id, topic, address or user.

use crate::ban::Cause;
use crate::config::Protocol;
use crate::server::{Refusal, Server};
use crate::store::journal::{COMMIT_BUCKETS_US, StoreCounters};
use crate::tls::{self, Dated, ListenerTls};
use crate::websocket::Violation;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use motemq_core::{Broker, Counters, DropReason, Limit, Occasion};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// The text of `/metrics`.
#[must_use]
pub fn render(server: &Server) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    with_local_recorder(&recorder, || {
        describe();
        connections(server);
        messages(server.broker().counters());
        state(server.broker());
        if let Some(journal) = server.journal() {
            store(journal.counters(), journal.queue_bytes());
        }
    });
    let mut text = handle.render();
    if let Some(journal) = server.journal() {
        commit_histogram(journal.counters(), &mut text);
    }
    text
}

fn describe() {
    describe_gauge!(
        "mqtt_broker_build_info",
        "Always 1; the version is in the labels."
    );
    describe_gauge!(
        "mqtt_broker_config_reload_success",
        "1 when the last reload (SIGHUP) took effect or there was none, 0 when it was refused; the log says why."
    );
    describe_gauge!("mqtt_broker_connections", "Clients connected, by listener.");
    describe_counter!(
        "mqtt_broker_connections_accepted_total",
        "Sockets accepted, by listener."
    );
    describe_counter!(
        "mqtt_broker_connections_refused_total",
        "Connections and clients refused, by listener and reason."
    );
    describe_gauge!(
        "mqtt_broker_tls_crl_next_update_timestamp_seconds",
        Unit::Seconds,
        "When the first certificate revocation list of a listener is due to be renewed (Unix time)."
    );
    describe_gauge!(
        "mqtt_broker_tls_crl_overdue",
        "1 when a certificate revocation list of a listener is past its nextUpdate; crl_overdue says what that means."
    );
    describe_gauge!(
        "mqtt_broker_tls_days_left",
        "Days until the first of a listener's certificates, client authorities or revocation lists ends (label of: certificate, client_ca, crl); below 0 it has."
    );
    describe_gauge!(
        "mqtt_broker_tls_allow_list_certificates",
        "Certificates that the inventory of a listener (allow_list) admits."
    );
    describe_gauge!(
        "mqtt_broker_tls_allow_list_broken",
        "1 when the inventory of a listener cannot be read to its end: nobody new is admitted; the log names the line."
    );
    describe_counter!(
        "mqtt_broker_tls_handshakes_total",
        "TLS handshakes completed, by listener and kind: full, or resumed."
    );
    describe_gauge!("mqtt_broker_bans", "Bans that hold.");
    describe_counter!(
        "mqtt_broker_bans_imposed_total",
        "Bans that came by themselves, by cause: failures (of one user from one address), address_failures, flapping."
    );
    describe_counter!(
        "mqtt_broker_connects_refused_total",
        "CONNECTs and re-authentications refused, by listener and the reason code of MQTT 5."
    );
    describe_counter!(
        "mqtt_broker_tls_handshakes_failed_total",
        "TLS handshakes that failed, by listener."
    );
    describe_counter!(
        "mqtt_broker_websocket_violations_total",
        "WebSocket connections ended because the client broke a rule of the framing, by listener and reason."
    );
    describe_counter!(
        "mqtt_broker_connections_closed_total",
        "Connections ended, by listener and reason."
    );
    describe_gauge!(
        "mqtt_broker_connections_unauthenticated",
        "Sockets whose first byte, TLS handshake or CONNECT is awaited."
    );
    describe_counter!(
        "mqtt_broker_connections_evicted_total",
        "Connections without a session that gave way to newcomers: limits.unauthenticated_max, or too few descriptors."
    );
    describe_counter!(
        "mqtt_broker_password_checks_refused_total",
        "Clients told to come back later because their address had limits.password_checks_per_address_max password checks waiting."
    );
    describe_counter!(
        "mqtt_broker_connection_panics_total",
        "Connection tasks ended by a bug of the broker."
    );
    describe_counter!(
        "mqtt_broker_publish_total",
        "PUBLISH packets, by direction."
    );
    describe_counter!(
        "mqtt_broker_publish_payload_bytes_total",
        Unit::Bytes,
        "Payload bytes of PUBLISH packets, by direction."
    );
    describe_counter!(
        "mqtt_broker_bytes_total",
        Unit::Bytes,
        "MQTT bytes, by direction."
    );
    describe_counter!(
        "mqtt_broker_publish_unrouted_total",
        "Publishes that no subscription matched."
    );
    describe_counter!(
        "mqtt_broker_publish_refused_total",
        "Publishes refused by a limit or rule."
    );
    describe_counter!(
        "mqtt_broker_limit_reached_total",
        "Times that a limit was reached, by its key in the configuration: what happens then stands beside the key."
    );
    describe_counter!(
        "mqtt_broker_messages_dropped_total",
        "Deliveries given up, by reason."
    );
    describe_counter!(
        "mqtt_broker_acknowledgements_total",
        "PUBACK, PUBREC and PUBCOMP sent, by what they rest on: fsynced, elided (every durable receiver had acknowledged) or volatile (nothing durable was promised)."
    );
    describe_counter!(
        "mqtt_broker_acl_denied_total",
        "What the ACL denied, by action: publish, subscribe (filters), connect (its will), will (when it was due). Deliveries are among mqtt_broker_messages_dropped_total."
    );
    describe_counter!(
        "mqtt_broker_enrolment_requests_total",
        "Requests for a certificate, by outcome: relayed to the enrolment service, refused before it saw them."
    );
    describe_counter!(
        "mqtt_broker_enrolment_answers_total",
        "Answers of the enrolment service, by outcome: delivered, unclaimed (who had asked was gone)."
    );
    describe_counter!("mqtt_broker_wills_published_total", "Wills published.");
    describe_counter!(
        "mqtt_broker_session_takeovers_total",
        "Sessions taken over by a newer connection."
    );
    describe_counter!(
        "mqtt_broker_topic_alias_bytes_saved_total",
        Unit::Bytes,
        "Bytes of topics that aliases saved towards clients."
    );
    describe_counter!(
        "mqtt_broker_keepalive_timeouts_total",
        "Connections ended because the client was silent."
    );
    describe_gauge!(
        "mqtt_broker_memory_bytes",
        Unit::Bytes,
        "Resident memory of the process."
    );
    describe_gauge!(
        "mqtt_broker_memory_bytes_max",
        Unit::Bytes,
        "The ceiling: limits.memory_bytes_max."
    );
    describe_gauge!(
        "mqtt_broker_memory_pressure",
        "What is done about it: 0 nothing, 1 the heaviest publishers are not read, 2 and new clients refused, 3 and QoS 0 dropped."
    );
    describe_gauge!("mqtt_broker_sessions", "Sessions, by state.");
    describe_gauge!(
        "mqtt_broker_session_queue_messages",
        "Messages waiting to be sent, over all sessions."
    );
    describe_gauge!(
        "mqtt_broker_session_queue_bytes",
        Unit::Bytes,
        "Bytes of the messages waiting to be sent."
    );
    describe_gauge!("mqtt_broker_subscriptions", "Subscriptions.");
    describe_gauge!("mqtt_broker_retained_messages", "Retained messages.");
    describe_gauge!(
        "mqtt_broker_retained_bytes",
        Unit::Bytes,
        "Bytes of the retained messages."
    );
    describe_counter!("mqtt_broker_storage_records_total", "Records made durable.");
    describe_counter!(
        "mqtt_broker_storage_bodies_read_total",
        "Queued messages read back from disk."
    );
    describe_counter!(
        "mqtt_broker_storage_full_total",
        "Times the disk was found full."
    );
    describe_gauge!(
        "mqtt_broker_storage_journal_bytes",
        Unit::Bytes,
        "Journal not yet folded into tables."
    );
    describe_gauge!(
        "mqtt_broker_storage_queue_bytes",
        Unit::Bytes,
        "Records waiting for the writer."
    );
}

fn connections(server: &Server) {
    gauge!("mqtt_broker_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let is_reloaded = if server.is_reloaded() { 1.0 } else { 0.0 };
    gauge!("mqtt_broker_config_reload_success").set(is_reloaded);
    gauge!("mqtt_broker_memory_bytes").set(server.memory().used_bytes() as f64);
    gauge!("mqtt_broker_memory_bytes_max").set(server.memory().max_bytes() as f64);
    let pressure = server.broker().pressure().level() as u8;
    gauge!("mqtt_broker_memory_pressure").set(f64::from(pressure));
    gauge!("mqtt_broker_connections_unauthenticated").set(server.unauthenticated() as f64);
    counter!("mqtt_broker_connections_evicted_total")
        .absolute(server.admission().places().evicted());
    counter!("mqtt_broker_connection_panics_total").absolute(server.panics());
    counter!("mqtt_broker_password_checks_refused_total")
        .absolute(server.password_checks().refused());
    for cause in Cause::ALL {
        counter!("mqtt_broker_bans_imposed_total", "cause" => cause.label())
            .absolute(server.bans().imposed(cause));
    }
    gauge!("mqtt_broker_bans").set(server.bans().list().len() as f64);
    for listener in server.listeners() {
        let name = listener.config().name.clone();
        gauge!("mqtt_broker_connections", "listener" => name.clone())
            .set(listener.connected() as f64);
        counter!("mqtt_broker_connections_accepted_total", "listener" => name.clone())
            .absolute(listener.accepted());
        for refusal in Refusal::ALL {
            counter!("mqtt_broker_connections_refused_total", "listener" => name.clone(), "reason" => refusal.label())
                .absolute(listener.refused(refusal));
        }
        if let Some(tls) = listener.tls() {
            expiry(tls, &name);
            for (kind, count) in listener.handshakes() {
                counter!("mqtt_broker_tls_handshakes_total", "listener" => name.clone(), "kind" => kind)
                    .absolute(count);
            }
        }
        for (code, count) in listener.refused_codes() {
            counter!("mqtt_broker_connects_refused_total", "listener" => name.clone(), "code" => format!("0x{code:02X}"))
                .absolute(count);
        }
        if listener.config().protocol == Protocol::Ws {
            for violation in Violation::ALL {
                counter!("mqtt_broker_websocket_violations_total", "listener" => name.clone(), "reason" => violation.label())
                    .absolute(listener.violated(violation));
            }
        }
        counter!("mqtt_broker_tls_handshakes_failed_total", "listener" => name.clone())
            .absolute(listener.tls_failed());
        for (reason, count) in listener.closed() {
            counter!("mqtt_broker_connections_closed_total", "listener" => name.clone(), "reason" => reason)
                .absolute(count);
        }
    }
}

/// What of a listener's TLS is to be renewed, and when.
fn expiry(tls: &ListenerTls, name: &str) {
    let now_s = tls::now_s();
    for (what, end_s) in tls.ends() {
        let days = (end_s - now_s) as f64 / tls::DAY_S as f64;
        gauge!("mqtt_broker_tls_days_left", "listener" => name.to_owned(), "of" => what.label())
            .set(days);
        if what == Dated::Crl {
            gauge!("mqtt_broker_tls_crl_next_update_timestamp_seconds", "listener" => name.to_owned())
                .set(end_s as f64);
        }
    }
    let is_overdue = if tls.is_crl_overdue() { 1.0 } else { 0.0 };
    gauge!("mqtt_broker_tls_crl_overdue", "listener" => name.to_owned()).set(is_overdue);
    if let Some(list) = tls.allow_list() {
        gauge!("mqtt_broker_tls_allow_list_certificates", "listener" => name.to_owned())
            .set(list.len() as f64);
        let is_broken = if list.fault().is_some() { 1.0 } else { 0.0 };
        gauge!("mqtt_broker_tls_allow_list_broken", "listener" => name.to_owned()).set(is_broken);
    }
}

fn messages(counters: &Counters) {
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let directed = [
        ("mqtt_broker_publish_total", "in", &counters.publish_in),
        ("mqtt_broker_publish_total", "out", &counters.publish_out),
        (
            "mqtt_broker_publish_payload_bytes_total",
            "in",
            &counters.payload_bytes_in,
        ),
        (
            "mqtt_broker_publish_payload_bytes_total",
            "out",
            &counters.payload_bytes_out,
        ),
        ("mqtt_broker_bytes_total", "in", &counters.bytes_in),
        ("mqtt_broker_bytes_total", "out", &counters.bytes_out),
    ];
    for (name, direction, count) in directed {
        counter!(name, "direction" => direction).absolute(of(count));
    }
    let plain = [
        ("mqtt_broker_publish_unrouted_total", &counters.unrouted),
        (
            "mqtt_broker_topic_alias_bytes_saved_total",
            &counters.alias_bytes_saved,
        ),
    ];
    for (name, count) in plain {
        counter!(name).absolute(of(count));
    }
    let occasions = [
        (
            "mqtt_broker_publish_refused_total",
            Occasion::PublishRefused,
        ),
        ("mqtt_broker_wills_published_total", Occasion::WillPublished),
        ("mqtt_broker_session_takeovers_total", Occasion::Takeover),
        (
            "mqtt_broker_keepalive_timeouts_total",
            Occasion::KeepAliveTimeout,
        ),
    ];
    for (name, occasion) in occasions {
        counter!(name).absolute(counters.noted(occasion));
    }
    let denied = [
        ("publish", Occasion::PublishDenied),
        ("subscribe", Occasion::SubscribeDenied),
        ("connect", Occasion::ConnectDenied),
        ("will", Occasion::WillDenied),
    ];
    for (action, occasion) in denied {
        counter!("mqtt_broker_acl_denied_total", "action" => action)
            .absolute(counters.noted(occasion));
    }
    let requests = [
        ("relayed", Occasion::EnrolmentRelayed),
        ("refused", Occasion::EnrolmentRefused),
    ];
    for (outcome, occasion) in requests {
        counter!("mqtt_broker_enrolment_requests_total", "outcome" => outcome)
            .absolute(counters.noted(occasion));
    }
    let answers = [
        ("delivered", Occasion::EnrolmentAnswered),
        ("unclaimed", Occasion::EnrolmentUnclaimed),
    ];
    for (outcome, occasion) in answers {
        counter!("mqtt_broker_enrolment_answers_total", "outcome" => outcome)
            .absolute(counters.noted(occasion));
    }
    let acknowledgements = [
        ("fsynced", &counters.acks_fsynced),
        ("elided", &counters.acks_elided),
        ("volatile", &counters.acks_volatile),
    ];
    for (basis, count) in acknowledgements {
        counter!("mqtt_broker_acknowledgements_total", "basis" => basis).absolute(of(count));
    }
    for limit in Limit::ALL {
        counter!("mqtt_broker_limit_reached_total", "limit" => limit.label())
            .absolute(counters.reached(limit));
    }
    for reason in DropReason::ALL {
        counter!("mqtt_broker_messages_dropped_total", "reason" => reason.label())
            .absolute(counters.dropped(reason));
    }
}

fn state(broker: &Broker) {
    let totals = broker.session_totals();
    let offline = totals.sessions - totals.connected;
    gauge!("mqtt_broker_sessions", "state" => "connected").set(totals.connected as f64);
    gauge!("mqtt_broker_sessions", "state" => "offline").set(offline as f64);
    gauge!("mqtt_broker_session_queue_messages").set(totals.queued_messages as f64);
    gauge!("mqtt_broker_session_queue_bytes").set(totals.queued_bytes as f64);
    gauge!("mqtt_broker_subscriptions").set(broker.subscriptions() as f64);
    let (messages, bytes) = broker.retained_size();
    gauge!("mqtt_broker_retained_messages").set(messages as f64);
    gauge!("mqtt_broker_retained_bytes").set(bytes as f64);
}

fn store(counters: &StoreCounters, queue_bytes: usize) {
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    counter!("mqtt_broker_storage_records_total").absolute(of(&counters.records));
    counter!("mqtt_broker_storage_bodies_read_total").absolute(of(&counters.bodies_read));
    counter!("mqtt_broker_storage_full_total").absolute(of(&counters.disk_full));
    gauge!("mqtt_broker_storage_journal_bytes").set(of(&counters.journal_bytes) as f64);
    gauge!("mqtt_broker_storage_queue_bytes").set(queue_bytes as f64);
}

/// The writer counts commits by duration itself; the recorder takes samples only, so this is rendered here.
fn commit_histogram(counters: &StoreCounters, text: &mut String) {
    let name = "mqtt_broker_storage_commit_duration_seconds";
    // Writing into a String cannot fail.
    let _ = writeln!(text, "# HELP {name} Duration of commits, fsync included.");
    let _ = writeln!(text, "# TYPE {name} histogram");
    let mut sum = 0;
    for (bucket, bound_us) in counters.commit_buckets.iter().zip(COMMIT_BUCKETS_US) {
        sum += bucket.load(Ordering::Relaxed);
        let bound_s = bound_us as f64 / 1e6;
        let _ = writeln!(text, "{name}_bucket{{le=\"{bound_s}\"}} {sum}");
    }
    let count: u64 = counters
        .commit_buckets
        .iter()
        .map(|b| b.load(Ordering::Relaxed))
        .sum();
    let total_s = counters.commit_us.load(Ordering::Relaxed) as f64 / 1e6;
    let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}");
    let _ = writeln!(text, "{name}_sum {total_s}");
    let _ = writeln!(text, "{name}_count {count}");
}
