//! The MoteMQ server: all I/O around the broker core.
//!
//! [`server::start`] is what `main` and the tests call. The rules of MQTT are in `motemq-core`, the bytes in
//! `motemq-codec`; here are sockets, TLS, files, threads and the clock.

mod accept;
pub mod acl_file;
mod admission;
mod allow_list;
pub mod api;
mod audit;
pub mod auth;
pub mod ban;
mod client_certificate;
pub mod clock;
pub mod config;
mod crl;
pub mod dev;
mod driver;
pub mod events;
mod fingerprint;
mod http;
pub mod import;
pub mod jwt;
mod listener;
pub mod memory;
pub mod meters;
pub mod metrics;
pub mod password;
pub mod password_hash;
pub mod password_import;
mod proxy;
pub mod reload;
pub mod runtime;
pub mod scram;
pub mod scram_file;
pub mod server;
mod socket;
pub mod store;
pub mod supervisor;
mod sys_topics;
pub mod tls;
mod tls_counts;
mod tls_handshake;
pub mod tls_sessions;
mod trace;
pub mod vitals;
pub mod watch;
pub mod websocket;
