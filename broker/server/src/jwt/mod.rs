//! Tokens: a password that is a signed JWT (RFC 7519, compact JWS) says who the client is, what it may do and until when.
//!
//! Promises:
//! - The key decides the algorithm: a token names one only to find a key of that algorithm, so neither `none` nor a public key used
//!   as a secret can pass. `crit` is refused, because nothing critical is understood.
//! - `exp` is required; the login ends with it.
//! - What a token says of groups and rules is taken whole or not at all.
//! - Neither the token nor a claim of one that was refused is shown.
//!
//! Does not know: connections, the clock.

mod claims;
mod keys;

pub use keys::{KeyFault, KeysFileError};

use crate::config::JwtConfig;
use crate::fingerprint::Fingerprint;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use jsonwebtoken::Validation;
use jsonwebtoken::errors::ErrorKind;
use keys::{Key, KeySet};
use motemq_core::{Attributes, Timestamp};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Verifies tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    keys: KeySet,
    path: PathBuf,
    rules: JwtConfig,
}

/// What a token proved.
#[derive(Debug)]
pub(crate) struct TokenLogin {
    /// The user.
    pub(crate) user: String,
    /// Groups and rules.
    pub(crate) attributes: Attributes,
    /// When the login ends.
    pub(crate) expires_at: Timestamp,
    /// By which key and rules, to be asked for later.
    pub(crate) fingerprint: Fingerprint,
}

impl Tokens {
    /// Reads the key file; `None` when there is to be none.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(crate) fn load(rules: &JwtConfig) -> Result<Option<Self>, KeysFileError> {
        let Some(path) = &rules.keys_file else {
            return Ok(None);
        };
        let keys = KeySet::load(path)?;
        if keys.others > 0 {
            let (file, others) = (path.display(), keys.others);
            tracing::info!(%file, others, "keys of other algorithms and uses were passed over");
        }
        Ok(Some(Self {
            keys,
            path: path.clone(),
            rules: rules.clone(),
        }))
    }

    /// Where the keys come from, for hints.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a login by a token still stands: its key is there, and the same claims are asked for.
    pub(crate) fn stands(&self, fingerprint: Fingerprint) -> bool {
        self.keys
            .iter()
            .any(|key| self.fingerprint(key) == fingerprint)
    }

    /// Of the key and of what was asked of the token.
    fn fingerprint(&self, key: &Key) -> Fingerprint {
        let JwtConfig {
            keys_file: _,
            issuer,
            audience,
            user_claim,
            client_id_claim,
            groups_claim,
            acl_claim,
            leeway_s: _,
        } = &self.rules;
        let texts = [
            issuer,
            audience,
            user_claim,
            client_id_claim,
            groups_claim,
            acl_claim,
        ];
        key.thumbprint.with(&texts.map(|text| text.as_bytes()))
    }

    /// Decides about a token.
    pub(crate) fn verify(
        &self,
        token: &[u8],
        client_id: &str,
        now: Timestamp,
    ) -> Result<TokenLogin, TokenFault> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
            // `none`, or an algorithm that nobody has heard of.
            ErrorKind::Json(_) => TokenFault::Algorithm,
            _ => TokenFault::Malformed,
        })?;
        if header.crit.is_some() {
            return Err(TokenFault::Critical);
        }
        let id = header.kid.as_deref();
        let mut has_algorithm = self.keys.matching(header.alg, None);
        if has_algorithm.next().is_none() {
            return Err(TokenFault::Algorithm);
        }
        let mut fault = TokenFault::UnknownKey;
        for key in self.keys.matching(header.alg, id) {
            match signed(token, key) {
                Ok(claims) => return self.judge(&claims, key, client_id, now),
                Err(found) => fault = found,
            }
        }
        Err(fault)
    }

    /// Looks at the claims of a token whose signature is right.
    fn judge(
        &self,
        claims: &Map<String, Value>,
        key: &Key,
        client_id: &str,
        now: Timestamp,
    ) -> Result<TokenLogin, TokenFault> {
        let rules = &self.rules;
        let expires_at = claims::times(claims, rules.leeway_s, now)?;
        claims::check_issuer(claims, &rules.issuer)?;
        claims::check_audience(claims, &rules.audience)?;
        let user = claims::user(claims, &rules.user_claim)?;
        claims::check_client(claims, &rules.client_id_claim, client_id)?;
        let attributes = Attributes {
            groups: claims::groups(claims, &rules.groups_claim)?,
            fields: Box::default(),
            rules: claims::rules(claims, &rules.acl_claim)?,
        };
        Ok(TokenLogin {
            user,
            attributes,
            expires_at,
            fingerprint: self.fingerprint(key),
        })
    }
}

