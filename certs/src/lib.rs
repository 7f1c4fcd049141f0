//! Issues the certificates of an MQTT broker and of its devices.
//!
//! An [`Authority`] is a directory with an issuing certificate and its key: a root, or an intermediate with
//! its root's certificate. From an [`Order`] it issues server certificates that cannot act as clients and
//! client certificates that cannot act as servers, for keys made here or elsewhere, as small as verification
//! allows, since a device pays for each byte of a handshake.
//!
//! Invariants:
//! - A file is either complete or absent under its final name. Keys and certificates are never overwritten: what takes the
//!   place of one leaves it beside under another name. The list of revoked certificates is replaced.
//! - A private key is never readable by anyone but its owner, not even while it is being written.
//! - Serials are 128 random bits; a certificate never outlives its issuer.
//!
//! Does not know: MQTT, the broker's configuration. Who may have which identity is decided in [`enrol`], and nowhere else.

mod authority;
mod clock;
mod crl;
mod desk;
pub mod enrol;
mod error;
#[cfg(feature = "cli")]
pub mod est;
mod facts;
mod files;
mod held;
mod inspect;
mod inventory;
mod issued;
mod json_lines;
mod key;
mod name;
mod order;
mod permitted;
mod reason;
mod request;
mod revoke;
mod root;
mod serial;
mod tokens;

pub use authority::{Authority, Created};
pub use clock::{Stopwatch, date, date_time, now_unix_s};
pub use crl::{CRL_DAYS, RevocationList, Revoked, crl_path};
pub use desk::{Allowed, Answered, Desk, Enrolled, Settings, Shown};
pub use error::CertsError;
pub use facts::{CertificateFacts, Facts, KeyFacts, RequestFacts, facts};
pub use held::Held;
pub use inspect::{certificate_der, certificate_names, expires_within, fingerprint_sha256};
pub use inventory::{Entry, Inventory, Kind, Status};
pub use issued::{Issued, Signed};
pub use key::{KeyType, PublicKey};
pub use order::{CLAIM_DAYS, DEVICE_DAYS, Order, SERVER_DAYS, SubjectField, Validity};
pub use permitted::Permitted;
pub use reason::Reason;
pub use request::{Form, Granted, REQUEST_BYTES_MAX, Request, RequestError, RequestedName};
pub use revoke::{Done, Revocation, Target};
pub use root::{INTERMEDIATE_YEARS, Intermediate, ROOT_YEARS, Root};
pub use serial::normal_serial;
pub use tokens::{NewToken, Token, Tokens};
