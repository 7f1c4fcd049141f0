//! Where requests for certificates are answered: the decision of [`enrol`](crate::enrol), with the files that it needs and changes.
//!
//! Order: the inventory says what is issued, then `enrolled/SERIAL.crt` has it, then the audit says so, and only then is there an
//! answer. Whatever a crash leaves out, the same request leads to the same certificate, or to one for the same key and id.
//!
//! Between decision and entry nobody else writes the inventory, so two services cannot both use one token. Tokens, allow-list and
//! inventory are read again before each decision.
//!
//! Who asks is either what the broker said of a client (user properties), or what a client showed us itself ([`Shown`], EST).
//!
//! Does not know: MQTT, HTTP, TLS. The clock is an argument.

mod allowed;
mod audit;
mod shown;

use crate::enrol::{
    Answer, Certificate, Decision, Enroller, Form, Grant, Known, Payload, Rates, Refusal,
    Requester, Rules, Wanted, Word,
};
use crate::files::{self, Access};
use crate::{Authority, CertsError, Entry, Inventory, Kind, Order, Request, Tokens, Validity};
pub use allowed::Allowed;
use allowed::List;
use audit::{Audit, Line};
pub use shown::Shown;
use std::path::{Path, PathBuf};

/// How requests are answered.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The names by which the service logs in, which no device gets.
    pub own_names: Vec<String>,
    /// The kinds of keys that are certified, such as `p256`; `rsa` means every size.
    pub key_types: Vec<String>,
    /// How many valid certificates an id may have at a time.
    pub certificates_per_id: usize,
    /// How many requests per second are answered, of each class (renewals, with a token, with a claim, others), in the long run.
    pub rate_per_s: u32,
    /// How long a requester waits between requests, in seconds; 0 for no time.
    pub per_id_interval_s: u32,
    /// Which ids can be claimed.
    pub allowed: Allowed,
    /// How long certificates are valid.
    pub validity: Validity,
    /// Where each decision is written down.
    pub audit: PathBuf,
}

/// An answer, and what to tell people about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// What the device gets.
    pub answer: Answer,
    /// What happened, without a token; `None` for one of many requests that were too many.
    pub line: Option<String>,
}

/// A certificate or why there is none, and what to tell people about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// What the device gets.
    pub result: Result<Certificate, Refusal>,
    /// As in [`Answered`].
    pub line: Option<String>,
}

/// Answers requests from the files of one authority.
#[derive(Debug)]
pub struct Desk {
    authority: Authority,
    inventory: Inventory,
    tokens: Tokens,
    allowed: List,
    enroller: Enroller,
    validity: Validity,
    audit: Audit,
}

impl Desk {
    /// Reads what is known.
    ///
    /// # Errors
    /// Those of [`Inventory::open`] and [`Tokens::open`], and [`CertsError::File`] for the allow-list.
    pub fn open(authority: Authority, settings: Settings) -> Result<Self, CertsError> {
        let rules = Rules {
            own_names: settings.own_names,
            key_types: settings.key_types,
            certificates_per_id: settings.certificates_per_id,
        };
        let rates = Rates::new(settings.rate_per_s, settings.per_id_interval_s);
        Ok(Self {
            inventory: Inventory::open_to_issue(authority.dir())?,
            tokens: Tokens::open(authority.dir())?,
            allowed: List::open(settings.allowed)?,
            enroller: Enroller::new(rules, rates),
            validity: settings.validity,
            audit: Audit::new(settings.audit),
            authority,
        })
    }

    /// The authority that signs.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Answers a request: the user properties that the broker made, and the client's payload.
    pub fn answer(
        &mut self,
        properties: &[(String, String)],
        payload: &[u8],
        now_s: i64,
    ) -> Answered {
        let mut line = Line::at(now_s);
        let done = Requester::parse(properties)
            .map_err(Stop::Refused)
            .and_then(|requester| self.try_answer(requester, payload, now_s, &mut line));
        let (result, line) = self.write_down(done, line);
        let answer = match result {
            Ok((form, certificate)) => Answer::issued(form, &certificate),
            Err(refusal) => Answer::refused(&refusal),
        };
        Answered { answer, line }
    }

