//! What one open connection costs and is: bytes by layer, round trips, TLS, certificate. Only its own task knows, so it is asked.
//!
//! Promises: a connection keeps nothing for this but its counts; nobody but the owner of a socket looks at it. A question is answered by
//! the next run of the connection's task, or not at all after [`PATIENCE`].
//!
//! Does not know: who asks, sessions.

use crate::auth::{Peer, PeerCertificate};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use motemq_codec::ProtocolVersion;
use motemq_core::{Meters, Timestamp};
use motemq_tcp_info::TcpInfo;
use rustls::{HandshakeKind, ProtocolVersion as TlsVersion};
use serde::Serialize;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio_rustls::server::TlsStream;

/// An open connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectionFacts {
    /// The listener it came to.
    pub listener: String,
    /// Where it comes from.
    pub peer: String,
    /// 3, 4 or 5.
    pub version: u8,
    /// Since when, Unix time in milliseconds.
    pub connected_at_ms: u64,
    /// The keep-alive in force; 0 is none.
    pub keep_alive_s: u64,
    /// PUBLISH packets.
    pub messages: Both,
    /// Bytes by layer.
    pub bytes: LayerBytes,
    /// What the kernel says; nothing for a Unix socket.
    pub tcp: Option<TcpFacts>,
    /// Nothing without TLS.
    pub tls: Option<TlsFacts>,
    /// The one that the client showed.
    pub certificate: Option<CertificateFacts>,
    /// The part of the MQTT bytes that only kept the connection alive, 0 to 1.
    pub keep_alive_share: f64,
}

/// From the client, and to it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Both {
    /// From the client.
    #[serde(rename = "in")]
    pub incoming: u64,
    /// To the client.
    #[serde(rename = "out")]
    pub outgoing: u64,
}

/// Bytes by layer, each with all that is above it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerBytes {
    /// Payloads.
    pub payload: Both,
    /// MQTT packets.
    pub mqtt: Both,
    /// TLS records, handshake and WebSocket frames included; nothing without TLS, or where the kernel does not tell.
    pub tls: Option<Both>,
    /// Segments with their headers, estimated: IP and TCP headers of each, and what was sent again.
    pub tcp: Option<Both>,
}

/// What the kernel says of a TCP connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TcpFacts {
    /// Smoothed round trip.
    pub rtt_us: u32,
    /// Its mean deviation.
    pub rttvar_us: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Segments thought to be lost now.
    pub lost: u32,
}

/// TLS of a connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsFacts {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The handshake resumed a session.
    pub is_resumed: bool,
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateFacts {
    /// Its subject.
    pub subject: String,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// When it expires, Unix time in milliseconds.
    pub not_after_ms: Option<u64>,
    /// SHA-256 over it, in hexadecimal.
    pub fingerprint: Option<String>,
}

/// What the layers below MQTT say.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Layers {
    pub(crate) tcp: Option<(TcpInfo, IpHeader)>,
    pub(crate) tls: Option<TlsFacts>,
}

/// Bytes of an IP header.
#[derive(Copy, Clone, Debug)]
pub(crate) struct IpHeader(u64);

/// A stream that knows what is below it.
pub(crate) trait Layered {
    /// What the layers say now.
    fn layers(&self) -> Layers;
}

impl Layered for TcpStream {
    fn layers(&self) -> Layers {
        let told = motemq_tcp_info::tcp_info(self.as_fd()).ok();
        let peer = self.peer_addr().ok();
        let header = match peer.map(|peer| peer.ip().to_canonical()) {
            Some(IpAddr::V6(_)) => IpHeader(40),
            _ => IpHeader(20),
        };
        Layers {
            tcp: told.map(|told| (told, header)),
            tls: None,
        }
    }
}

impl Layered for UnixStream {
    fn layers(&self) -> Layers {
        Layers::default()
    }
}

/// What the HTTP port has made of its sockets no longer knows them.
impl Layered for TokioIo<Upgraded> {
    fn layers(&self) -> Layers {
        Layers::default()
    }
}

impl<S: Layered> Layered for TlsStream<S> {
    fn layers(&self) -> Layers {
        let (below, session) = self.get_ref();
        let version = match session.protocol_version() {
            Some(TlsVersion::TLSv1_2) => "1.2",
            Some(TlsVersion::TLSv1_3) => "1.3",
            _ => "unknown",
        };
        let tls = TlsFacts {
            version,
            is_resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        Layers {
            tls: Some(tls),
            ..below.layers()
        }
    }
}

impl Layers {
    /// Bytes above TCP, as far as the kernel tells.
    fn wire(&self) -> Option<Both> {
        let (told, _) = self.tcp?;
        Some(Both {
            incoming: told.bytes_in?,
            outgoing: told.bytes_out?,
        })
    }

    /// Bytes of TCP and IP.
    fn segments(&self) -> Option<Both> {
        let (told, IpHeader(ip)) = self.tcp?;
        let options = if told.has_timestamps {
            TIMESTAMPS_BYTES
        } else {
            0
        };
        let header = ip + TCP_BYTES + options;
        let wire = self.wire()?;
        let again = told.bytes_again.unwrap_or(0);
        Some(Both {
            incoming: wire.incoming + header * u64::from(told.segments_in?),
            outgoing: wire.outgoing + again + header * u64::from(told.segments_out?),
        })
    }
}

/// What the driver has at hand.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) version: ProtocolVersion,
    pub(crate) connected_at: Timestamp,
    pub(crate) keep_alive_s: u64,
    pub(crate) meters: &'a Meters,
}

