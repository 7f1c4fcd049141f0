//! A password as it is stored: argon2id as ours and mosquitto 2.1's tools write it, or one of mosquitto's older kinds.
//!
//! `$argon2id$v=19$m=...,t=...,p=...$salt$hash` (PHC), `$7$iterations$salt$hash` (PBKDF2-HMAC-SHA-512) and `$6$salt$hash` (SHA-512 of
//! password and salt).
//!
//! Promises: a hash that was parsed is verified within a bounded time and memory, and compared in constant time; nothing shows it.
//!
//! Does not know: files, users. It blocks: argon2id takes some 20 ms and 19 MiB, the others less.

use crate::fingerprint::Fingerprint;
use crate::password::LineFault;
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{constant_time, digest, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, STANDARD_NO_PAD as BASE64_NO_PAD};
use std::fmt;
use std::num::NonZeroU32;

/// A password as it is stored.
#[derive(Clone, Eq, PartialEq)]
pub struct StoredHash {
    kind: Kind,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredHash")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// How a password was hashed, and so what a check costs.
#[derive(Copy, Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// `$argon2id$`.
    Argon2id {
        /// KiB.
        memory_kib: u32,
        /// Times over the memory.
        passes: u32,
        /// Degree of parallelism.
        lanes: u32,
    },
    /// `$7$`.
    Pbkdf2Sha512 {
        /// Times that the password is hashed.
        iterations: NonZeroU32,
    },
    /// `$6$`.
    Sha512,
}

impl StoredHash {
    /// Reads any of the three forms.
    ///
    /// # Errors
    /// When it is none, or would cost too much.
    pub fn parse(text: &str) -> Result<Self, LineFault> {
        let mut parts = text.strip_prefix('$').ok_or(LineFault::Hash)?.split('$');
        let parsed = match parts.next() {
            Some("argon2id") => Self::parse_argon2id(parts),
            Some("7") => Self::parse_pbkdf2(parts),
            Some("6") => Self::parse_sha512(parts).ok_or(LineFault::Hash),
            _ => Err(LineFault::Hash),
        }?;
        parsed.check_cost()?;
        Ok(parsed)
    }

    fn parse_argon2id<'a>(mut parts: impl Iterator<Item = &'a str>) -> Result<Self, LineFault> {
        let mut part = || parts.next().ok_or(LineFault::Hash);
        let (version, costs, salt, hash) = (part()?, part()?, part()?, part()?);
        if version != "v=19" || parts.next().is_some() {
            return Err(LineFault::Hash);
        }
        let mut costs = costs.split(',');
        let mut cost = |name: &str| {
            let number = costs.next().and_then(|cost| cost.strip_prefix(name));
            let number = number.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
            number.and_then(|number| number.parse().ok())
        };
        let (memory_kib, passes, lanes) = (cost("m="), cost("t="), cost("p="));
        let (Some(memory_kib), Some(passes), Some(lanes), None) =
            (memory_kib, passes, lanes, costs.next())
        else {
            return Err(LineFault::Hash);
        };
        let decode = |text| BASE64_NO_PAD.decode(text).map_err(|_| LineFault::Hash);
        let (salt, hash) = (decode(salt)?, decode(hash)?);
        let is_valid = Params::new(memory_kib, passes, lanes, Some(hash.len())).is_ok();
        if !is_valid || !SALT_BYTES.contains(&salt.len()) || !HASH_BYTES.contains(&hash.len()) {
            return Err(LineFault::Hash);
        }
        let kind = Kind::Argon2id {
            memory_kib,
            passes,
            lanes,
        };
        Ok(Self { kind, salt, hash })
    }

    fn parse_pbkdf2<'a>(mut parts: impl Iterator<Item = &'a str>) -> Result<Self, LineFault> {
        let iterations = parts.next().unwrap_or_default();
        let is_number = iterations.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || iterations.is_empty() {
            return Err(LineFault::Hash);
        }
        // A number that does not fit is too large, whichever it is.
        let iterations = iterations.parse().unwrap_or(u32::MAX);
        let iterations = NonZeroU32::new(iterations).ok_or(LineFault::Hash)?;
        let digested = Self::parse_sha512(parts).ok_or(LineFault::Hash)?;
        let kind = Kind::Pbkdf2Sha512 { iterations };
        Ok(Self { kind, ..digested })
    }

    fn parse_sha512<'a>(mut parts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let salt = BASE64.decode(parts.next()?).ok()?;
        let hash = BASE64.decode(parts.next()?).ok()?;
        let is_whole = SALT_BYTES.contains(&salt.len())
            && hash.len() == digest::SHA512_OUTPUT_LEN
            && parts.next().is_none();
        let kind = Kind::Sha512;
        is_whole.then_some(Self { kind, salt, hash })
    }

    fn check_cost(&self) -> Result<(), LineFault> {
        match self.kind {
            Kind::Argon2id { memory_kib, .. } if memory_kib > MEMORY_KIB_MAX => {
                Err(LineFault::Memory(memory_kib))
            }
            Kind::Argon2id {
                memory_kib, passes, ..
            } if u64::from(memory_kib) * u64::from(passes) > WORK_KIB_MAX => {
                Err(LineFault::Passes(passes))
            }
            Kind::Pbkdf2Sha512 { iterations } if iterations.get() > ITERATIONS_MAX => {
                Err(LineFault::HashIterations(iterations.get()))
            }
            _ => Ok(()),
        }
    }

    /// Whether `password` is the one that was hashed.
    #[must_use]
    pub fn is_of(&self, password: &[u8]) -> bool {
        let mut found = vec![0; self.hash.len()];
        match self.kind {
            Kind::Argon2id {
                memory_kib,
                passes,
                lanes,
            } => {
                let params = Params::new(memory_kib, passes, lanes, Some(self.hash.len()));
                let hashed = params.and_then(|params| {
                    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                    argon2.hash_password_into(password, &self.salt, &mut found)
                });
                if hashed.is_err() {
                    return false; // no memory
                }
            }
            Kind::Pbkdf2Sha512 { iterations } => {
                let algorithm = pbkdf2::PBKDF2_HMAC_SHA512;
                pbkdf2::derive(algorithm, iterations, &self.salt, password, &mut found);
            }
            Kind::Sha512 => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(&self.salt);
                found.copy_from_slice(context.finish().as_ref());
            }
        }
        constant_time::verify_slices_are_equal(&found, &self.hash).is_ok()
    }

    /// How it was hashed.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a stolen file would tell the password much sooner than `motemq passwd add` allows.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        !matches!(self.kind, Kind::Argon2id { .. })
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&[
            format!("{:?}", self.kind).as_bytes(),
            &self.salt,
            &self.hash,
        ])
    }
}

