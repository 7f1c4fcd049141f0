//! Certificate signing requests (PKCS #10, RFC 2986): what somebody wants certified, and which of it we grant.
//!
//! Invariants:
//! - Whoever made a [`Request`] held the private key: its signature is checked before anything else is believed.
//! - The key is one that brokers and devices verify: P-256, P-384, Ed25519, RSA of 2,048 to 4,096 bits.
//! - Nothing asked for is passed over: what [`Request::check`] does not grant it refuses, or names in its list. Names are
//!   refused (they are identities), decoration of the subject and extensions without power are named.
//!
//! Does not know: who may have which identity; the caller decides that, and with which one to call [`Request::check`].

use crate::{Authority, CertsError, Kind, Order, PublicKey, Signed, name};
use std::net::IpAddr;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Extension, X509Name};
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The longest request that is read; one with an RSA key of 4,096 bits and many names has a quarter of that.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// A request whose signature was checked.
#[derive(Debug)]
pub struct Request {
    public_key: PublicKey,
    common_name: Option<String>,
    alternative_names: Vec<RequestedName>,
    /// What else of the subject, the attributes and the extensions was asked for and has no power.
    decoration: Vec<String>,
    /// What was asked for and would have given power that a leaf never has.
    excess: Option<String>,
    usage: Usage,
    form: Form,
}

/// An alternative name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedName {
    /// A host.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A URI.
    Uri(String),
    /// Anything else, in words.
    Other(String),
}

/// How the request was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Text, between `BEGIN` and `END`.
    Pem,
    /// Binary.
    Der,
}

/// The extended key usages that were asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    is_limited: bool,
    client: bool,
    server: bool,
}

/// Why a request is not signed: one variant for each rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is longer than [`REQUEST_BYTES_MAX`].
    #[error("it is longer than {REQUEST_BYTES_MAX} bytes: a certificate signing request is not")]
    TooLong,
    /// The PEM text holds something else.
    #[error(
        "it is a {0} and not a CERTIFICATE REQUEST: make one with `openssl req -new -key KEY -subj /CN=ID`"
    )]
    NotARequest(String),
    /// It can be read neither as PEM nor as DER.
    #[error(
        "it is no certificate signing request in PEM or DER ({0}): make one with `openssl req -new -key KEY -subj /CN=ID`"
    )]
    Malformed(&'static str),
    /// The signature does not belong to what is signed, or to the key in it.
    #[error(
        "its signature is wrong: it was damaged, or made without the private key; make a new one on the device"
    )]
    BadSignature,
    /// The signature is of a kind that is not accepted.
    #[error("it is signed in a way that is not accepted: sign it with SHA-256 or SHA-384")]
    SignatureAlgorithm,
    /// An RSA key that is too short, or absurdly long.
    #[error("its RSA key has {0} bits: use P-256, or RSA with 2,048 to 4,096")]
    RsaBits(usize),
    /// An elliptic curve that brokers and devices do not verify.
    #[error("its key is on the curve {0}: use P-256 (prime256v1), P-384 or Ed25519")]
    Curve(String),
    /// Another kind of key.
    #[error("its key is of a kind that is not accepted ({0}): use P-256, P-384, Ed25519 or RSA")]
    KeyType(String),
    /// More than one common name.
    #[error("it has {0} common names: a certificate has one identity, put one CN into the subject")]
    CommonNames(usize),
    /// A common name in an encoding that cannot be read as text.
    #[error("its common name cannot be read: encode it as UTF8String or PrintableString")]
    CommonNameEncoding,
    /// It names nobody, and nobody was named beside it.
    #[error("it has no common name: put the device's id into its CN")]
    NoCommonName,
    /// It is for somebody else than it would be issued to.
    #[error("it is made out to {found:?}, not {expected:?}: make one with CN={expected}")]
    OtherCommonName {
        /// Whom the request names.
        found: String,
        /// To whom it would be issued.
        expected: String,
    },
    /// An alternative name that is not that of whom it would be issued to.
    #[error(
        "it asks for the alternative name {found}, which {expected:?} does not get: leave it out, or ask for {granted}"
    )]
    AlternativeName {
        /// What was asked for.
        found: String,
        /// To whom it would be issued.
        expected: String,
        /// What it gets.
        granted: String,
    },
    /// A usage or property that is never given to a leaf.
    #[error("it asks for {0}, which is not granted: leave that out")]
    Excess(String),
    /// It asks for extended key usages, but not for the one it would get.
    #[error("it asks for other usages than {0}, the one it would get: ask for that, or for none")]
    Purpose(&'static str),
}

