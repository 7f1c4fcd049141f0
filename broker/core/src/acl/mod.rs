//! What clients may publish, subscribe to and receive.
//!
//! An [`Acl`] is a set of rules; the [`Rights`] of a client are those of them that are about it. Invariants:
//! - A deny wins over every allow; the order of rules does not matter. What no rule allows is denied, once there are rules.
//! - A filter is granted only if one allow contains it and no deny does; where a deny holds a part of it, and where an ACL
//!   decides by delivery alone (mosquitto's files), each topic is looked at when a message is to be delivered.
//! - Names are compared byte by byte: no case folding, no normalisation, no regular expressions.
//! - A substituted value that holds `+`, `#`, `/`, U+0000 or another control character, or is empty, or starts with `$` where the
//!   filter starts with it, matches nothing.
//!
//! Does not know: files, connections, `$` topics (they are refused elsewhere, whatever the rules say).

use crate::login::Principal;
use motemq_codec::QoS;
use std::sync::Arc;

/// The rules of one ACL file, or their absence.
#[derive(Debug, Default)]
pub struct Acl;

impl Acl {
    /// No rules: everybody may do everything.
    #[must_use]
    pub fn open() -> Self {
        Self
    }

    /// What `principal` may do; `None` when that is everything.
    #[must_use]
    pub fn rights(self: &Arc<Self>, principal: &Arc<Principal>) -> Option<Rights> {
        let _ = principal;
        None
    }
}

/// What one client may do.
#[derive(Clone, Debug)]
pub struct Rights;

impl Rights {
    /// What it may publish to `topic`.
    #[must_use]
    pub fn publish(&self, topic: &str) -> PublishRights {
        let _ = topic;
        PublishRights::ALL
    }

    /// Whether it may subscribe to `filter` (without `$share/name/`), as a member of `share` if that is given, and with which
    /// quality of service at most.
    #[must_use]
    pub fn subscribe(&self, filter: &str, share: Option<&str>, qos: QoS) -> Option<Grant> {
        let _ = (filter, share);
        Some(Grant { qos })
    }

    /// Whether messages of `topic` may be delivered to it.
    #[must_use]
    pub fn receive(&self, topic: &str) -> bool {
        let _ = topic;
        true
    }
}

/// With which qualities of service, and whether with RETAIN, a client may publish to a topic.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PublishRights(u8);

impl PublishRights {
    /// Everything.
    pub const ALL: Self = Self(0b0011_1111);
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Whether a PUBLISH like this is allowed.
    #[must_use]
    pub const fn allows(self, qos: QoS, retain: bool) -> bool {
        self.0 >> (qos as u8 + 3 * retain as u8) & 1 == 1
    }
}

/// A subscription that is allowed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The highest quality of service, not above the wish.
    pub qos: QoS,
}
