//! What is remembered of a credential to see later whether it is still the same.
//!
//! A fingerprint is half of a SHA-256: it tells neither the credential nor a hash that could be tried against passwords faster
//! than the stored one. It stays in memory.

use aws_lc_rs::digest;

/// Tells one stored credential from another.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Fingerprint([u8; BYTES]);

impl Fingerprint {
    /// Of all `parts`, each with its length, so that none runs into the next.
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let whole = context.finish();
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(&whole.as_ref()[..BYTES]);
        Self(bytes)
    }

    /// This and what belongs to it.
    pub(crate) fn with(self, parts: &[&[u8]]) -> Self {
        let mut all = vec![&self.0[..]];
        all.extend(parts);
        Self::of(&all)
    }
}

const BYTES: usize = 16;
