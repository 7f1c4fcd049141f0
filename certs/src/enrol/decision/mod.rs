//! The decision itself: what entitles to what, in the order in which it is asked.
//!
//! A token that is given is what counts, whatever the login. Without one, a device's certificate entitles to another one for the
//! same id, and a claim certificate to the first one that an id ever has. A user name or nothing entitles to nothing.

use super::rate::TooMany;
use super::turn::Turn;
use super::{AllowList, Login, Rates, Refusal, Requester, Wanted, Word, cut, fingerprint_is};
use crate::{Entry, Inventory, Kind, Status, Tokens, name};

/// What is decided the same way for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The names by which the service logs in, which no device gets: it would be the service.
    pub own_names: Vec<String>,
    /// The kinds of keys that are certified, such as `p256`; `rsa` means every size.
    pub key_types: Vec<String>,
    /// How many valid certificates an id may have at a time.
    pub certificates_per_id: usize,
}

/// What is known when a decision is taken.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What was issued.
    pub inventory: &'a Inventory,
    /// The tokens that operators made.
    pub tokens: &'a Tokens,
    /// The ids that may be claimed; `None` refuses every claim.
    pub allowed: Option<&'a AllowList>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Issue a certificate.
    Issue(Grant),
    /// Give the certificate with this serial again, or, if it is lost, one like it.
    Repeat {
        /// The serial, lower-case hexadecimal.
        serial: String,
        /// As if it were issued.
        grant: Grant,
    },
    /// Refuse.
    Refuse(Refusal),
}

/// What a certificate is issued for, and on what ground.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The id.
    pub id: String,
    /// The ground, as the inventory keeps it: `certificate SERIAL`, `claim NAME` or `token SHA-256`.
    pub enrolled_by: String,
    /// What is allowed and yet worth a look.
    pub warnings: Vec<String>,
}

/// Decides about requests; remembers only how many there were.
#[derive(Debug)]
pub struct Enroller {
    rules: Rules,
    rates: Rates,
}

impl Enroller {
    /// An enroller with these rules.
    #[must_use]
    pub fn new(rules: Rules, rates: Rates) -> Self {
        Self { rules, rates }
    }

    /// Whether this requester may ask now; comes before the work of reading what it asks.
    ///
    /// # Errors
    /// [`Word::Busy`].
    pub fn admit(
        &mut self,
        requester: &Requester,
        payload: &[u8],
        known: Known<'_>,
        now_s: i64,
    ) -> Result<(), Refusal> {
        let turn = Turn::of(requester, payload, known.inventory, known.tokens);
        let message = match self.rates.admit(turn, now_s) {
            Ok(()) => return Ok(()),
            Err(TooMany::OfAll) => "too many devices are asking: ask again in a minute (--rate)",
            Err(TooMany::OfOne) => {
                "this device asked a moment ago: ask again later (--per-id-interval)"
            }
        };
        Err(Refusal::new(Word::Busy, message))
    }

    /// Decides about a request that was admitted.
    #[must_use]
    pub fn decide(
        &self,
        requester: &Requester,
        wanted: &Wanted,
        known: Known<'_>,
        now_s: i64,
    ) -> Decision {
        let decision = self.try_decide(requester, wanted, known, now_s);
        let decision = decision.and_then(|decision| self.check_number(decision, known, now_s));
        decision.unwrap_or_else(Decision::Refuse)
    }

    fn try_decide(
        &self,
        requester: &Requester,
        wanted: &Wanted,
        known: Known<'_>,
        now_s: i64,
    ) -> Result<Decision, Refusal> {
        self.check_key(wanted)?;
        match (&requester.token, &requester.login) {
            (Some(token), _) => {
                let id = self.own_id(requester, wanted)?;
                by_token(token, id, wanted, known, now_s)
            }
            (None, Login::Certificate(serial)) => {
                let held = held(requester, serial, Kind::Device, known.inventory, now_s);
                let held = held.map_err(|why| certificate_invalid(serial, why))?;
                self.check_id(&held.id)?;
                by_certificate(held, wanted, known.inventory, now_s)
            }
            (None, Login::Claim(serial)) => {
                let claim = held(requester, serial, Kind::Claim, known.inventory, now_s);
                let claim = claim.map_err(|why| claim_invalid(serial, why))?;
                let id = self.own_id(requester, wanted)?;
                by_claim(claim, id, wanted, known, now_s)
            }
            (None, Login::User | Login::Anonymous) => Err(Refusal::new(
                Word::TokenNeeded,
                "only a device's certificate, a claim certificate or a token entitles to a certificate: send a token",
            )),
        }
    }

