//! Who asks where no broker says it: what a client has shown itself, over EST.
//!
//! EST has no client id. With HTTP Basic it is the user name; else that of the device's certificate, or with a claim the common name
//! of the signing request, so that claims over both protocols are counted and decided alike.
//!
//! A certificate is known by its fingerprint: another of the same serial, from an authority above ours, is not in the inventory.

use crate::enrol::{Login, Refusal, Requester, Word};
use crate::{Entry, Inventory, Kind};
use std::fmt;
use std::net::IpAddr;

/// What a client showed. It holds the certificate's key, which TLS has verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown {
    /// Where it is.
    pub address: IpAddr,
    /// The serial and the fingerprint of its certificate, as in the inventory.
    pub certificate: Option<(String, String)>,
    /// An id and a token.
    pub token: Option<(String, String)>,
}

impl Shown {
    /// Whether it showed anything that could entitle to a certificate.
    #[must_use]
    pub fn is_something(&self) -> bool {
        self.certificate.is_some() || self.token.is_some()
    }

    /// As the broker would say it; `named` is the common name of the signing request.
    pub(super) fn requester(&self, named: Option<&str>, inventory: &Inventory) -> Requester {
        let entry = self.entry(inventory);
        let login = match (&self.certificate, entry.map(|entry| entry.kind)) {
            (None, _) => Login::Anonymous,
            (Some((serial, _)), Some(Kind::Claim)) => Login::Claim(serial.clone()),
            (Some((serial, _)), _) => Login::Certificate(serial.clone()),
        };
        let client_id = match (&self.token, entry) {
            (Some((id, _)), _) => id,
            (None, Some(entry)) if entry.kind == Kind::Device => &entry.id,
            (None, _) => named.unwrap_or_default(),
        };
        Requester {
            client_id: client_id.to_owned(),
            login,
            fingerprint: self
                .certificate
                .as_ref()
                .map(|(_, fingerprint)| fingerprint.clone()),
            user: None,
            token: self.token.as_ref().map(|(_, token)| token.clone()),
        }
    }

    /// Refuses what the decision could not tell.
    pub(super) fn check(
        &self,
        requester: &Requester,
        inventory: &Inventory,
    ) -> Result<(), Refusal> {
        if self.token.is_some() {
            return Ok(());
        }
        if let Some((serial, _)) = &self.certificate
            && self.entry(inventory).is_none()
        {
            let message = format!(
                "the certificate {serial} is not in the inventory: ask the operator for a token"
            );
            return Err(Refusal::new(Word::CertificateInvalid, message));
        }
        if matches!(requester.login, Login::Claim(_)) && requester.client_id.is_empty() {
            return Err(Refusal::new(
                Word::BadRequest,
                "the signing request names nobody: with a claim certificate its common name must be the device's id",
            ));
        }
        Ok(())
    }

    fn entry<'a>(&self, inventory: &'a Inventory) -> Option<&'a Entry> {
        let (serial, fingerprint) = self.certificate.as_ref()?;
        let entry = inventory.with_serial(serial)?;
        (entry.fingerprint == *fingerprint).then_some(entry)
    }
}

impl fmt::Debug for Shown {
    /// Without the token.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.token.as_ref().map(|(id, _)| id);
        formatter
            .debug_struct("Shown")
            .field("address", &self.address)
            .field("certificate", &self.certificate)
            .field("token_of", &id)
            .finish()
    }
}