impl Request {
    /// Reads a request, PEM or DER, and checks its signature and its key.
    ///
    /// # Errors
    /// A [`RequestError`] for the first rule that it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLong);
        }
        // DER begins with a SEQUENCE, whose tag is the character 0.
        if bytes.first() == Some(&0x30) {
            return Self::parse_der(bytes, Form::Der);
        }
        let (rest, block) = x509_parser::pem::parse_x509_pem(bytes)
            .map_err(|_| RequestError::Malformed("neither begins as one"))?;
        if !matches!(
            block.label.as_str(),
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST"
        ) {
            return Err(RequestError::NotARequest(printable(&block.label)));
        }
        if rest.windows(11).any(|window| window == b"-----BEGIN ") {
            return Err(RequestError::Malformed("it is followed by another block"));
        }
        Self::parse_der(&block.contents, Form::Pem)
    }

    fn parse_der(der: &[u8], form: Form) -> Result<Self, RequestError> {
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|_| RequestError::Malformed("its structure is another"))?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed("something follows it"));
        }
        let info = &request.certification_request_info;
        let key_type = key_type(&info.subject_pki)?;
        check_signature(&request)?;
        let public_key = PublicKey::from_spki(info.subject_pki.raw)
            .map_err(|_| RequestError::KeyType(key_type))?;
        let mut parsed = Self {
            public_key,
            common_name: common_name(&info.subject)?,
            alternative_names: Vec::new(),
            decoration: subject_decoration(&info.subject),
            excess: None,
            usage: Usage::default(),
            form,
        };
        let mut lists = 0;
        for attribute in info.iter_attributes() {
            match attribute.parsed_attribute() {
                ParsedCriAttribute::ExtensionRequest(requested) => {
                    lists += 1;
                    for extension in &requested.extensions {
                        parsed.take_extension(extension)?;
                    }
                }
                // Its text is a password and stays unsaid.
                ParsedCriAttribute::ChallengePassword(_) => {
                    parsed.decoration.push("a challenge password".to_owned());
                }
                ParsedCriAttribute::UnsupportedAttribute => {
                    parsed
                        .decoration
                        .push(format!("attribute {}", attribute.oid));
                }
            }
        }
        if lists > 1 {
            return Err(RequestError::Malformed("it has two lists of extensions"));
        }
        Ok(parsed)
    }

    /// The key to certify.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Whom the request names.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// Whom the request names.
    ///
    /// # Errors
    /// [`RequestError::NoCommonName`].
    pub fn id(&self) -> Result<&str, RequestError> {
        self.common_name().ok_or(RequestError::NoCommonName)
    }

    /// The alternative names that it asks for, in its order.
    #[must_use]
    pub fn alternative_names(&self) -> &[RequestedName] {
        &self.alternative_names
    }

    /// How it was encoded; an answer has the same form.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// Makes the request one for `id`, whatever its common name: the operator knows better. The old name is then named
    /// as not granted.
    #[must_use]
    pub fn made_out_to(mut self, id: &str) -> Self {
        if let Some(found) = self.common_name.replace(id.to_owned())
            && found != id
        {
            self.decoration.push(format!("the common name {found:?}"));
        }
        self
    }

    /// Checks that a certificate of `kind` for `id` gives what was asked for, or no less than an identity needs; returns
    /// what was asked for and is not granted, in words.
    ///
    /// # Errors
    /// The rule of [`RequestError`] that refuses it.
    pub fn check(&self, id: &str, kind: Kind) -> Result<Vec<String>, RequestError> {
        match &self.common_name {
            None => return Err(RequestError::NoCommonName),
            Some(found) if found != id => {
                return Err(RequestError::OtherCommonName {
                    found: found.clone(),
                    expected: id.to_owned(),
                });
            }
            Some(_) => {}
        }
        if let Some(excess) = &self.excess {
            return Err(RequestError::Excess(excess.clone()));
        }
        let mut left_out = self.decoration.clone();
        self.check_usage(kind, &mut left_out)?;
        let granted = (kind != Kind::Server).then(|| name::client_uri(kind, id));
        for name in &self.alternative_names {
            match name {
                RequestedName::Uri(uri) if Some(uri) == granted.as_ref() => {}
                // Many tools repeat the common name here.
                RequestedName::Dns(text) if text == id => {
                    left_out.push(format!("the alternative name {}", name.words()));
                }
                _ => {
                    return Err(RequestError::AlternativeName {
                        found: name.words(),
                        expected: id.to_owned(),
                        granted: granted
                            .map_or_else(|| "none".to_owned(), |uri| format!("URI:{uri}")),
                    });
                }
            }
        }
        Ok(left_out)
    }

    fn check_usage(&self, kind: Kind, left_out: &mut Vec<String>) -> Result<(), RequestError> {
        let (gets, purpose, other, other_purpose) = match kind {
            Kind::Server => (
                self.usage.server,
                "serverAuth",
                self.usage.client,
                "clientAuth",
            ),
            Kind::Device | Kind::Claim | Kind::Service => (
                self.usage.client,
                "clientAuth",
                self.usage.server,
                "serverAuth",
            ),
        };
        if self.usage.is_limited && !gets {
            return Err(RequestError::Purpose(purpose));
        }
        if other {
            left_out.push(format!("the usage {other_purpose}"));
        }
        Ok(())
    }

    fn take_extension(&mut self, extension: &X509Extension<'_>) -> Result<(), RequestError> {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                let names = names.general_names.iter().map(RequestedName::of);
                self.alternative_names.extend(names);
            }
            ParsedExtension::KeyUsage(usage) => self.take_key_usage(usage),
            ParsedExtension::ExtendedKeyUsage(usage) => self.take_extended_key_usage(usage),
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                self.exceed("to be an authority (CA:TRUE)");
            }
            ParsedExtension::BasicConstraints(_) => {}
            ParsedExtension::ParseError { .. } => {
                return Err(RequestError::Malformed("an extension cannot be read"));
            }
            _ if extension.critical => {
                self.exceed(&format!("the critical extension {}", extension.oid));
            }
            _ => self.decoration.push(format!("extension {}", extension.oid)),
        }
        Ok(())
    }

    fn take_key_usage(&mut self, usage: &KeyUsage) {
        if usage.key_cert_sign() || usage.crl_sign() {
            self.exceed("a key usage of authorities (keyCertSign, cRLSign)");
        }
        let others = [
            (usage.non_repudiation(), "nonRepudiation"),
            (usage.key_encipherment(), "keyEncipherment"),
            (usage.data_encipherment(), "dataEncipherment"),
            (usage.key_agreement(), "keyAgreement"),
            (usage.encipher_only(), "encipherOnly"),
            (usage.decipher_only(), "decipherOnly"),
        ];
        let others = others.iter().filter(|(asked, _)| *asked);
        self.decoration
            .extend(others.map(|(_, name)| format!("the usage {name}")));
    }

    fn take_extended_key_usage(&mut self, usage: &ExtendedKeyUsage<'_>) {
        self.usage.is_limited = true;
        self.usage.client |= usage.client_auth;
        self.usage.server |= usage.server_auth;
        if usage.any {
            self.exceed("every usage (anyExtendedKeyUsage)");
        }
        let others = [
            (usage.code_signing, "codeSigning"),
            (usage.email_protection, "emailProtection"),
            (usage.time_stamping, "timeStamping"),
            (usage.ocsp_signing, "OCSPSigning"),
        ];
        let others = others.iter().filter(|(asked, _)| *asked);
        self.decoration
            .extend(others.map(|(_, name)| format!("the usage {name}")));
        let unknown = usage.other.iter().map(|oid| format!("the usage {oid}"));
        self.decoration.extend(unknown);
    }

    fn exceed(&mut self, what: &str) {
        self.excess.get_or_insert_with(|| what.to_owned());
    }
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The certificate.
    pub signed: Signed,
    /// What was asked for and not granted, in words.
    pub left_out: Vec<String>,
}

