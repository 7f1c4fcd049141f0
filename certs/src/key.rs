//! Keys: which kinds are made, and public keys that others made.
//!
//! A [`PublicKey`] in hand is of a kind that the broker's TLS accepts.

use crate::CertsError;
use aws_lc_rs::signature::Ed25519KeyPair;
use rcgen::{KeyPair, SignatureAlgorithm, SubjectPublicKeyInfo};
use std::fmt;
use std::str::FromStr;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo as Spki;

/// The kinds of keys that are made here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA on P-256: what every TLS stack of devices and every secure element has.
    #[default]
    P256,
    /// ECDSA on P-384.
    P384,
    /// Ed25519: the smallest, unknown to mbedTLS and with it to ESP-IDF.
    Ed25519,
    /// RSA of 2,048 bits: for what knows nothing else.
    Rsa2048,
}

impl KeyType {
    /// Every kind, the default first.
    pub const ALL: [Self; 4] = [Self::P256, Self::P384, Self::Ed25519, Self::Rsa2048];

    /// As it is written on the command line and in the inventory.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Ed25519 => "ed25519",
            Self::Rsa2048 => "rsa2048",
        }
    }

    /// What speaks against giving a device such a key, if anything does.
    #[must_use]
    pub const fn device_warning(self) -> Option<&'static str> {
        match self {
            Self::P256 => None,
            Self::P384 => {
                Some("p384 is several times slower than p256 on microcontrollers, and larger")
            }
            Self::Ed25519 => Some(
                "mbedTLS, and with it ESP-IDF and Zephyr, refuses Ed25519 certificates: devices need wolfSSL, OpenSSL or rustls",
            ),
            Self::Rsa2048 => Some(
                "an RSA certificate has twice the bytes of a p256 one, and a handshake takes seconds on a microcontroller",
            ),
        }
    }

    /// A new private key.
    pub(crate) fn generate(self) -> Result<KeyPair, CertsError> {
        let key = KeyPair::generate_for(self.algorithm())?;
        if self != Self::Ed25519 {
            return Ok(key);
        }
        // OpenSSL 3.0 cannot read PKCS #8 version 2, which has the public key besides (RFC 5958).
        let version_1 = Ed25519KeyPair::from_pkcs8(key.serialized_der())
            .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?
            .to_pkcs8v1()
            .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Ok(KeyPair::try_from(version_1.as_ref())?)
    }

    fn algorithm(self) -> &'static SignatureAlgorithm {
        match self {
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::Ed25519 => &rcgen::PKCS_ED25519,
            Self::Rsa2048 => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for KeyType {
    type Err = CertsError;

    fn from_str(text: &str) -> Result<Self, CertsError> {
        Self::ALL
            .into_iter()
            .find(|key_type| key_type.name() == text)
            .ok_or_else(|| CertsError::KeyType(text.to_owned()))
    }
}

/// A public key that a certificate can be issued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    info: SubjectPublicKeyInfo,
    type_name: String,
}

impl PublicKey {
    /// Reads a DER `SubjectPublicKeyInfo`, as a certificate or `openssl pkey -pubout -outform DER` has it.
    ///
    /// # Errors
    /// [`CertsError::PublicKey`] when it is none, or of a kind or size that is not accepted.
    pub fn from_spki(der: &[u8]) -> Result<Self, CertsError> {
        let (_, spki) = Spki::from_der(der).map_err(|error| refused(error.to_string()))?;
        let parsed = spki
            .parsed()
            .map_err(|error| refused(format!("it cannot be read ({error})")))?;
        // An RSA modulus is positive and starts with a zero byte, which `key_size` knows to leave out.
        let type_name = match (parsed, spki.algorithm.algorithm.to_id_string().as_str()) {
            (Parsed::RSA(key), _) => match key.key_size() {
                size @ 2_048..=4_096 => format!("rsa{size}"),
                size => {
                    return Err(refused(format!(
                        "RSA of {size} bits is not accepted: 2048 to 4096 are"
                    )));
                }
            },
            (Parsed::EC(point), _) if point.key_size() == 256 => "p256".to_owned(),
            (Parsed::EC(point), _) if point.key_size() == 384 => "p384".to_owned(),
            (_, ED25519) => "ed25519".to_owned(),
            _ => {
                return Err(refused(
                    "its kind is not accepted: P-256, P-384, Ed25519 and RSA are".to_owned(),
                ));
            }
        };
        let info = SubjectPublicKeyInfo::from_der(der).map_err(|_| {
            refused("its kind is not accepted: P-256, P-384, Ed25519 and RSA are".to_owned())
        })?;
        Ok(Self { info, type_name })
    }

    /// Reads the first block of a PEM public key (`BEGIN PUBLIC KEY`).
    ///
    /// # Errors
    /// Those of [`from_spki`](Self::from_spki).
    pub fn from_pem(pem: &str) -> Result<Self, CertsError> {
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .map_err(|error| refused(error.to_string()))?;
        Self::from_spki(&block.contents)
    }

    /// The kind, as [`KeyType::name`] for those, and `rsa3072`, `rsa4096` and the like.
    #[must_use]
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    pub(crate) const fn info(&self) -> &SubjectPublicKeyInfo {
        &self.info
    }
}

const ED25519: &str = "1.3.101.112";

fn refused(problem: String) -> CertsError {
    CertsError::PublicKey(problem)
}