    fn check_key(&self, wanted: &Wanted) -> Result<(), Refusal> {
        let found = wanted.key_type.as_str();
        let is_allowed =
            |allowed: &String| allowed == found || (allowed == "rsa" && found.starts_with("rsa"));
        if self.rules.key_types.iter().any(is_allowed) {
            return Ok(());
        }
        let allowed = self.rules.key_types.join(", ");
        let message = format!("a {found} key is not accepted here: use {allowed}");
        Err(Refusal::new(Word::KeyNotAllowed, message))
    }

    /// Whoever renews again and again makes the inventory no longer than this.
    fn check_number(
        &self,
        decision: Decision,
        known: Known<'_>,
        now_s: i64,
    ) -> Result<Decision, Refusal> {
        let Decision::Issue(Grant { id, .. }) = &decision else {
            return Ok(decision);
        };
        let number = certificates(known.inventory, id, now_s).count();
        if number < self.rules.certificates_per_id {
            return Ok(decision);
        }
        Err(Refusal::new(
            Word::TooManyCertificates,
            format!(
                "{id:?} has {number} valid certificates: have the operator revoke those that are out of use (--certificates-per-id)"
            ),
        ))
    }

    fn check_id(&self, id: &str) -> Result<(), Refusal> {
        if self.rules.own_names.iter().any(|name| name == id) {
            let message = format!("{id:?} is the name of the enrolment service: choose another id");
            return Err(Refusal::new(Word::IdNotAllowed, message));
        }
        match name::device_id_problem(id) {
            Some(problem) => {
                let message = format!("id {:?} {problem}: choose another id", cut(id));
                Err(Refusal::new(Word::IdNotAllowed, message))
            }
            None => Ok(()),
        }
    }

    /// The id of a requester that proves no other: its client id, which must be one, and which the signing request must not
    /// contradict.
    fn own_id<'a>(&self, requester: &'a Requester, wanted: &Wanted) -> Result<&'a str, Refusal> {
        let id = requester.client_id.as_str();
        self.check_id(id)?;
        match &wanted.common_name {
            Some(name) if name != id => Err(mismatch(name, "the client id", id)),
            _ => Ok(id),
        }
    }
}

fn mismatch(name: &str, whose: &str, id: &str) -> Refusal {
    let name = cut(name);
    let message =
        format!("the signing request names {name:?} and {whose} is {id:?}: they must be the same");
    Refusal::new(Word::NameMismatch, message)
}

fn by_token(
    text: &str,
    id: &str,
    wanted: &Wanted,
    known: Known<'_>,
    now_s: i64,
) -> Result<Decision, Refusal> {
    let Some(token) = known.tokens.find(id, text) else {
        let message = format!("there is no such token for {id:?}: ask the operator for one");
        return Err(Refusal::new(Word::TokenUnknown, message));
    };
    let grant = grant(id, format!("token {}", token.sha256));
    let mut of_id = known.inventory.of_id(id).rev();
    if let Some(used) = of_id.find(|entry| entry.enrolled_by.as_ref() == Some(&grant.enrolled_by)) {
        // Later than its expiry, too: what was given is only given again.
        return match is_valid(used, now_s) && has_key(used, wanted) {
            true => Ok(repeat(used, grant)),
            false => Err(Refusal::new(
                Word::TokenUsed,
                "the token was used already, with another key or for a certificate that is no longer valid: \
                 ask the operator for a new one",
            )),
        };
    }
    if token.not_after <= now_s {
        return Err(Refusal::new(
            Word::TokenExpired,
            "the token has expired: ask the operator for a new one",
        ));
    }
    let replaced = replaced_warning(known.inventory, id, now_s);
    Ok(Decision::Issue(with_warnings(grant, replaced)))
}

fn by_certificate(
    held: &Entry,
    wanted: &Wanted,
    inventory: &Inventory,
    now_s: i64,
) -> Result<Decision, Refusal> {
    if let Some(name) = &wanted.common_name
        && *name != held.id
    {
        return Err(mismatch(name, "the certificate's id", &held.id));
    }
    let grant = grant(&held.id, format!("certificate {}", held.serial));
    let before = inventory.of_id(&held.id).rev().find(|entry| {
        entry.enrolled_by.as_ref() == Some(&grant.enrolled_by)
            && is_valid(entry, now_s)
            && has_key(entry, wanted)
    });
    if let Some(before) = before {
        return Ok(repeat(before, grant));
    }
    let same_key = has_key(held, wanted).then(|| "renewed with the same key".to_owned());
    Ok(Decision::Issue(with_warnings(grant, same_key)))
}

