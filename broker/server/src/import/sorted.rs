//! The lines by what they are about: the broker, a listener, a bridge. What is certain about a line without more is reported here.

use super::lines::Line;
use super::options::{self, Fate, Scope};
use super::{LineReport, Status};
use std::collections::BTreeMap;

/// The lines, and what became of them so far.
#[derive(Debug)]
pub(super) struct Sorted {
    pub(super) lines: Vec<Line>,
    reports: Vec<Option<(Status, String, String)>>,
    pub(super) global: Settings,
    /// The default listener first.
    pub(super) listeners: Vec<TheirListener>,
    /// Lines that may be repeated.
    pub(super) log_types: Vec<usize>,
    pub(super) log_dests: Vec<usize>,
    /// Something else decides who may log in, or who may do what.
    pub(super) has_plugin: bool,
    /// Who may log in, and do what, is said listener by listener.
    pub(super) is_per_listener: bool,
}

/// The lines that hold, by the name of their option.
pub(super) type Settings = BTreeMap<String, usize>;

#[derive(Debug, Default)]
pub(super) struct TheirListener {
    /// Its `listener` line.
    pub(super) line: Option<usize>,
    pub(super) settings: Settings,
}

impl Sorted {
    pub(super) fn new(lines: Vec<Line>) -> Self {
        let is_per_listener = lines
            .iter()
            .rev()
            .find(|line| line.name == "per_listener_settings")
            .is_some_and(|line| line.value == "true");
        let mut sorted = Self {
            reports: vec![None; lines.len()],
            lines: Vec::new(),
            global: Settings::new(),
            listeners: vec![TheirListener::default()],
            log_types: Vec::new(),
            log_dests: Vec::new(),
            has_plugin: false,
            is_per_listener,
        };
        let mut is_in_bridge = false;
        for (index, line) in lines.iter().enumerate() {
            sorted.take(index, line, &mut is_in_bridge);
        }
        sorted.lines = lines;
        sorted
    }

    fn take(&mut self, index: usize, line: &Line, is_in_bridge: &mut bool) {
        let Some(option) = options::find(&line.name) else {
            let remark = "no option of mosquitto that is known here; mosquitto refuses what it does not know";
            self.note(index, Status::Left, "", remark);
            return;
        };
        match option.scope {
            Scope::Bridge => {
                let remark = match (line.name.as_str(), *is_in_bridge) {
                    ("connection", _) | (_, false) => option.remark,
                    _ => "part of the bridge above",
                };
                *is_in_bridge = true;
                self.note(index, Status::Left, "", remark);
                return;
            }
            _ if line.name == "listener" => {
                self.listeners.push(TheirListener {
                    line: Some(index),
                    settings: Settings::new(),
                });
                return;
            }
            _ => {}
        }
        self.has_plugin |= line.name.starts_with("plugin") || line.name.starts_with("auth_plugin");
        match line.name.as_str() {
            "log_type" => return self.log_types.push(index),
            "log_dest" => return self.log_dests.push(index),
            _ => {}
        }
        let is_of_listener = match option.scope {
            Scope::Listener => true,
            Scope::Security => self.is_per_listener || line.name == "listener_allow_anonymous",
            _ => false,
        };
        let settings = match self.listeners.last_mut() {
            Some(listener) if is_of_listener => &mut listener.settings,
            _ => &mut self.global,
        };
        let before = settings.insert(line.name.clone(), index);
        if option.name.ends_with('*') || option.fate != Fate::Translated {
            self.note_by_rule(index, line, option);
        } else if let Some(before) = before {
            self.note(
                before,
                Status::Unneeded,
                "",
                "another line below says it anew",
            );
        }
    }

    /// Reports a line whose option is never translated, whatever its value, but for the value that is the default anyway.
    fn note_by_rule(&mut self, index: usize, line: &Line, option: &options::MosquittoOption) {
        let harmless = HARMLESS
            .iter()
            .any(|(name, value)| *name == line.name && *value == line.value);
        let (status, remark) = match (option.fate, harmless) {
            (_, true) => (Status::Unneeded, "so it is here"),
            (Fate::Unneeded, _) => (Status::Unneeded, option.remark),
            _ => (Status::Left, option.remark),
        };
        self.note(index, status, "", remark);
    }

    /// Says what became of a line; the last word counts.
    pub(super) fn note(&mut self, index: usize, status: Status, key: &str, remark: &str) {
        if let Some(report) = self.reports.get_mut(index) {
            *report = Some((status, key.to_owned(), remark.to_owned()));
        }
    }

    /// The value of a line.
    pub(super) fn value(&self, index: usize) -> &str {
        self.lines.get(index).map_or("", |line| &line.value)
    }

    /// Where a line stands.
    pub(super) fn place(&self, index: usize) -> String {
        self.lines.get(index).map(Line::place).unwrap_or_default()
    }

    /// The report on every line.
    pub(super) fn reports(&self) -> Vec<LineReport> {
        let lines = self.lines.iter().zip(&self.reports);
        let report = |(line, report): (&Line, &Option<_>)| {
            let (status, key, remark) = match report.clone() {
                Some(known) => known,
                None => (Status::Left, String::new(), NOT_LOOKED_AT.to_owned()),
            };
            LineReport {
                file: line.file.clone(),
                line: line.number,
                text: line.shown(),
                status,
                key,
                remark,
            }
        };
        lines.map(report).collect()
    }
}

/// Options that are not translated, with the value that asks for what is so anyway.
const HARMLESS: [(&str, &str); 11] = [
    ("allow_duplicate_messages", "false"),
    ("allow_zero_length_clientid", "true"),
    ("accept_protocol_versions", "3, 4, 5"),
    ("accept_protocol_versions", "3,4,5"),
    ("disable_client_cert_date_checks", "false"),
    ("enable_proxy_protocol", "0"),
    ("max_inflight_bytes", "0"),
    ("queue_qos0_messages", "false"),
    ("retain_available", "true"),
    ("upgrade_outgoing_qos", "false"),
    ("use_subject_as_username", "false"),
];
const NOT_LOOKED_AT: &str =
    "its value is not one that mosquitto takes, or it says nothing without another option";