impl Authority {
    /// Signs what `order` says for the key of `request`, if the request asks for that and nothing that it may not have.
    ///
    /// # Errors
    /// [`CertsError::Request`] with the rule of [`Request::check`] that it breaks, and those of [`sign`](Self::sign).
    pub fn sign_request(&self, request: &Request, order: &Order) -> Result<Granted, CertsError> {
        let left_out = request.check(order.id(), order.kind())?;
        let signed = self.sign(order, request.public_key())?;
        Ok(Granted { signed, left_out })
    }
}

impl RequestedName {
    fn of(name: &GeneralName<'_>) -> Self {
        match name {
            GeneralName::DNSName(text) => Self::Dns(printable(text)),
            GeneralName::URI(text) => Self::Uri(printable(text)),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                v4.or(v6).map_or_else(
                    |_| Self::Other("an address of odd length".to_owned()),
                    Self::Ip,
                )
            }
            GeneralName::RFC822Name(text) => Self::Other(format!("email:{}", printable(text))),
            GeneralName::DirectoryName(_) => Self::Other("a directory name".to_owned()),
            GeneralName::OtherName(oid, _) => Self::Other(format!("otherName {oid}")),
            GeneralName::RegisteredID(oid) => Self::Other(format!("RID:{oid}")),
            _ => Self::Other("of a kind that cannot be read".to_owned()),
        }
    }

    /// As openssl writes it.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Dns(text) => format!("DNS:{text}"),
            Self::Ip(address) => format!("IP:{address}"),
            Self::Uri(text) => format!("URI:{text}"),
            Self::Other(words) => words.clone(),
        }
    }
}