fn by_claim(
    claim: &Entry,
    id: &str,
    wanted: &Wanted,
    known: Known<'_>,
    now_s: i64,
) -> Result<Decision, Refusal> {
    let Some(allowed) = known.allowed else {
        return Err(Refusal::new(
            Word::NotOnAllowList,
            "no id may be claimed: the enrolment service runs without --allow",
        ));
    };
    if !allowed.contains(id) {
        let message = format!(
            "{id:?} is not on the allow-list: have the operator add it (--allow), on a line that ends with a newline"
        );
        return Err(Refusal::new(Word::NotOnAllowList, message));
    }
    let grant = grant(id, format!("claim {}", claim.id));
    let valid = certificates(known.inventory, id, now_s).rev();
    if let Some(before) = valid.into_iter().find(|entry| has_key(entry, wanted)) {
        return Ok(repeat(before, grant));
    }
    // A revoked one counts, too: else whom it was taken from would get the next with a claim.
    let mut ever = known.inventory.of_id(id);
    match ever.any(|entry| entry.kind == Kind::Device) {
        false => Ok(Decision::Issue(grant)),
        true => Err(Refusal::new(
            Word::AlreadyEnrolled,
            format!(
                "{id:?} has had a certificate: renew with that one, or have the operator make a token"
            ),
        )),
    }
}

/// The entry of a certificate that a client logged in with, if it is what it should be; else what is wrong.
fn held<'a>(
    requester: &Requester,
    serial: &str,
    kind: Kind,
    inventory: &'a Inventory,
    now_s: i64,
) -> Result<&'a Entry, &'static str> {
    match inventory.with_serial(serial) {
        None => Err("is not in the inventory"),
        Some(entry) if !fingerprint_is(entry, requester.fingerprint.as_deref()) => Err(
            "is not the one in the inventory (its fingerprint is another, or the broker did not say it)",
        ),
        Some(entry) if entry.kind != kind => Err("is of another kind"),
        Some(entry) if entry.status != Status::Issued => Err("is revoked"),
        Some(entry) if entry.not_after <= now_s => Err("has expired"),
        Some(entry) => Ok(entry),
    }
}

fn certificate_invalid(serial: &str, why: &str) -> Refusal {
    let message = format!(
        "the certificate {} {why}: ask the operator for a token",
        cut(serial)
    );
    Refusal::new(Word::CertificateInvalid, message)
}

fn claim_invalid(serial: &str, why: &str) -> Refusal {
    let serial = cut(serial);
    let message = format!("the claim certificate {serial} {why}: ask the operator for another");
    Refusal::new(Word::ClaimInvalid, message)
}

/// The certificates with which a device could log in as `id` now.
fn certificates<'a>(
    inventory: &'a Inventory,
    id: &str,
    now_s: i64,
) -> impl DoubleEndedIterator<Item = &'a Entry> {
    inventory
        .of_id(id)
        .filter(move |entry| entry.kind == Kind::Device && is_valid(entry, now_s))
}

fn is_valid(entry: &Entry, now_s: i64) -> bool {
    entry.status == Status::Issued && entry.not_after > now_s
}

fn has_key(entry: &Entry, wanted: &Wanted) -> bool {
    entry.public_key.as_ref() == Some(&wanted.public_key)
}

fn replaced_warning(inventory: &Inventory, id: &str, now_s: i64) -> Option<String> {
    let serials: Vec<&str> = certificates(inventory, id, now_s)
        .map(|entry| entry.serial.as_str())
        .collect();
    (!serials.is_empty()).then(|| format!("also valid, until revoked: {}", serials.join(" ")))
}

fn grant(id: &str, enrolled_by: String) -> Grant {
    Grant {
        id: id.to_owned(),
        enrolled_by,
        warnings: Vec::new(),
    }
}

fn with_warnings(mut grant: Grant, warnings: Option<String>) -> Grant {
    grant.warnings.extend(warnings);
    grant
}

fn repeat(entry: &Entry, grant: Grant) -> Decision {
    Decision::Repeat {
        serial: entry.serial.clone(),
        grant,
    }
}

#[cfg(test)]
mod tests;