impl ConnectionFacts {
    pub(crate) fn new(known: Known<'_>, layers: Layers) -> Self {
        let Known { peer, meters, .. } = known;
        let both = |incoming, outgoing| Both { incoming, outgoing };
        Self {
            listener: peer.listener.to_string(),
            peer: peer.address.to_string(),
            version: match known.version {
                ProtocolVersion::V3_1 => 3,
                ProtocolVersion::V3_1_1 => 4,
                ProtocolVersion::V5 => 5,
            },
            connected_at_ms: known.connected_at.as_ms(),
            keep_alive_s: known.keep_alive_s,
            messages: both(meters.messages_in, meters.messages_out),
            bytes: LayerBytes {
                payload: both(meters.payload_bytes_in, meters.payload_bytes_out),
                mqtt: both(meters.bytes_in, meters.bytes_out),
                tls: layers.tls.and_then(|_| layers.wire()),
                tcp: layers.segments(),
            },
            tcp: layers.tcp.map(|(told, _)| TcpFacts {
                rtt_us: told.rtt_us,
                rttvar_us: told.rttvar_us,
                retransmits: told.retransmits,
                lost: told.lost,
            }),
            tls: layers.tls,
            certificate: certificate(peer),
            keep_alive_share: meters.keep_alive_share(),
        }
    }
}

fn certificate(peer: &Peer) -> Option<CertificateFacts> {
    let own = peer.certificate_ids.as_deref()?.first()?;
    let (not_after, fingerprint) = match &peer.certificate {
        PeerCertificate::Verified(certificate) => {
            let mut fields = certificate.attributes.fields.iter();
            let fingerprint = fields.find(|(name, _)| &**name == "fingerprint");
            // What is kept is the moment after its last second.
            let last = certificate.expires_at.as_ms().saturating_sub(1000);
            (Some(last), fingerprint.map(|(_, value)| value.to_string()))
        }
        PeerCertificate::None | PeerCertificate::Unusable(_) => (None, None),
    };
    Some(CertificateFacts {
        subject: own.subject_shown(),
        serial: own.serial_shown(),
        not_after_ms: not_after,
        fingerprint,
    })
}

/// Who waits for facts about which client.
#[derive(Debug, Default)]
pub(crate) struct Inquiries {
    /// How many wait, to look at without the lock.
    open: AtomicUsize,
    waiting: Mutex<HashMap<Box<str>, Vec<Inquiry>>>,
}

/// What a connection is asked for.
#[derive(Debug)]
pub(crate) enum Inquiry {
    /// What it is and costs.
    Facts(oneshot::Sender<ConnectionFacts>),
    /// To end, and to say so.
    End(oneshot::Sender<()>),
}

impl Inquiry {
    fn is_closed(&self) -> bool {
        match self {
            Self::Facts(asking) => asking.is_closed(),
            Self::End(asking) => asking.is_closed(),
        }
    }
}

impl Inquiries {
    /// Asks about a client; its task must be woken then. `None` when too many wait already.
    pub(crate) fn ask(&self, client_id: &str) -> Option<oneshot::Receiver<ConnectionFacts>> {
        let (sender, receiver) = oneshot::channel();
        self.add(client_id, Inquiry::Facts(sender))
            .then_some(receiver)
    }

    /// Asks the connection of a client to end; its task must be woken then. `None` when too many wait already.
    pub(crate) fn end(&self, client_id: &str) -> Option<oneshot::Receiver<()>> {
        let (sender, receiver) = oneshot::channel();
        self.add(client_id, Inquiry::End(sender))
            .then_some(receiver)
    }

    fn add(&self, client_id: &str, inquiry: Inquiry) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Those who have lost patience.
        waiting.retain(|_, asking| {
            asking.retain(|one| !one.is_closed());
            !asking.is_empty()
        });
        let open = waiting.values().map(Vec::len).sum::<usize>();
        if open >= INQUIRIES_MAX {
            return false;
        }
        waiting.entry(client_id.into()).or_default().push(inquiry);
        self.open.store(open + 1, Ordering::Release);
        true
    }

    /// Whether anybody waits.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// What this client's connection is asked for.
    pub(crate) fn take(&self, client_id: &str) -> Vec<Inquiry> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let found = waiting.remove(client_id).unwrap_or_default();
        let open = waiting.values().map(Vec::len).sum();
        self.open.store(open, Ordering::Release);
        found
    }
}

/// A TCP header without options.
const TCP_BYTES: u64 = 20;
/// The timestamps of a segment, padded.
const TIMESTAMPS_BYTES: u64 = 12;
/// Questions that may wait.
const INQUIRIES_MAX: usize = 256;
/// How long an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_repetitions_count_as_bytes_of_tcp() {
        let told = TcpInfo {
            rtt_us: 1,
            rttvar_us: 1,
            retransmits: 1,
            lost: 0,
            bytes_in: Some(1000),
            bytes_out: Some(500),
            bytes_again: Some(100),
            segments_in: Some(10),
            segments_out: Some(20),
            has_timestamps: true,
        };
        let layers = Layers {
            tcp: Some((told, IpHeader(20))),
            tls: None,
        };
        let expected = Both {
            incoming: 1000 + 10 * 52,
            outgoing: 600 + 20 * 52,
        };
        assert_eq!(layers.segments(), Some(expected));
    }

    #[test]
    fn too_many_questions_are_not_kept_and_those_given_up_leave() {
        let inquiries = Inquiries::default();
        let asked: Vec<_> = (0..INQUIRIES_MAX + 5)
            .filter_map(|number| inquiries.ask(&number.to_string()))
            .collect();
        assert_eq!(asked.len(), INQUIRIES_MAX);
        drop(asked);
        let answer = inquiries.ask("c");
        assert!(answer.is_some() && inquiries.is_any());
        assert_eq!(inquiries.take("c").len(), 1);
        assert!(!inquiries.is_any());
    }
}
