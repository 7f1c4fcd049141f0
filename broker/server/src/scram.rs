//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's half: who a client is, without its password on the wire or here.
//!
//! Promises:
//! - What is stored (RFC 5803: salt, iterations, StoredKey, ServerKey) lets nobody log in; nothing here hashes a password but
//!   [`StoredKeys::derive`], which the command line runs.
//! - An unknown user gets a salt that stays the same, and is refused at the same point as a wrong password.
//! - Every comparison with a secret takes constant time; no secret is shown by `Debug` or in a [`Fault`].
//!
//! Channel binding is not offered: `n` and `y` are taken, `p` is refused. Does not know: MQTT, files, randomness.

use crate::fingerprint::Fingerprint;
use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

/// The name of the method in CONNECT and AUTH.
pub const METHOD: &str = "SCRAM-SHA-256";

/// What is stored of a user.
#[derive(Clone, Eq, PartialEq)]
pub struct StoredKeys {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: [u8; KEY_BYTES],
    server_key: [u8; KEY_BYTES],
}

impl fmt::Debug for StoredKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredKeys")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

impl StoredKeys {
    /// What to store of a password. Blocks for the time of `iterations` hashes.
    #[must_use]
    pub fn derive(password: &Prepared, salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        let mut salted = [0; KEY_BYTES];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(
            algorithm,
            iterations,
            &salt,
            password.0.as_bytes(),
            &mut salted,
        );
        let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        Self {
            iterations,
            salt,
            stored_key: hash(&sign(&salted, b"Client Key")),
            server_key: sign(&salted, b"Server Key"),
        }
    }

    /// Reads `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`; `None` when it is nothing like it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(METHOD)?.strip_prefix('$')?;
        let (info, keys) = rest.split_once('$')?;
        let (iterations, salt) = info.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
        let salt = BASE64.decode(salt).ok()?;
        Some(Self {
            iterations: iterations.parse().ok()?,
            salt: Some(salt).filter(|salt| SALT_BYTES.contains(&salt.len()))?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// How many times the client hashes its password.
    #[must_use]
    pub fn iterations(&self) -> u32 {
        self.iterations.get()
    }

    /// The form that [`parse`](Self::parse) reads.
    #[must_use]
    pub fn to_line(&self) -> String {
        let [salt, stored_key, server_key] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|key| BASE64.encode(key));
        let iterations = self.iterations;
        format!("{METHOD}${iterations}:{salt}${stored_key}:{server_key}")
    }
}

/// A user name or password in the one form that is stored and compared (SASLprep, RFC 4013).
#[derive(Clone, Eq, PartialEq)]
pub struct Prepared(String);

impl Prepared {
    /// Normalises `text`; `None` when it is empty then, or holds what SASLprep prohibits.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let prepared = stringprep::saslprep(text).ok()?;
        (!prepared.is_empty()).then(|| Self(prepared.into_owned()))
    }

    /// The text; for names.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The users, never none.
pub struct Users {
    users: BTreeMap<String, StoredKeys>,
    decoy: hmac::Key,
    /// Iterations and bytes of salt, of most users.
    usual: (NonZeroU32, usize),
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users")
            .field("count", &self.users.len())
            .finish_non_exhaustive()
    }
}

impl Users {
    /// The users by their prepared names; from the secret `decoy` the salts of unknown users are made. `None` when there are
    /// no users.
    #[must_use]
    pub fn new(users: BTreeMap<String, StoredKeys>, decoy: &[u8]) -> Option<Self> {
        let mut counts = BTreeMap::new();
        for keys in users.values() {
            *counts
                .entry((keys.iterations, keys.salt.len()))
                .or_insert(0) += 1;
        }
        let (usual, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        Some(Self {
            users,
            decoy: hmac::Key::new(hmac::HMAC_SHA256, decoy),
            usual,
        })
    }

    /// What is stored of a user now, to be compared later.
    pub(crate) fn fingerprint(&self, user: &str) -> Option<Fingerprint> {
        let keys = self.users.get(user)?;
        let iterations = keys.iterations.get().to_le_bytes();
        let parts = [&keys.salt[..], &keys.stored_key, &keys.server_key];
        Some(Fingerprint::of(&[
            &iterations,
            parts[0],
            parts[1],
            parts[2],
        ]))
    }

    /// The keys of a user. An unknown one gets a salt as if it had any, and keys that no password fits.
    fn keys(&self, user: &str) -> Cow<'_, StoredKeys> {
        // Made for known users too, so that the time tells nothing.
        let [salt, stored_key, server_key] = ["salt", "stored", "server"].map(|what| {
            let mut context = hmac::Context::with_key(&self.decoy);
            context.update(what.as_bytes());
            context.update(b":");
            context.update(user.as_bytes());
            tag(&context.sign())
        });
        let (iterations, salt_bytes) = self.usual;
        let decoy = StoredKeys {
            iterations,
            salt: salt.into_iter().take(salt_bytes).collect(),
            stored_key,
            server_key,
        };
        self.users
            .get(user)
            .map_or(Cow::Owned(decoy), Cow::Borrowed)
    }
}

