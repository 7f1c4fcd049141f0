//! As what a request counts: with whom it shares a limit, and whose own limit it counts against.
//!
//! Invariants: only who has a ground (a valid certificate, a token that is known for the id, a valid claim) counts among those who have
//! it. A stranger cannot use up the turn of a device by using its client id: what only the device has is in its key.

use super::{Login, Requester, fingerprint_is};
use crate::{Inventory, Status, Tokens};
use aws_lc_rs::digest::{Context, SHA256};

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A certificate that is valid.
    Renewal,
    /// A token that an operator made for this id, used or not.
    Token,
    /// A claim certificate that is valid.
    Claim,
    /// Nothing of that.
    Other,
}

/// Tells requesters apart.
pub(super) type Key = [u8; 32];

/// As what a request counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) class: Class,
    pub(super) key: Key,
}

impl Turn {
    pub(super) fn of(
        requester: &Requester,
        payload: &[u8],
        inventory: &Inventory,
        tokens: &Tokens,
    ) -> Self {
        let class = class(requester, inventory, tokens);
        let serial = requester.login.serial().unwrap_or_default();
        let token = requester.token.as_deref().unwrap_or_default();
        let client_id = requester.client_id.as_str();
        let key = match class {
            Class::Renewal => key(&[b"renewal", serial.as_bytes()]),
            Class::Token => key(&[
                b"token",
                client_id.as_bytes(),
                token.trim().to_ascii_lowercase().as_bytes(),
            ]),
            Class::Claim | Class::Other => key(&[
                requester.login.as_str().as_bytes(),
                serial.as_bytes(),
                client_id.as_bytes(),
                token.as_bytes(),
                payload,
            ]),
        };
        Self { class, key }
    }
}

fn class(requester: &Requester, inventory: &Inventory, tokens: &Tokens) -> Class {
    if let Some(token) = &requester.token
        && tokens.find(&requester.client_id, token).is_some()
    {
        return Class::Token;
    }
    let entry = requester.login.serial().and_then(|serial| {
        let entry = inventory.with_serial(serial)?;
        let is_shown = fingerprint_is(entry, requester.fingerprint.as_deref());
        (entry.status == Status::Issued && is_shown).then_some(entry)
    });
    match (&requester.login, entry) {
        (Login::Certificate(_), Some(_)) => Class::Renewal,
        (Login::Claim(_), Some(_)) => Class::Claim,
        _ => Class::Other,
    }
}

/// A hash of fixed length, of parts that cannot run into one another.
fn key(parts: &[&[u8]]) -> Key {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut key = Key::default();
    for (byte, of_hash) in key.iter_mut().zip(hash.finish().as_ref()) {
        *byte = *of_hash;
    }
    key
}
