//! The keys that tokens are signed with: a JSON Web Key Set (RFC 7517) from a file.
//!
//! Promises:
//! - It fails closed: a file that is absent, no JWKS, without a usable key, or with a key of ours that is weak or wrong is an error;
//!   so is a private key, and a file with secrets (`oct`) that others can read.
//! - A key has one algorithm, which follows from its type (and `alg`, which must agree): `oct` HS256, `RSA` RS256, `EC` on P-256 ES256,
//!   `OKP` with Ed25519 EdDSA. Keys of other algorithms and uses are passed over, as RFC 7517 section 5 wants it.
//! - No error shows what a key holds.
//!
//! Does not know: tokens.

use crate::fingerprint::Fingerprint;
use crate::password::check_private;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};

/// Keys, never none.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// Keys that were passed over.
    pub(super) others: usize,
}

/// A key that tokens may be signed with.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    /// Of the key itself: another id for the same key changes nothing.
    pub(super) thumbprint: Fingerprint,
}

impl KeySet {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is no JWKS, or has keys that must not be used.
    pub(super) fn load(path: &Path) -> Result<Self, KeysFileError> {
        let unreadable = |source| KeysFileError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let file = fs::File::open(path).map_err(unreadable)?;
        let text = std::io::read_to_string(&file).map_err(unreadable)?;
        let (set, has_secrets) = Self::parse(&text, path)?;
        if has_secrets {
            let metadata = file.metadata().map_err(unreadable)?;
            check_private(path, &metadata).map_err(|_| KeysFileError::OpenToOthers {
                path: path.to_owned(),
            })?;
        }
        Ok(set)
    }

    fn parse(text: &str, path: &Path) -> Result<(Self, bool), KeysFileError> {
        let path = || path.to_owned();
        let document: Value =
            serde_json::from_str(text).map_err(|error| KeysFileError::NotJson {
                path: path(),
                line: error.line(),
                column: error.column(),
            })?;
        let keys = document.get("keys").and_then(Value::as_array);
        let Some(keys) = keys else {
            return Err(KeysFileError::NoSet { path: path() });
        };
        if keys.len() > KEYS_MAX {
            return Err(KeysFileError::TooMany { path: path() });
        }
        let mut set = Self {
            keys: Vec::new(),
            others: 0,
        };
        let (mut faults, mut has_secrets) = (Vec::new(), false);
        for (index, key) in keys.iter().enumerate() {
            let read = key.as_object().ok_or(KeyFault::NoObject).and_then(read_key);
            match read {
                Ok(Some(key)) if set.has(&key) => faults.push((index, KeyFault::DuplicateId)),
                Ok(Some(key)) => {
                    has_secrets |= key.algorithm == Algorithm::HS256;
                    set.keys.push(key);
                }
                Ok(None) => set.others += 1,
                Err(fault) => faults.push((index, fault)),
            }
        }
        if !faults.is_empty() {
            let path = path();
            return Err(KeysFileError::Keys { path, faults });
        }
        match set.keys.is_empty() {
            true => Err(KeysFileError::NoKeys { path: path() }),
            false => Ok((set, has_secrets)),
        }
    }

    /// Whether a key with the same id, and for the same algorithm, is there.
    fn has(&self, key: &Key) -> bool {
        let is_same = |other: &Key| other.id == key.id && other.algorithm == key.algorithm;
        key.id.is_some() && self.keys.iter().any(is_same)
    }

    /// The keys that a token may be signed with: those of its algorithm and, if it names one, with its id.
    pub(super) fn matching(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| {
            key.algorithm == algorithm && id.is_none_or(|id| key.id.as_deref() == Some(id))
        })
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}

/// `None` for a key that is for something else.
fn read_key(key: &Map<String, Value>) -> Result<Option<Key>, KeyFault> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let is_for_signatures = key.get("use").is_none_or(|purpose| purpose == "sig");
    let verifies = key.get("key_ops").is_none_or(|operations| {
        let operations = operations.as_array().into_iter().flatten();
        operations
            .into_iter()
            .any(|operation| operation == "verify")
    });
    if !is_for_signatures || !verifies {
        return Ok(None);
    }
    let bytes = |name: &'static str| {
        let text = text(name).ok_or(KeyFault::Member(name))?;
        BASE64_URL.decode(text).map_err(|_| KeyFault::Member(name))
    };
    let algorithm = match (text("kty"), text("crv")) {
        (None, _) => return Err(KeyFault::Member("kty")),
        (Some("oct"), _) => Algorithm::HS256,
        (Some("RSA"), _) => Algorithm::RS256,
        (Some("EC"), Some("P-256")) => Algorithm::ES256,
        (Some("OKP"), Some("Ed25519")) => Algorithm::EdDSA,
        _ => return Ok(None),
    };
    match key.get("alg").map(Value::as_str) {
        None => {}
        Some(Some("HS256")) if algorithm == Algorithm::HS256 => {}
        Some(Some("RS256")) if algorithm == Algorithm::RS256 => {}
        Some(Some("ES256")) if algorithm == Algorithm::ES256 => {}
        Some(Some("EdDSA" | "Ed25519")) if algorithm == Algorithm::EdDSA => {}
        // HS256 with an RSA key and the like: somebody made a mistake, or wants us to.
        Some(Some("HS256" | "RS256" | "ES256" | "EdDSA" | "Ed25519")) => {
            return Err(KeyFault::Algorithm);
        }
        Some(Some(_)) => return Ok(None),
        Some(None) => return Err(KeyFault::Member("alg")),
    }
    if algorithm != Algorithm::HS256 && key.contains_key("d") {
        return Err(KeyFault::Private);
    }
    let id = match key.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(KeyFault::Member("kid")),
    };
    let (key, thumbprint) = match algorithm {
        Algorithm::HS256 => {
            let secret = bytes("k")?;
            if secret.len() < SECRET_BYTES_MIN {
                return Err(KeyFault::ShortSecret(secret.len()));
            }
            let thumbprint = Fingerprint::of(&[b"oct", &secret]);
            (DecodingKey::from_secret(&secret), thumbprint)
        }
        Algorithm::RS256 => rsa(&bytes("n")?, &bytes("e")?)?,
        Algorithm::ES256 => p256(&bytes("x")?, &bytes("y")?)?,
        _ => ed25519(&bytes("x")?)?,
    };
    Ok(Some(Key {
        id,
        algorithm,
        key,
        thumbprint,
    }))
}

