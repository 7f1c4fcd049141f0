//! What is in a file: certificates, requests, lists of revoked certificates, keys. Of a private key only its public half is said.
//!
//! Does not know: whether any of it is to be trusted. Signatures of requests are checked, since that says whether they can be used.

use crate::inspect::{fingerprint_sha256, name_text, not_after_unix_s};
use crate::request::printable;
use crate::{CertsError, Held, Kind, PublicKey, Request, RevocationList, clock, serial};
use rcgen::{KeyPair, PublicKeyData as _};
use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

/// One thing in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Facts {
    /// A certificate.
    Certificate(CertificateFacts),
    /// A certificate signing request.
    Request(RequestFacts),
    /// A list of revoked certificates.
    RevocationList(RevocationList),
    /// A private key.
    PrivateKey(KeyFacts),
    /// A public key.
    PublicKey(KeyFacts),
    /// Something else, or something damaged.
    Other {
        /// What it says it is.
        label: String,
        /// Why no more can be said.
        problem: String,
    },
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateFacts {
    /// Whom it names.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// Its serial, lower-case hexadecimal.
    pub serial: String,
    /// What it is for, if it is of a kind that is issued here.
    pub kind: Option<Kind>,
    /// Whether it may issue others.
    pub is_authority: bool,
    /// To which names an authority is held.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permitted: Vec<String>,
    /// Its alternative names.
    pub names: Vec<String>,
    /// What its key may do.
    pub usage: Vec<String>,
    /// Kind of its key, such as `p256`.
    pub key_type: String,
    /// When its validity begins, in seconds since 1970.
    pub not_before: i64,
    /// When its validity ends, in seconds since 1970.
    pub not_after: i64,
    /// Whole days until then; negative when they are over.
    pub days_left: i64,
    /// SHA-256 over its DER form.
    pub fingerprint: String,
    /// SHA-256 over its public key (`SubjectPublicKeyInfo`).
    pub public_key_sha256: String,
    /// How many bytes it costs in a handshake.
    pub bytes: usize,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestFacts {
    /// Whom it names.
    pub common_name: Option<String>,
    /// The alternative names that it asks for.
    pub names: Vec<String>,
    /// Kind of its key, such as `p256`.
    pub key_type: Option<String>,
    /// What a device's certificate for it would leave out.
    pub not_granted: Vec<String>,
    /// Why it would not be signed for a device.
    pub problem: Option<String>,
}

/// What can be said of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyFacts {
    /// Its kind, such as `p256`.
    pub key_type: String,
    /// SHA-256 over the public key (`SubjectPublicKeyInfo`).
    pub public_key_sha256: String,
}

/// Everything in a file, PEM or DER.
///
/// # Errors
/// [`CertsError::NothingKnown`] when it is neither.
pub fn facts(bytes: &[u8]) -> Result<Vec<Facts>, CertsError> {
    if bytes.first() == Some(&0x30) {
        return Ok(vec![of_der(bytes)?]);
    }
    let blocks = Pem::iter_from_buffer(bytes);
    let facts: Vec<Facts> = blocks
        .filter_map(Result::ok)
        .map(|block| of_block(&block))
        .collect();
    if facts.is_empty() {
        return Err(CertsError::NothingKnown("holds no PEM block and no DER"));
    }
    Ok(facts)
}

impl CertificateFacts {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`CertsError::NotACertificate`].
    pub fn of_der(der: &[u8]) -> Result<Self, CertsError> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| CertsError::NotACertificate(error.to_string()))?;
        Ok(Self::of(&certificate))
    }

    fn of(certificate: &X509Certificate<'_>) -> Self {
        let names = alternative_names(certificate);
        let not_after = not_after_unix_s(certificate);
        let left_s = not_after - clock::now_unix_s();
        let key = certificate.public_key();
        Self {
            subject: printable(&certificate.subject().to_string()),
            issuer: printable(&certificate.issuer().to_string()),
            serial: serial::text(certificate.raw_serial()),
            kind: Held::kind_of(certificate, &names),
            is_authority: certificate.is_ca(),
            permitted: permitted(certificate),
            usage: usage(certificate),
            key_type: key_type(key),
            not_before: certificate.validity().not_before.timestamp(),
            not_after,
            days_left: left_s.div_euclid(clock::DAY_S),
            fingerprint: fingerprint_sha256(certificate.as_raw()),
            public_key_sha256: fingerprint_sha256(key.raw),
            bytes: certificate.as_raw().len(),
            names,
        }
    }
}

fn of_block(block: &Pem) -> Facts {
    let der = &block.contents;
    let other = |problem: String| Facts::Other {
        label: printable(&block.label),
        problem,
    };
    match block.label.as_str() {
        "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => CertificateFacts::of_der(der)
            .map_or_else(|error| other(error.to_string()), Facts::Certificate),
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Facts::Request(of_request(der)),
        "X509 CRL" => RevocationList::parse(der)
            .map_or_else(|error| other(error.to_string()), Facts::RevocationList),
        "PUBLIC KEY" => match SubjectPublicKeyInfo::from_der(der) {
            Ok((_, key)) => Facts::PublicKey(KeyFacts {
                key_type: key_type(&key),
                public_key_sha256: fingerprint_sha256(der),
            }),
            Err(_) => other("it cannot be read".to_owned()),
        },
        "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" => of_private_key(der).map_or_else(
            || other("it is damaged, or of a kind that is not read here".to_owned()),
            Facts::PrivateKey,
        ),
        "ENCRYPTED PRIVATE KEY" => {
            other("it is encrypted: `openssl pkey -in FILE` decrypts it".to_owned())
        }
        "EC PARAMETERS" => other("the curve of the key that follows".to_owned()),
        _ => other("it is of a kind that is not read here".to_owned()),
    }
}

