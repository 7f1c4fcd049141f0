//! Tokens (JWT) for clients, signed without the crate that the broker verifies them with.
//!
//! Does not know: what the broker makes of their claims, which are given as JSON.
#![expect(
    clippy::expect_used,
    reason = "a script that goes wrong must stop at once"
)]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

/// Somebody who signs tokens, with EdDSA.
#[derive(Debug)]
pub struct Signer(Ed25519KeyPair);

impl Signer {
    /// The same for the same number.
    #[must_use]
    pub fn new(number: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[number; 32]).expect("a seed"))
    }

    /// The public key as a member of a JWKS.
    #[must_use]
    pub fn jwk(&self) -> String {
        let x = BASE64.encode(self.0.public_key());
        format!("{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"{x}\"}}")
    }

    /// A token with these claims, a JSON object.
    #[must_use]
    pub fn token(&self, claims: &str) -> String {
        let [header, claims] = ["{\"alg\":\"EdDSA\"}", claims].map(|part| BASE64.encode(part));
        let message = format!("{header}.{claims}");
        let signature = BASE64.encode(self.0.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// A JWKS.
#[must_use]
pub fn key_set(signers: &[&Signer]) -> String {
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    format!("{{\"keys\":[{}]}}", keys.join(","))
}