fn rsa(n: &[u8], e: &[u8]) -> Result<(DecodingKey, Fingerprint), KeyFault> {
    let significant = n.iter().position(|byte| *byte != 0).unwrap_or(n.len());
    let n = n.get(significant..).unwrap_or_default();
    let zeros = n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = n.len() * 8 - zeros;
    if !RSA_BITS.contains(&bits) {
        return Err(KeyFault::RsaBits(bits));
    }
    let components = RsaPublicKeyComponents { n, e };
    let is_key = components
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .is_ok();
    is_key
        .then(|| {
            let thumbprint = Fingerprint::of(&[b"RSA", n, e]);
            (DecodingKey::from_rsa_raw_components(n, e), thumbprint)
        })
        .ok_or(KeyFault::NoKey)
}

fn p256(x: &[u8], y: &[u8]) -> Result<(DecodingKey, Fingerprint), KeyFault> {
    let point = [&[4], x, y].concat();
    let is_key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point)
        .parse()
        .is_ok();
    match is_key && x.len() == 32 && y.len() == 32 {
        true => Ok((
            DecodingKey::from_ec_der(&point),
            Fingerprint::of(&[b"EC", &point]),
        )),
        false => Err(KeyFault::NoKey),
    }
}

fn ed25519(x: &[u8]) -> Result<(DecodingKey, Fingerprint), KeyFault> {
    match x.len() == 32 && UnparsedPublicKey::new(&ED25519, x).parse().is_ok() {
        true => Ok((DecodingKey::from_ed_der(x), Fingerprint::of(&[b"OKP", x]))),
        false => Err(KeyFault::NoKey),
    }
}

/// What keeps a key file from being used.
#[derive(Debug, thiserror::Error)]
pub enum KeysFileError {
    /// It cannot be opened or read, or is not UTF-8.
    #[error("key file {} (auth.jwt.keys_file) cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It has secrets (`oct`), and others may open it.
    #[error("key file {} (auth.jwt.keys_file) has an \"oct\" key, which is a secret, and is open to others; run: chmod 600 {}", path.display(), path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
    },
    /// It is not JSON.
    #[error("{}:{line}:{column}: not JSON; auth.jwt.keys_file needs a JWKS, {{\"keys\":[...]}}", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// It has no array `keys`.
    #[error("{}: auth.jwt.keys_file needs a JWKS, {{\"keys\":[...]}}", path.display())]
    NoSet {
        /// The file.
        path: PathBuf,
    },
    /// More keys than are tried for a token.
    #[error("{}: more than {KEYS_MAX} keys", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// Keys that must not be used, by their place in the array, from 0.
    #[error("{}", each_key(path, faults))]
    Keys {
        /// The file.
        path: PathBuf,
        /// All of them.
        faults: Vec<(usize, KeyFault)>,
    },
    /// It has keys for other things only, or none.
    #[error("{} has no key to verify HS256, RS256, ES256 or EdDSA signatures with", path.display())]
    NoKeys {
        /// The file.
        path: PathBuf,
    },
}

/// What is wrong with a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyFault {
    /// Not `{...}`.
    #[error("a key is an object")]
    NoObject,
    /// A member that is absent or not what RFC 7518 says.
    #[error("needs a whole \"{0}\"")]
    Member(&'static str),
    /// Weaker than SHA-256.
    #[error("the secret has {0} bytes; HS256 needs 32 random ones at least")]
    ShortSecret(usize),
    /// Too weak, or too much work.
    #[error("an RSA key of {0} bits; 2048 to 8192 are taken")]
    RsaBits(usize),
    /// Numbers that are no key of their type.
    #[error("is not a valid key of its type")]
    NoKey,
    /// `alg` is for another type.
    #[error("its \"alg\" is not one for its \"kty\"")]
    Algorithm,
    /// `d` has no place in a broker.
    #[error("is a private key: put the public one here, and keep \"d\" with whoever signs tokens")]
    Private,
    /// Two keys that a token cannot tell apart.
    #[error("another key of its type has the same \"kid\"")]
    DuplicateId,
}

fn each_key(path: &Path, faults: &[(usize, KeyFault)]) -> String {
    let show = |(index, fault): &(usize, KeyFault)| {
        let path = path.display();
        format!("{path}: keys[{index}] {fault} (auth.jwt.keys_file)")
    };
    faults.iter().map(show).collect::<Vec<_>>().join("\n")
}

/// Without an id in the token, all keys of its algorithm are tried.
const KEYS_MAX: usize = 100;
/// RFC 7518 section 3.2.
const SECRET_BYTES_MIN: usize = 32;
/// RFC 7518 section 3.3, and what the verification takes.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