fn of_der(der: &[u8]) -> Result<Facts, CertsError> {
    if let Ok(certificate) = CertificateFacts::of_der(der) {
        return Ok(Facts::Certificate(certificate));
    }
    if let Ok(list) = RevocationList::parse(der) {
        return Ok(Facts::RevocationList(list));
    }
    if let Some(key) = of_private_key(der) {
        return Ok(Facts::PrivateKey(key));
    }
    if let Ok((&[], key)) = SubjectPublicKeyInfo::from_der(der) {
        return Ok(Facts::PublicKey(KeyFacts {
            key_type: key_type(&key),
            public_key_sha256: fingerprint_sha256(der),
        }));
    }
    match Request::parse(der) {
        Err(crate::RequestError::Malformed(_) | crate::RequestError::TooLong) => {}
        _ => return Ok(Facts::Request(of_request(der))),
    }
    // PKCS #12 is a sequence that begins with the number 3.
    let begins_with_3 = der.windows(3).take(6).any(|window| window == [2, 1, 3]);
    Err(CertsError::NothingKnown(if begins_with_3 {
        "seems to be PKCS #12: `openssl pkcs12 -in FILE -nodes` unpacks it"
    } else {
        "is DER of a kind that is not read here"
    }))
}

fn of_request(der: &[u8]) -> RequestFacts {
    let request = match Request::parse(der) {
        Ok(request) => request,
        Err(error) => {
            return RequestFacts {
                common_name: None,
                names: Vec::new(),
                key_type: None,
                not_granted: Vec::new(),
                problem: Some(error.to_string()),
            };
        }
    };
    let id = request.common_name().unwrap_or_default();
    let checked = request.check(id, Kind::Device);
    let names = request.alternative_names().iter();
    RequestFacts {
        common_name: request.common_name().map(printable),
        names: names.map(crate::RequestedName::words).collect(),
        key_type: Some(request.public_key().type_name().to_owned()),
        problem: checked.as_ref().err().map(ToString::to_string),
        not_granted: checked.unwrap_or_default(),
    }
}

fn of_private_key(der: &[u8]) -> Option<KeyFacts> {
    let key = KeyPair::try_from(der).ok()?;
    let public_key = key.subject_public_key_info();
    Some(KeyFacts {
        key_type: PublicKey::from_spki(&public_key).map_or_else(
            |_| "not accepted by brokers".to_owned(),
            |key| key.type_name().to_owned(),
        ),
        public_key_sha256: fingerprint_sha256(&public_key),
    })
}

/// Kind of a public key, also of one that is not accepted.
fn key_type(key: &SubjectPublicKeyInfo<'_>) -> String {
    match PublicKey::from_spki(key.raw) {
        Ok(key) => key.type_name().to_owned(),
        Err(_) => format!("{}, not accepted by brokers", key.algorithm.algorithm),
    }
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| &extension.value.general_names);
    let names = names.into_iter().flatten();
    names
        .map(|name| name_text(name).map_or_else(|| format!("{name}"), |text| printable(&text)))
        .collect()
}

fn usage(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut usage = Vec::new();
    if let Ok(Some(extension)) = certificate.key_usage() {
        usage.push(extension.value.to_string());
    }
    if let Ok(Some(extension)) = certificate.extended_key_usage() {
        let value = extension.value;
        let known = [
            (value.any, "anyExtendedKeyUsage"),
            (value.server_auth, "serverAuth"),
            (value.client_auth, "clientAuth"),
            (value.code_signing, "codeSigning"),
            (value.email_protection, "emailProtection"),
            (value.time_stamping, "timeStamping"),
            (value.ocsp_signing, "OCSPSigning"),
        ];
        let known = known.into_iter().filter(|(has, _)| *has);
        usage.extend(known.map(|(_, name)| name.to_owned()));
        usage.extend(value.other.iter().map(ToString::to_string));
    }
    usage
}

/// The names that an authority may issue for.
fn permitted(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut extensions = certificate.extensions().iter();
    let constraints = extensions.find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::NameConstraints(constraints) => Some(constraints),
        _ => None,
    });
    let subtrees = constraints.and_then(|constraints| constraints.permitted_subtrees.as_ref());
    subtrees
        .into_iter()
        .flatten()
        .map(|subtree| match &subtree.base {
            GeneralName::IPAddress(bytes) => network(bytes),
            name => name_text(name).map_or_else(|| format!("{name}"), |text| printable(&text)),
        })
        .collect()
}

/// An address and its mask, as name constraints have them.
fn network(bytes: &[u8]) -> String {
    let (address, mask) = bytes.split_at(bytes.len() / 2);
    let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let address = name_text(&GeneralName::IPAddress(address));
    format!("{}/{ones}", address.unwrap_or_default())
}