/// An exchange that waits for the client's last message.
pub struct Exchange {
    user: String,
    is_known: bool,
    keys: StoredKeys,
    /// The start of the client's first message, which its last one repeats.
    gs2_header: String,
    /// Both parts.
    nonce: String,
    /// The two messages so far, as they are signed.
    signed: String,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// Takes the client's first message and makes the server's. `nonce` must be fresh, random, printable and without comma.
    ///
    /// # Errors
    /// When the message is none, asks for channel binding, or names nobody.
    pub fn begin(first: &[u8], users: &Users, nonce: &str) -> Result<(Self, String), Fault> {
        let first = text_of(first)?;
        let (binding, rest) = first.split_once(',').ok_or(Fault::Malformed)?;
        match binding {
            "n" | "y" => {}
            _ if binding.starts_with("p=") => return Err(Fault::ChannelBinding),
            _ => return Err(Fault::Malformed),
        }
        let (authorization, bare) = rest.split_once(',').ok_or(Fault::Malformed)?;
        let mut attributes = bare.split(',');
        let user = name_of(attribute(attributes.next(), "n=")?)?;
        let client_nonce = attribute(attributes.next(), "r=")?;
        let is_printable = |byte: u8| matches!(byte, 0x21..=0x7e);
        if client_nonce.is_empty() || !client_nonce.bytes().all(is_printable) {
            return Err(Fault::Malformed);
        }
        check_extensions(attributes)?;
        if !authorization.is_empty() {
            let other = name_of(attribute(Some(authorization), "a=")?)?;
            if other != user {
                return Err(Fault::OtherAuthorization);
            }
        }
        let keys = users.keys(&user.0).into_owned();
        let nonce = format!("{client_nonce}{nonce}");
        let answer = format!(
            "r={nonce},s={},i={}",
            BASE64.encode(&keys.salt),
            keys.iterations
        );
        let exchange = Self {
            is_known: users.users.contains_key(&user.0),
            user: user.0,
            keys,
            gs2_header: format!("{binding},{authorization},"),
            nonce,
            signed: format!("{bare},{answer}"),
        };
        Ok((exchange, answer))
    }

    /// Who the client says it is.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Takes the client's last message; gives the server's, which proves that the server knows the user too.
    ///
    /// # Errors
    /// When the message is none, does not belong to this exchange, or proves nothing.
    pub fn finish(&self, last: &[u8]) -> Result<String, Fault> {
        let last = text_of(last)?;
        let (without_proof, proof) = last.rsplit_once(",p=").ok_or(Fault::Malformed)?;
        let mut attributes = without_proof.split(',');
        let header = attribute(attributes.next(), "c=")?;
        let nonce = attribute(attributes.next(), "r=")?;
        check_extensions(attributes)?;
        let proof: [u8; KEY_BYTES] = BASE64
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(Fault::Malformed)?;
        if BASE64.decode(header).ok().as_deref() != Some(self.gs2_header.as_bytes()) {
            return Err(Fault::OtherHeader);
        }
        if nonce != self.nonce {
            return Err(Fault::OtherNonce);
        }
        let signed = format!("{},{without_proof}", self.signed);
        let signature = sign(&hmac_key(&self.keys.stored_key), signed.as_bytes());
        let client_key: [u8; KEY_BYTES] = std::array::from_fn(|at| proof[at] ^ signature[at]);
        let is_proof =
            constant_time::verify_slices_are_equal(&hash(&client_key), &self.keys.stored_key);
        match (is_proof.is_ok(), self.is_known) {
            (true, true) => {}
            (_, true) => return Err(Fault::WrongProof),
            (_, false) => return Err(Fault::UnknownUser),
        }
        let signature = sign(&hmac_key(&self.keys.server_key), signed.as_bytes());
        Ok(format!("v={}", BASE64.encode(signature)))
    }
}