fn check_signature(request: &X509CertificationRequest<'_>) -> Result<(), RequestError> {
    const SHA1: [&str; 2] = ["1.2.840.113549.1.1.5", "1.3.14.3.2.29"];
    let algorithm = request.signature_algorithm.algorithm.to_id_string();
    if SHA1.contains(&algorithm.as_str()) {
        return Err(RequestError::SignatureAlgorithm);
    }
    request.verify_signature().map_err(|error| match error {
        x509_parser::error::X509Error::SignatureVerificationError => RequestError::BadSignature,
        _ => RequestError::SignatureAlgorithm,
    })
}

/// The kind of a public key, if we certify it.
fn key_type(key: &SubjectPublicKeyInfo<'_>) -> Result<String, RequestError> {
    const ED25519: &str = "1.3.101.112";
    let algorithm = key.algorithm.algorithm.to_id_string();
    match key.parsed() {
        Ok(ParsedKey::RSA(rsa)) => {
            let bits = bits(rsa.modulus);
            if (2_048..=4_096).contains(&bits) {
                Ok(format!("rsa{bits}"))
            } else {
                Err(RequestError::RsaBits(bits))
            }
        }
        Ok(ParsedKey::EC(point)) => {
            let parameters = key.algorithm.parameters.as_ref();
            let curve = parameters.and_then(|parameters| parameters.as_oid().ok());
            let curve = curve.map(|oid| oid.to_id_string()).unwrap_or_default();
            // Curve, name, bytes of an uncompressed point, the only form that every TLS stack reads.
            let (name, bytes) = match curve.as_str() {
                "1.2.840.10045.3.1.7" => ("p256", 65),
                "1.3.132.0.34" => ("p384", 97),
                "" => return Err(RequestError::Curve("given by its parameters".to_owned())),
                "1.3.132.0.35" => return Err(RequestError::Curve("P-521".to_owned())),
                "1.3.132.0.10" => return Err(RequestError::Curve("secp256k1".to_owned())),
                _ => return Err(RequestError::Curve(curve)),
            };
            let point = point.data();
            if point.len() != bytes || point.first() != Some(&4) {
                return Err(RequestError::KeyType("a compressed point".to_owned()));
            }
            Ok(name.to_owned())
        }
        _ if algorithm == ED25519 => Ok("ed25519".to_owned()),
        _ => Err(RequestError::KeyType(algorithm)),
    }
}

/// Bits of an unsigned number, big-endian.
fn bits(number: &[u8]) -> usize {
    let Some(first) = number.iter().position(|byte| *byte != 0) else {
        return 0;
    };
    let zeros = number.get(first).map_or(0, |byte| byte.leading_zeros());
    (number.len() - first) * 8 - zeros as usize
}

fn common_name(subject: &X509Name<'_>) -> Result<Option<String>, RequestError> {
    let mut names = subject.iter_common_name();
    let Some(first) = names.next() else {
        return Ok(None);
    };
    let more = names.count();
    if more > 0 {
        return Err(RequestError::CommonNames(more + 1));
    }
    let text = first.as_str();
    let text = text.map_err(|_| RequestError::CommonNameEncoding)?;
    Ok(Some(text.to_owned()))
}

/// What stands in the subject besides the common name.
fn subject_decoration(subject: &X509Name<'_>) -> Vec<String> {
    const COMMON_NAME: &str = "2.5.4.3";
    let others = subject
        .iter_attributes()
        .filter(|attribute| attribute.attr_type().to_id_string() != COMMON_NAME);
    others
        .map(|attribute| {
            let oid = attribute.attr_type();
            let name = x509_parser::objects::oid2abbrev(oid, x509_parser::objects::oid_registry())
                .map_or_else(|_| oid.to_id_string(), str::to_owned);
            let value = attribute.as_str().map_or("...", |text| text);
            format!("{name}={} in the subject", printable(value))
        })
        .collect()
}

/// Text from a request as it may stand in a message: bounded, and without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .take(256)
        .map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        })
        .collect()
}