/// The claims of a token that `key` has signed. They are judged here and not by the crate, which reads the system's clock.
fn signed(token: &[u8], key: &Key) -> Result<Map<String, Value>, TokenFault> {
    let mut validation = Validation::new(key.algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let decoded = jsonwebtoken::decode(token, &key.key, &validation);
    decoded
        .map(|decoded| decoded.claims)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenFault::Signature,
            ErrorKind::InvalidAlgorithm => TokenFault::Algorithm,
            _ => TokenFault::Malformed,
        })
}

/// Whether a password is meant as a token: three parts in base64url, the first of which is a JSON object with an algorithm. The last
/// may be empty, as without a signature.
pub(crate) fn looks_like_token(password: &[u8]) -> bool {
    let mut parts = password.split(|byte| *byte == b'.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is_encoded = |part: &[u8]| {
        let is_sign = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        part.iter().all(is_sign)
    };
    if header.is_empty() || !is_encoded(payload) || !is_encoded(signature) {
        return false;
    }
    let header = BASE64_URL.decode(header).ok();
    let header = header.and_then(|header| serde_json::from_slice::<Value>(&header).ok());
    header.is_some_and(|header| header.get("alg").is_some_and(Value::is_string))
}

/// Why a token lets nobody in; each names the key that would change it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum TokenFault {
    /// Not a compact JWS with an object in it.
    #[error("the token is no JWT")]
    Malformed,
    /// No key is for this algorithm.
    #[error(
        "its algorithm is not HS256, RS256, ES256 or EdDSA, or no key in auth.jwt.keys_file is for it"
    )]
    Algorithm,
    /// No key has this id.
    #[error("no key in auth.jwt.keys_file has its kid and is for its algorithm")]
    UnknownKey,
    /// RFC 7515 section 4.1.11.
    #[error("its header has crit, and no extension is known")]
    Critical,
    /// Nobody whose key is known has signed it.
    #[error("its signature is not by a key in auth.jwt.keys_file")]
    Signature,
    /// There must be an end.
    #[error("it has no exp, or one that is no number")]
    NoExpiry,
    /// Too late.
    #[error("it has expired (auth.jwt.leeway_s allows for clocks that differ)")]
    Expired,
    /// Too early, or not a time.
    #[error("it is not valid yet, by nbf (auth.jwt.leeway_s allows for clocks that differ)")]
    NotYet,
    /// Somebody else's.
    #[error("its iss is not auth.jwt.issuer")]
    Issuer,
    /// For somebody else.
    #[error("its aud has not auth.jwt.audience")]
    Audience,
    /// Nobody's.
    #[error(
        "the claim that auth.jwt.user_claim names is no user name (1 to 256 bytes, no control characters)"
    )]
    User,
    /// For another client.
    #[error("the claim that auth.jwt.client_id_claim names is not the client identifier")]
    ClientId,
    /// Groups that are none.
    #[error("the claim that auth.jwt.groups_claim names is not a list of at most 100 group names")]
    Groups,
    /// Rules that are none.
    #[error(
        "the claim that auth.jwt.acl_claim names is not an object with lists of topic filters: publish, subscribe, all"
    )]
    Acl,
}

impl TokenFault {
    /// Whether somebody whose key is known made the token.
    pub(crate) fn is_of_signed_token(self) -> bool {
        !matches!(
            self,
            Self::Malformed | Self::Algorithm | Self::UnknownKey | Self::Critical | Self::Signature
        )
    }
}

#[cfg(test)]
mod tests;
