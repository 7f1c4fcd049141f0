//! Issues the certificates of an MQTT broker and of its devices.
//!
//! An [`Authority`] is a directory with a root certificate and its key. It issues server certificates
//! that cannot act as clients and device certificates that cannot act as servers, both on P-256 and as
//! small as verification allows, since a device pays for each byte of a handshake.
//!
//! Invariants:
//! - No file is ever overwritten, and a file is either complete or absent under its final name.
//! - A private key is never readable by anyone but its owner, not even while it is being written.
//! - Serials are 128 random bits; a certificate never outlives its root.
//!
//! Does not know: MQTT, the broker's configuration, who may have which identity.

mod authority;
mod clock;
mod error;
mod files;
mod inspect;
mod inventory;
mod issued;
mod name;

pub use authority::{Authority, Created, DEVICE_DAYS, SERVER_DAYS};
pub use error::CertsError;
pub use inspect::{certificate_names, expires_within};
pub use inventory::{Entry, Inventory, Kind, Status};
pub use issued::Issued;