/// Memory that one verification may take, in KiB.
const MEMORY_KIB_MAX: u32 = 1_048_576;
/// Memory times passes: some seconds of one thread.
const WORK_KIB_MAX: u64 = 4 * 1_048_576;
/// Of `$7$`: about a second of one thread. mosquitto writes 101 or 1000.
const ITERATIONS_MAX: u32 = 1_000_000;
/// argon2 asks for 8 at least; mosquitto writes 12 or 64.
const SALT_BYTES: std::ops::RangeInclusive<usize> = 8..=64;
/// Of argon2id.
const HASH_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by mosquitto_passwd 2.0.11 of "secret".
    const SEVEN: &str = "$7$101$zyCcUFfglRT50qz4$GtKJ4lt1fnqw5IifX+P8pwdRcCGuDYr16qKKXHzgDtwXvX41K24tpd8DLzj3FjteokwatqKyVrCAC7uFVaxYCw==";
    const SIX: &str = "$6$nTv0TzhDfuFACvC4$PufhEoaNlWM24E64OL57tYHDiuaMstx8vIMdX1fnh3IPU3lBvBKsUXICJ7a3gckwWaVHmMZMD4iBjikTjOk0Vg==";
    /// As mosquitto 2.1 makes it of "secret": 47104 KiB, one pass, 64 bytes of salt and hash.
    const ARGON2: &str = "$argon2id$v=19$m=47104,t=1,p=1$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw$jN8KVtBuy9rOg+xx4HEO7K//Ei2hf4aegEDgCD4okj4rugUys2dVUsAyHcBFDFrGlWl198NIEs4dtHiTXPgqvA";

    #[test]
    fn what_mosquitto_wrote_is_verified_as_it_is() {
        for (text, is_weak) in [(SEVEN, true), (SIX, true), (ARGON2, false)] {
            let stored = StoredHash::parse(text).unwrap();
            assert!(stored.is_of(b"secret"), "{text}");
            assert!(!stored.is_of(b"Secret"), "{text}");
            assert!(!stored.is_of(b""), "{text}");
            assert_eq!(stored.is_weak(), is_weak);
            assert!(!format!("{stored:?}").contains("salt"));
        }
    }

    #[test]
    fn a_hash_that_is_cut_or_of_another_kind_is_refused() {
        for text in [SEVEN, SIX, ARGON2] {
            for cut in 0..text.len() - 2 {
                // Two signs of a hash may be missing where its length is free.
                let is_free = text == ARGON2 && cut > text.len() - 70;
                assert!(is_free || StoredHash::parse(&text[..cut]).is_err(), "{cut}");
            }
            assert!(StoredHash::parse(&format!("{text}$x")).is_err());
            assert!(StoredHash::parse(&format!(" {text}")).is_err());
        }
        for text in ["", "$", "secret", "$5$x$y", "$argon2i$v=19$m=8,t=1,p=1$a$b"] {
            assert_eq!(StoredHash::parse(text), Err(LineFault::Hash), "{text}");
        }
        for (from, to) in [
            ("v=19", "v=16"),
            ("m=47104", "m=+47104"),
            ("t=1", "t=0"),
            ("p=1", "p=1,data=x"),
            ("argon2id", "argon2d"),
        ] {
            let text = ARGON2.replace(from, to);
            assert_eq!(StoredHash::parse(&text), Err(LineFault::Hash), "{text}");
        }
        let zero = SEVEN.replace("$101$", "$0$");
        assert_eq!(StoredHash::parse(&zero), Err(LineFault::Hash));
    }

    #[test]
    fn an_absurd_cost_is_refused_before_anybody_pays_it() {
        let seven = |count: &str| StoredHash::parse(&SEVEN.replace("101", count));
        assert_eq!(seven("1000001"), Err(LineFault::HashIterations(1_000_001)));
        assert_eq!(
            seven("99999999999"),
            Err(LineFault::HashIterations(u32::MAX))
        );
        assert!(seven("1000000").is_ok());
        let argon2 = |from: &str, to: &str| StoredHash::parse(&ARGON2.replace(from, to));
        assert_eq!(
            argon2("m=47104", "m=4000000"),
            Err(LineFault::Memory(4_000_000))
        );
        assert_eq!(
            argon2("t=1", "t=4000000000"),
            Err(LineFault::Passes(4_000_000_000))
        );
    }
}