/// Why a client is not let in. What it sent is not repeated.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Not as RFC 5802 section 7 writes it.
    #[error("not a SCRAM message")]
    Malformed,
    /// The client asks for channel binding.
    #[error("channel binding is not offered: use SCRAM-SHA-256 without it")]
    ChannelBinding,
    /// An extension that the client insists on.
    #[error("a mandatory SCRAM extension is not known")]
    MandatoryExtension,
    /// The name is empty, or SASLprep prohibits it.
    #[error("a user name that SASLprep prohibits")]
    UserName,
    /// The client wants to act as somebody else.
    #[error("an authorization identity other than the user")]
    OtherAuthorization,
    /// The last message does not repeat the header of the first.
    #[error("the channel binding data changed within the exchange")]
    OtherHeader,
    /// The last message belongs to another exchange.
    #[error("the nonce is not that of the exchange")]
    OtherNonce,
    /// The client does not know the password.
    #[error("wrong password")]
    WrongProof,
    /// There is no such user.
    #[error("no such user")]
    UnknownUser,
    /// The caller knows the user by another name.
    #[error("the user name of CONNECT is another one")]
    OtherUserName,
    /// The system gave no nonce.
    #[error("no randomness")]
    NoRandomness,
}

fn text_of(message: &[u8]) -> Result<&str, Fault> {
    match message.len() <= MESSAGE_BYTES_MAX {
        true => str::from_utf8(message).map_err(|_| Fault::Malformed),
        false => Err(Fault::Malformed),
    }
}

fn attribute<'a>(attribute: Option<&'a str>, name: &str) -> Result<&'a str, Fault> {
    let attribute = attribute.ok_or(Fault::Malformed)?;
    match attribute.strip_prefix(name) {
        Some(value) => Ok(value),
        None if attribute.starts_with("m=") => Err(Fault::MandatoryExtension),
        None => Err(Fault::Malformed),
    }
}

/// Optional extensions are ignored; they have names of one letter all the same.
fn check_extensions<'a>(mut extensions: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
    let is_extension =
        |text: &str| matches!(text.as_bytes(), [name, b'=', _, ..] if name.is_ascii_alphabetic());
    match extensions.all(is_extension) {
        true => Ok(()),
        false => Err(Fault::Malformed),
    }
}

/// A name, in which comma and equals sign are escaped.
fn name_of(escaped: &str) -> Result<Prepared, Fault> {
    let mut parts = escaped.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            (None, None) => return Err(Fault::Malformed),
        };
        name.push(sign);
        name.push_str(rest);
    }
    Prepared::new(&name).ok_or(Fault::UserName)
}

fn hmac_key(key: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key)
}

fn sign(key: &hmac::Key, data: &[u8]) -> [u8; KEY_BYTES] {
    tag(&hmac::sign(key, data))
}

fn tag(tag: &hmac::Tag) -> [u8; KEY_BYTES] {
    bytes(tag.as_ref())
}

fn hash(data: &[u8]) -> [u8; KEY_BYTES] {
    bytes(digest::digest(&digest::SHA256, data).as_ref())
}

/// SHA-256 has as many bytes as a key.
fn bytes(digest: &[u8]) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes.copy_from_slice(digest);
    bytes
}