    /// Answers a request that came to us directly: what the client showed, and its signing request, if it could be read.
    pub fn enrol(&mut self, shown: &Shown, csr: Result<Vec<u8>, Refusal>, now_s: i64) -> Enrolled {
        let mut line = Line::at(now_s).over_est(shown.address);
        let done = self.try_enrol(shown, csr, now_s, &mut line);
        let (result, line) = self.write_down(done, line);
        Enrolled { result, line }
    }

    /// What is not written down is not given away.
    fn write_down<T>(
        &mut self,
        done: Result<T, Stop>,
        mut line: Line,
    ) -> (Result<T, Refusal>, Option<String>) {
        let result = done.map_err(|stop| match stop {
            Stop::Refused(refusal) => {
                line.refuse(&refusal, None);
                refusal
            }
            Stop::Failed(error) => {
                let refusal = unavailable();
                line.refuse(&refusal, Some(error.to_string()));
                refusal
            }
        });
        match self.audit.write(&mut line) {
            Ok(line) => (result, line),
            Err(error) => (
                Err(unavailable()),
                Some(format!("no answer, the audit cannot be written: {error}")),
            ),
        }
    }

    /// Writes down that a request gets no answer, and why; returns what to tell people, if anything.
    pub fn cannot_answer(
        &mut self,
        properties: &[(String, String)],
        why: &str,
        now_s: i64,
    ) -> Option<String> {
        let mut line = Line::at(now_s);
        if let Ok(requester) = Requester::parse(properties) {
            line.asked_by(&requester);
        }
        line.drop(why.to_owned());
        let written = self.audit.write(&mut line);
        written.unwrap_or_else(|error| Some(format!("the audit cannot be written: {error}")))
    }

    fn try_answer(
        &mut self,
        mut requester: Requester,
        payload: &[u8],
        now_s: i64,
        line: &mut Line,
    ) -> Result<(Form, Certificate), Stop> {
        line.asked_by(&requester);
        // The token says as what the request counts, so it is looked for first.
        let parsed = Payload::parse(payload).and_then(|parsed| {
            requester.token = one_token(requester.token.take(), parsed.token.clone())?;
            Ok(parsed)
        });
        self.inventory.refresh()?;
        self.admit(&requester, payload, now_s)?;
        let payload = parsed?;
        let request = Request::parse(&payload.csr).map_err(Refusal::from)?;
        let certificate = self.consider(&requester, request, now_s, line)?;
        Ok((payload.form, certificate))
    }

    /// The signing request says who asks, so it is read first; one that cannot be read counts, too.
    fn try_enrol(
        &mut self,
        shown: &Shown,
        csr: Result<Vec<u8>, Refusal>,
        now_s: i64,
        line: &mut Line,
    ) -> Result<Certificate, Stop> {
        let payload = csr.as_ref().cloned().unwrap_or_default();
        let request = csr.and_then(|csr| Request::parse(&csr).map_err(Refusal::from));
        let named = request.as_ref().ok().and_then(Request::common_name);
        self.inventory.refresh()?;
        let requester = shown.requester(named, &self.inventory);
        line.asked_by(&requester);
        self.admit(&requester, &payload, now_s)?;
        let request = request?;
        shown.check(&requester, &self.inventory)?;
        self.consider(&requester, request, now_s, line)
    }

    fn admit(&mut self, requester: &Requester, payload: &[u8], now_s: i64) -> Result<(), Stop> {
        self.tokens.refresh()?;
        let known = Known {
            inventory: &self.inventory,
            tokens: &self.tokens,
            allowed: None,
        };
        Ok(self.enroller.admit(requester, payload, known, now_s)?)
    }

    fn consider(
        &mut self,
        requester: &Requester,
        request: Request,
        now_s: i64,
        line: &mut Line,
    ) -> Result<Certificate, Stop> {
        let wanted = Wanted::of(&request);
        line.asked_for(&wanted);
        self.allowed.refresh()?;
        self.give(requester, &wanted, request, now_s, line)
    }

