//! Each decision as a line of JSON, and as one for people. Never a token.
//!
//! Refusals would fill the disk as fast as anybody asks: in ten seconds there are lines of [`REFUSALS_MAX`], one of them for those that
//! are too many, and the next line has the number of those that have none. What was issued always has a line. What clients said is cut. The file is opened for each line, so it can be moved away at any time.

use crate::CertsError;
use crate::enrol::{Grant, Refusal, Requester, Wanted, Word, cut};
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

/// One decision.
#[derive(Debug, Default, Serialize)]
pub(super) struct Line {
    at: i64,
    outcome: &'static str,
    /// What the request came over, unless that was MQTT.
    #[serde(skip_serializing_if = "Option::is_none")]
    over: Option<&'static str>,
    /// The network address that it came from, where it came from there directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login_serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enrolled_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// How many refusals have no line, since the last line.
    #[serde(skip_serializing_if = "is_zero")]
    unwritten: u64,
}

impl Line {
    pub(super) fn at(now_s: i64) -> Self {
        Self {
            at: now_s,
            ..Self::default()
        }
    }

    /// Says that the request came over EST.
    pub(super) fn over_est(mut self, address: IpAddr) -> Self {
        self.over = Some("est");
        self.address = Some(address);
        self
    }

    pub(super) fn asked_by(&mut self, requester: &Requester) {
        self.client_id = Some(cut(&requester.client_id).into_owned());
        self.login = Some(requester.login.as_str());
        self.user = requester.user.as_deref().map(said);
        self.login_serial = requester.login.serial().map(said);
    }

    pub(super) fn asked_for(&mut self, wanted: &Wanted) {
        self.id = wanted
            .common_name
            .as_deref()
            .map(said)
            .or_else(|| self.client_id.clone());
        self.key_type = Some(wanted.key_type.clone());
        self.public_key = Some(wanted.public_key.clone());
    }

    pub(super) fn granted(&mut self, grant: &Grant) {
        self.id = Some(grant.id.clone());
        self.enrolled_by = Some(grant.enrolled_by.clone());
        self.warnings.extend(grant.warnings.iter().cloned());
    }

    pub(super) fn left_out(&mut self, what: Vec<String>) {
        let warnings = what.iter().map(|what| format!("left out: {}", cut(what)));
        self.warnings.extend(warnings.take(WARNINGS_MAX));
    }

    pub(super) fn issued(&mut self, serial: &str) {
        self.outcome = "issued";
        self.serial = Some(serial.to_owned());
    }

    pub(super) fn repeated(&mut self, serial: &str) {
        self.outcome = "repeated";
        self.serial = Some(serial.to_owned());
    }

    /// `cause` is for the operator only.
    pub(super) fn refuse(&mut self, refusal: &Refusal, cause: Option<String>) {
        self.outcome = "refused";
        self.reason = Some(refusal.word.as_str());
        self.serial = None;
        self.message = Some(cause.unwrap_or_else(|| refusal.message.clone()));
    }

    /// The request cannot be answered at all.
    pub(super) fn drop(&mut self, why: String) {
        self.outcome = DROPPED;
        self.message = Some(why);
    }

    /// Whether the line is one of those that are counted when they are many.
    fn is_refusal(&self) -> bool {
        ["refused", DROPPED].contains(&self.outcome)
    }

    fn is_busy(&self) -> bool {
        self.reason == Some(Word::Busy.as_str())
    }

    /// For people: what devices chose is quoted, so that it cannot look like something else.
    fn text(&self) -> String {
        let quoted = |text: &Option<String>| match text {
            Some(text) => format!("{text:?}"),
            None => "?".to_owned(),
        };
        let mut text = match self.outcome {
            "refused" => format!(
                "refused {} for {}",
                self.reason.unwrap_or_default(),
                quoted(&self.id)
            ),
            DROPPED => "dropped a request".to_owned(),
            outcome => format!(
                "{outcome} {} to {} by {}",
                self.serial.as_deref().unwrap_or_default(),
                quoted(&self.id),
                quoted(&self.enrolled_by)
            ),
        };
        let (client, login) = (quoted(&self.client_id), self.login.unwrap_or("?"));
        text += &format!(", client {client} with {login}");
        if let Some(whose) = self.login_serial.as_ref().or(self.user.as_ref()) {
            text += &format!(" {}", whose.escape_debug());
        }
        if let (Some(over), Some(address)) = (self.over, self.address) {
            text += &format!(" over {over} from {address}");
        }
        for more in self.message.iter().chain(&self.warnings) {
            text += &format!("; {}", more.escape_debug());
        }
        if self.unwritten > 0 {
            text += &format!("; {} more were refused", self.unwritten);
        }
        text
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The file.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    unwritten: u64,
    /// When counting began, and how many refusals, and among them such as are too many, have a line since.
    since_s: i64,
    refusals: u32,
    is_busy_told: bool,
}

impl Audit {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            unwritten: 0,
            since_s: 0,
            refusals: 0,
            is_busy_told: false,
        }
    }

    /// Writes the line down; returns it for people, or `None` when it is only counted.
    pub(super) fn write(&mut self, line: &mut Line) -> Result<Option<String>, CertsError> {
        if line.is_refusal() && !self.has_room(line) {
            self.unwritten += 1;
            return Ok(None);
        }
        line.unwritten = self.unwritten;
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        options
            .open(&self.path)
            .and_then(|mut file| file.write_all(&bytes))
            .map_err(|error| CertsError::file(&self.path, error))?;
        self.unwritten = 0;
        Ok(Some(line.text()))
    }

    fn has_room(&mut self, line: &Line) -> bool {
        if line.at.abs_diff(self.since_s) >= INTERVAL_S {
            self.since_s = line.at;
            self.refusals = 0;
            self.is_busy_told = false;
        }
        if self.refusals >= REFUSALS_MAX || (line.is_busy() && self.is_busy_told) {
            return false;
        }
        self.refusals += 1;
        self.is_busy_told |= line.is_busy();
        true
    }
}

fn said(text: &str) -> String {
    cut(text).into_owned()
}

const DROPPED: &str = "dropped";
const INTERVAL_S: u64 = 10;
/// How many refusals have a line in each interval.
const REFUSALS_MAX: u32 = 200;
/// How many parts of a request that were left out are named.
const WARNINGS_MAX: usize = 16;