/// Bytes of SHA-256.
const KEY_BYTES: usize = 32;
/// Bytes of a message; a name of 256 bytes, escaped, and two nonces need a third of it.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Bytes of a salt; a decoy has no more.
const SALT_BYTES: std::ops::RangeInclusive<usize> = 8..=KEY_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    /// The user of RFC 7677, and one whose name needs escapes.
    fn users() -> Users {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let iterations = NonZeroU32::new(4096).unwrap();
        let password = Prepared::new("pencil").unwrap();
        let keys = StoredKeys::derive(&password, salt, iterations);
        let users = [
            ("user".to_owned(), keys.clone()),
            ("a,b=c".to_owned(), keys),
        ];
        Users::new(users.into(), b"secret").unwrap()
    }

    fn begin(first: &str) -> Result<(Exchange, String), Fault> {
        Exchange::begin(first.as_bytes(), &users(), SERVER_NONCE)
    }

    fn begun() -> Exchange {
        begin(&format!("n,,n=user,r={CLIENT_NONCE}")).unwrap().0
    }

    /// A client's last message, computed as RFC 5802 section 3 says.
    fn last(first_bare: &str, server_first: &str, header: &str, password: &str) -> String {
        let mut parts = server_first.split(',');
        let nonce = &parts.next().unwrap()[2..];
        let salt = BASE64.decode(&parts.next().unwrap()[2..]).unwrap();
        let iterations = parts.next().unwrap()[2..].parse().unwrap();
        let mut salted = [0; 32];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(
            algorithm,
            iterations,
            &salt,
            password.as_bytes(),
            &mut salted,
        );
        let client_key = sign(&hmac_key(&salted), b"Client Key");
        let bare = format!("c={},r={nonce}", BASE64.encode(header));
        let signed = format!("{first_bare},{server_first},{bare}");
        let signature = sign(&hmac_key(&hash(&client_key)), signed.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(a, b)| a ^ b)
            .collect();
        format!("{bare},p={}", BASE64.encode(proof))
    }

    #[test]
    fn the_exchange_of_rfc_7677() {
        let (exchange, answer) = begin(&format!("n,,n=user,r={CLIENT_NONCE}")).unwrap();
        assert_eq!(
            answer,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        assert_eq!(
            exchange.finish(LAST.as_bytes()),
            Ok("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_owned())
        );
        assert_eq!(exchange.user(), "user");
    }

    #[test]
    fn stored_keys_survive_their_line() {
        let users = users();
        let keys = &users.users["user"];
        let line = keys.to_line();
        assert!(line.starts_with("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"));
        assert_eq!(StoredKeys::parse(&line).as_ref(), Some(keys));
        for wrong in [
            line.replace("SCRAM-SHA-256", "SCRAM-SHA-1"),
            line.replace("$4096", "$0"),
            line.replace("4096:", "4096"),
            line.replace("W22Z", "W2Z"),
            line.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
            line[..line.len() - 1].to_owned(),
            format!("{line}AAAA"),
            String::new(),
        ] {
            assert_eq!(StoredKeys::parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_wrong_proof_is_refused() {
        let wrong = LAST.replace("p=dHz", "p=eHz");
        assert_eq!(begun().finish(wrong.as_bytes()), Err(Fault::WrongProof));
        let bare = format!("n=user,r={CLIENT_NONCE}");
        let (exchange, answer) = begin(&format!("n,,{bare}")).unwrap();
        let guess = last(&bare, &answer, "n,,", "Pencil");
        assert_eq!(exchange.finish(guess.as_bytes()), Err(Fault::WrongProof));
        let right = last(&bare, &answer, "n,,", "pencil");
        assert_eq!(right, LAST);
    }

    /// Whoever heard one exchange cannot repeat it: the server's half of the nonce is another one.
    #[test]
    fn a_replayed_message_is_refused() {
        let first = format!("n,,n=user,r={CLIENT_NONCE}");
        let (exchange, _) = Exchange::begin(first.as_bytes(), &users(), "another").unwrap();
        assert_eq!(exchange.finish(LAST.as_bytes()), Err(Fault::OtherNonce));
        // With the nonce put right the proof is wrong.
        let mended = LAST.replace(SERVER_NONCE, "another");
        assert_eq!(exchange.finish(mended.as_bytes()), Err(Fault::WrongProof));
    }

    #[test]
    fn tampering_with_any_part_is_refused() {
        // Another name, header or extension in the first message than the client signed.
        for first in [
            format!("n,,n=user,r={CLIENT_NONCE},x=y"),
            format!("y,,n=user,r={CLIENT_NONCE}"),
            format!("n,a=user,n=user,r={CLIENT_NONCE}"),
            format!("n,,n=a=2Cb=3Dc,r={CLIENT_NONCE}"),
        ] {
            let (exchange, _) = begin(&first).unwrap();
            assert!(exchange.finish(LAST.as_bytes()).is_err(), "{first}");
        }
        // A byte of the last message changed.
        for at in 0..LAST.len() {
            let mut bytes = LAST.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(begun().finish(&bytes).is_err(), "{at}");
            assert!(begun().finish(&LAST.as_bytes()[..at]).is_err(), "{at}");
        }
        let longer = LAST.replace(",p=", ",x=y,p=");
        assert_eq!(begun().finish(longer.as_bytes()), Err(Fault::WrongProof));
    }

    #[test]
    fn channel_binding_is_not_offered_and_not_negotiated_away() {
        let bare = format!("n=user,r={CLIENT_NONCE}");
        let fault = begin(&format!("p=tls-exporter,,{bare}")).unwrap_err();
        assert_eq!(fault, Fault::ChannelBinding);
        // A client that could bind but believes that the server cannot is right.
        let (exchange, answer) = begin(&format!("y,,{bare}")).unwrap();
        let right = last(&bare, &answer, "y,,", "pencil");
        assert!(exchange.finish(right.as_bytes()).is_ok());
        let (exchange, answer) = begin(&format!("y,,{bare}")).unwrap();
        for header in ["n,,", "p=tls-exporter,,", "y,,data", ""] {
            let wrong = last(&bare, &answer, header, "pencil");
            assert_eq!(exchange.finish(wrong.as_bytes()), Err(Fault::OtherHeader));
        }
    }

    #[test]
    fn an_unknown_user_looks_like_a_known_one_until_the_end() {
        let bare = "n=nobody,r=abc";
        let (exchange, answer) = begin(&format!("n,,{bare}")).unwrap();
        let (_, again) = begin(&format!("n,,{bare}")).unwrap();
        assert_eq!(answer, again);
        let (_, other) = begin("n,,n=somebody,r=abc").unwrap();
        assert_ne!(answer, other);
        let (_, known) = begin("n,,n=user,r=abc").unwrap();
        assert_eq!(answer.len(), known.len());
        assert!(answer.ends_with(",i=4096"));
        let guess = last(bare, &answer, "n,,", "pencil");
        assert_eq!(exchange.finish(guess.as_bytes()), Err(Fault::UnknownUser));
    }

    /// Its salt must not betray it when the broker restarts, and must not be computable.
    #[test]
    fn the_salt_of_an_unknown_user_depends_on_the_secret_alone() {
        let salt = |secret: &[u8], name: &str| {
            let mut all = users().users;
            all.insert(name.to_owned(), all["user"].clone());
            let users = Users::new(all, secret).unwrap();
            users.keys("nobody").into_owned().salt
        };
        assert_eq!(salt(b"secret", "x"), salt(b"secret", "y"));
        assert_ne!(salt(b"secret", "x"), salt(b"other", "x"));
    }

    #[test]
    fn names_are_unescaped_and_prepared() {
        let user = |name: &str| begin(&format!("n,,n={name},r=x")).map(|(it, _)| it.user);
        assert_eq!(user("a=2Cb=3Dc").as_deref(), Ok("a,b=c"));
        // RFC 4013 section 3: soft hyphen goes, the Roman nine becomes two letters.
        assert_eq!(user("us\u{ad}er").as_deref(), Ok("user"));
        assert_eq!(user("\u{2168}").as_deref(), Ok("IX"));
        for wrong in ["a=b", "a=2c", "=", "a=2"] {
            assert_eq!(user(wrong), Err(Fault::Malformed), "{wrong}");
        }
        for wrong in ["", "\u{7}", "\u{ad}", "\u{627}1"] {
            assert_eq!(user(wrong), Err(Fault::UserName), "{wrong}");
        }
    }

    #[test]
    fn messages_that_are_none_are_refused() {
        for (first, fault) in [
            ("", Fault::Malformed),
            ("n", Fault::Malformed),
            ("n,,", Fault::Malformed),
            ("x,,n=user,r=x", Fault::Malformed),
            ("n,user,n=user,r=x", Fault::Malformed),
            ("n,,r=x,n=user", Fault::Malformed),
            ("n,,n=user", Fault::Malformed),
            ("n,,n=user,r=", Fault::Malformed),
            ("n,,n=user,r=a b", Fault::Malformed),
            ("n,,n=user,r=x,", Fault::Malformed),
            ("n,,n=user,r=x,1=y", Fault::Malformed),
            ("n,,m=x,n=user,r=x", Fault::MandatoryExtension),
            ("n,a=root,n=user,r=x", Fault::OtherAuthorization),
        ] {
            assert_eq!(begin(first).unwrap_err(), fault, "{first}");
        }
        let long = format!("n,,n=user,r={}", "x".repeat(5000));
        assert_eq!(begin(&long).unwrap_err(), Fault::Malformed);
        let users = users();
        let bytes = Exchange::begin(b"n,,n=\xff,r=x", &users, "y").unwrap_err();
        assert_eq!(bytes, Fault::Malformed);
        for last in ["", "p=", "c=biws,p=AAAA", "r=x,c=biws,p=AAAA", "c=biws,r=x"] {
            assert_eq!(
                begun().finish(last.as_bytes()),
                Err(Fault::Malformed),
                "{last}"
            );
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let users = users();
        let shown = format!("{users:?} {:?} {:?}", users.users["user"], begun());
        assert!(
            !shown.contains("W22Z") && !shown.contains("stored_key"),
            "{shown}"
        );
    }
}