    /// Decides, and enters what is issued before anybody can decide otherwise.
    fn give(
        &mut self,
        requester: &Requester,
        wanted: &Wanted,
        request: Request,
        now_s: i64,
        line: &mut Line,
    ) -> Result<Certificate, Stop> {
        let Self {
            authority,
            inventory,
            tokens,
            allowed,
            enroller,
            validity,
            ..
        } = self;
        let mut given = None;
        inventory.append_if(|inventory| {
            let known = Known {
                inventory,
                tokens,
                allowed: allowed.list(),
            };
            let (grant, before) = match enroller.decide(requester, wanted, known, now_s) {
                Decision::Refuse(refusal) => return Err(Stop::Refused(refusal)),
                Decision::Issue(grant) => (grant, None),
                Decision::Repeat { serial, grant } => (grant, inventory.with_serial(&serial)),
            };
            line.granted(&grant);
            let request = match request.common_name() {
                Some(_) => request,
                None => request.made_out_to(&grant.id),
            };
            let left_out = request.check(&grant.id, Kind::Device);
            line.left_out(left_out.map_err(Refusal::from)?);
            if let Some(entry) = before
                && let Some(certificate) = kept(authority.dir(), entry)?
            {
                line.repeated(&certificate.serial);
                given = Some(certificate);
                return Ok(Vec::new());
            }
            let (entry, certificate) =
                sign(authority, *validity, &grant, wanted, &request).map_err(refused_or_failed)?;
            if certificate.not_after <= now_s {
                let path = authority.certificate_path();
                return Err(CertsError::AuthorityExpired(path).into());
            }
            line.issued(&certificate.serial);
            given = Some(certificate);
            Ok(vec![entry])
        })?;
        let certificate = given.ok_or_else(|| Stop::Refused(unavailable()))?;
        keep(self.authority.dir(), &certificate)?;
        Ok(certificate)
    }
}

/// Why there is no certificate.
enum Stop {
    Refused(Refusal),
    Failed(CertsError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<CertsError> for Stop {
    fn from(error: CertsError) -> Self {
        Self::Failed(error)
    }
}

/// That the authority is held to other names is the requester's matter, everything else is ours.
fn refused_or_failed(error: CertsError) -> Stop {
    match error {
        CertsError::NotPermitted { .. } => {
            Stop::Refused(Refusal::new(Word::IdNotAllowed, error.to_string()))
        }
        error => Stop::Failed(error),
    }
}

fn unavailable() -> Refusal {
    Refusal::new(
        Word::Unavailable,
        "the enrolment service cannot issue at present: ask again later, its log says why",
    )
}

fn one_token(property: Option<String>, inside: Option<String>) -> Result<Option<String>, Refusal> {
    match (property, inside) {
        (Some(property), Some(inside)) if property != inside => Err(Refusal::new(
            Word::BadRequest,
            "one token came as user property and another in the payload: send one",
        )),
        (property, inside) => Ok(property.or(inside)),
    }
}

fn sign(
    authority: &Authority,
    validity: Validity,
    grant: &Grant,
    wanted: &Wanted,
    request: &Request,
) -> Result<(Entry, Certificate), CertsError> {
    let order = Order::device(&grant.id)?.valid(validity);
    let signed = authority.sign(&order, request.public_key())?;
    let entry = Entry {
        enrolled_by: Some(grant.enrolled_by.clone()),
        public_key: Some(wanted.public_key.clone()),
        ..Entry::issued(&order, &signed)
    };
    let certificate = Certificate {
        chain_pem: signed.chain_pem,
        der: signed.certificate_der,
        serial: signed.serial_hex,
        not_after: signed.not_after_unix_s,
    };
    Ok((entry, certificate))
}

/// The certificate of `entry`, if its file is there and whole.
fn kept(dir: &Path, entry: &Entry) -> Result<Option<Certificate>, CertsError> {
    let Some(chain_pem) = files::read(&kept_path(dir, &entry.serial))? else {
        return Ok(None);
    };
    let Ok((_, block)) = x509_parser::pem::parse_x509_pem(chain_pem.as_bytes()) else {
        return Ok(None);
    };
    Ok(Some(Certificate {
        der: block.contents,
        chain_pem,
        serial: entry.serial.clone(),
        not_after: entry.not_after,
    }))
}

fn keep(dir: &Path, certificate: &Certificate) -> Result<(), CertsError> {
    let path = kept_path(dir, &certificate.serial);
    match files::write_new(&path, &certificate.chain_pem, Access::Everyone) {
        Err(CertsError::AlreadyExists(_)) => Ok(()),
        written => written,
    }
}

fn kept_path(dir: &Path, serial: &str) -> PathBuf {
    dir.join("enrolled").join(format!("{serial}.crt"))
}

#[cfg(test)]
mod tests;
