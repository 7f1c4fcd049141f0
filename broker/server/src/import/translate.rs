//! From sorted lines to the files: listeners, users, rules, limits.

use super::document::{Document, Entry, quoted};
use super::lines::{Line, beside};
use super::listener::{LeftOut, OurListener, Task};
use super::sorted::Sorted;
use super::{AclForm, Import, ImportError, ImportedFile, Status};
use crate::acl_file;
use crate::password_import;
use motemq_core::{Acl, import_mosquitto};
use std::collections::BTreeSet;
use std::path::Path;

pub(super) fn translate(
    conf: &Path,
    lines: Vec<Line>,
    acl_form: AclForm,
) -> Result<Import, ImportError> {
    let mut translator = Translator {
        conf,
        acl_form,
        sorted: Sorted::new(lines),
        document: Document::default(),
        files: Vec::new(),
    };
    let listeners = translator.listeners();
    if listeners.is_empty() {
        return Err(ImportError::NoListener(translator.sorted.reports()));
    }
    let count = listeners.len();
    translator.persistence();
    for listener in listeners {
        let OurListener {
            name, entries, tls, ..
        } = listener;
        let named = std::iter::once(Entry::new("name", quoted(&name), ""));
        translator
            .document
            .add("[[listeners]]", named.chain(entries).collect());
        if !tls.is_empty() {
            translator.document.add("[listeners.tls]", tls);
        }
    }
    translator.limits();
    translator.log();
    Ok(translator.finish(count))
}

struct Translator<'a> {
    conf: &'a Path,
    acl_form: AclForm,
    sorted: Sorted,
    document: Document,
    files: Vec<ImportedFile>,
}

impl Translator<'_> {
    fn listeners(&mut self) -> Vec<OurListener> {
        let (is_local_only, first) = self.default_listener();
        let passwords = self.pick("password_file", first);
        let rules = self.pick("acl_file", first);
        let mut ours: Vec<OurListener> = Vec::new();
        for index in first..self.sorted.listeners.len() {
            let is_anonymous = self.is_anonymous(index, is_local_only);
            let task = Task {
                conf: self.conf,
                index,
                is_local_only,
                is_anonymous,
                count: ours.len(),
            };
            let translated = match self.conflict(index, &passwords, &rules, is_anonymous) {
                Some(left_out) => Err(left_out),
                None => task.translate(&mut self.sorted),
            };
            match translated {
                Ok(mut listener) => {
                    let is_taken = |name: &String| ours.iter().any(|known| known.name == *name);
                    if is_taken(&listener.name) {
                        listener.name = format!("{}-{}", listener.name, ours.len() + 1);
                    }
                    ours.push(listener);
                }
                Err(left_out) => self.leave_out(index, left_out),
            }
        }
        if !ours.is_empty() {
            self.users(passwords);
            self.rules(rules, &ours);
        }
        ours
    }

    /// Whether nothing says where to listen, and the first listener that mosquitto has: the default one, 0, or the next.
    fn default_listener(&self) -> (bool, usize) {
        let Some(default) = self.sorted.listeners.first() else {
            return (false, 0);
        };
        let has = |name: &str| default.settings.contains_key(name);
        let has_place = has("port") || has("bind_address");
        let others = self.sorted.listeners.len() - 1;
        let is_local_only = others == 0 && !has_place;
        // mosquitto has it as soon as anything is said about it; who may log in there says nothing.
        let is_about_place = |name: &String| !SECURITY.contains(&name.as_str());
        let is_there = others == 0 || default.settings.keys().any(is_about_place);
        (is_local_only, usize::from(!is_there))
    }

    /// What holds for a listener of an option about who may do what.
    fn security(&self, index: usize, name: &str) -> Option<usize> {
        match self.sorted.is_per_listener {
            true => self
                .sorted
                .listeners
                .get(index)?
                .settings
                .get(name)
                .copied(),
            false => self.sorted.global.get(name).copied(),
        }
    }

    fn is_anonymous(&mut self, index: usize, is_local_only: bool) -> bool {
        let of_listener = self.sorted.listeners.get(index);
        let own =
            of_listener.and_then(|listener| listener.settings.get("listener_allow_anonymous"));
        let line = own
            .copied()
            .or_else(|| self.security(index, "allow_anonymous"));
        let Some(line) = line else {
            return is_local_only;
        };
        let is_true = match self.sorted.value(line) {
            "true" => true,
            "false" => false,
            _ => return false,
        };
        let has_users = self.security(index, "password_file").is_some();
        let (status, remark) = match is_true && !has_users {
            true => (
                Status::Differs,
                "there are no users: clients that send a user name get in as anonymous, and it stands in no rule",
            ),
            false => (Status::Translated, ""),
        };
        self.sorted
            .note(line, status, "listeners.anonymous", remark);
        is_true
    }

    /// The line that names the file in force: users and rules are of the whole broker.
    fn pick(&self, name: &str, first: usize) -> Option<usize> {
        (first..self.sorted.listeners.len()).find_map(|index| self.security(index, name))
    }

    /// Whether users or rules of this listener are others than those in force, so that somebody could do more.
    fn conflict(
        &self,
        index: usize,
        passwords: &Option<usize>,
        rules: &Option<usize>,
        is_anonymous: bool,
    ) -> Option<LeftOut> {
        if !self.sorted.is_per_listener {
            return None;
        }
        let own = |name| self.security(index, name);
        let text = |line: &Option<usize>| line.map(|line| self.sorted.value(line).to_owned());
        for (name, chosen) in [("password_file", passwords), ("acl_file", rules)] {
            let line = own(name);
            if line.is_some() && text(&line) != text(chosen) {
                return Some(LeftOut {
                    line,
                    reason: format!(
                        "the listener is left out: users and rules are the broker's here, and {name} of another listener differs; run a broker of its own for it"
                    ),
                });
            }
        }
        let settings = &self.sorted.listeners.get(index)?.settings;
        let has_names = settings.contains_key("use_identity_as_username");
        let is_opened =
            own("password_file").is_none() && passwords.is_some() && !is_anonymous && !has_names;
        is_opened.then(|| LeftOut {
            line: None,
            reason: "the listener is left out: it has no password_file, so nobody could log in there, and the users of the other listeners could here".to_owned(),
        })
    }

    fn leave_out(
        &mut self,
        index: usize,
        LeftOut {
            line: cause,
            reason,
        }: LeftOut,
    ) {
        let Some(listener) = self.sorted.listeners.get(index) else {
            return;
        };
        let head = listener.line;
        let lines: Vec<usize> = head
            .into_iter()
            .chain(listener.settings.values().copied())
            .collect();
        for line in lines {
            let is_cause = cause == Some(line) || (cause.is_none() && head == Some(line));
            let remark = match is_cause {
                true => reason.clone(),
                false => match cause.or(head) {
                    Some(cause) => {
                        format!("its listener is left out, see {}", self.sorted.place(cause))
                    }
                    None => reason.clone(),
                },
            };
            self.sorted.note(line, Status::Left, "", &remark);
        }
    }

    fn users(&mut self, line: Option<usize>) {
        let Some(line) = line else { return };
        let path = beside(self.conf, self.sorted.value(line));
        match password_import::converted(&path) {
            Ok(text) => {
                self.files.push(ImportedFile { name: USERS, text });
                let entry = Entry::new("password_file", quoted(USERS), self.sorted.place(line));
                self.document.set("auth", entry);
                self.note_same(
                    "password_file",
                    line,
                    Status::Translated,
                    "auth.password_file",
                    "",
                );
            }
            Err(error) => {
                let remark =
                    format!("no user can log in by password until this is put right: {error}");
                self.note_same("password_file", line, Status::Left, "", &remark);
            }
        }
    }

    fn rules(&mut self, line: Option<usize>, ours: &[OurListener]) {
        let Some(line) = line else {
            if self.sorted.has_plugin {
                // The plugin may have been what held them back.
                self.deny_everything("a plugin decided, or may have");
            }
            return;
        };
        let path = beside(self.conf, self.sorted.value(line));
        match self.translated_rules(&path) {
            Ok((file, key)) => {
                let name = file.name;
                self.files.push(file);
                self.document.set(
                    "auth",
                    Entry::new(key, quoted(name), self.sorted.place(line)),
                );
                let lacks =
                    |listener: &OurListener| self.security(listener.index, "acl_file").is_none();
                let lacking = ours.iter().any(lacks);
                let (status, remark) = match lacking {
                    true => (
                        Status::Differs,
                        "it holds for all listeners, those without an acl_file too",
                    ),
                    false => (Status::Translated, ""),
                };
                self.note_same("acl_file", line, status, &format!("auth.{key}"), remark);
            }
            Err(why) => {
                self.deny_everything("the rules of mosquitto could not be read");
                let remark =
                    format!("everything is denied ({DENIED}) until this is put right: {why}");
                self.note_same("acl_file", line, Status::Left, "auth.acl_file", &remark);
            }
        }
    }

    fn translated_rules(&self, path: &Path) -> Result<(ImportedFile, &'static str), String> {
        let text = acl_file::read(path).map_err(|error| error.to_string())?;
        let listed = |errors: Vec<motemq_core::AclError>| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            format!("{}: {}", path.display(), errors.join("; "))
        };
        match self.acl_form {
            AclForm::Mosquitto => {
                Acl::parse_mosquitto(&text).map_err(listed)?;
                Ok((
                    ImportedFile {
                        name: THEIR_RULES,
                        text,
                    },
                    "mosquitto_acl_file",
                ))
            }
            AclForm::Own => {
                let text = import_mosquitto(&text).map_err(listed)?;
                Ok((
                    ImportedFile {
                        name: OUR_RULES,
                        text,
                    },
                    "acl_file",
                ))
            }
        }
    }

    fn deny_everything(&mut self, why: &str) {
        let text = format!("# Everything is denied: {why}.\n[everyone]\ndeny all #\n");
        self.files.push(ImportedFile { name: DENIED, text });
        self.document
            .set("auth", Entry::new("acl_file", quoted(DENIED), why));
    }

    /// Notes a line, and those of other listeners that say the same.
    fn note_same(&mut self, name: &str, line: usize, status: Status, key: &str, remark: &str) {
        let text = self.sorted.value(line).to_owned();
        let of_listeners = self.sorted.listeners.iter();
        let lines: BTreeSet<usize> = of_listeners
            .filter_map(|listener| listener.settings.get(name).copied())
            .chain([line])
            .filter(|line| self.sorted.value(*line) == text)
            .collect();
        for line in lines {
            self.sorted.note(line, status, key, remark);
        }
    }

    fn persistence(&mut self) {
        let Some(line) = self.sorted.global.get("persistence").copied() else {
            return;
        };
        match self.sorted.value(line) {
            "false" => {
                let origin = self.sorted.place(line);
                self.document
                    .top
                    .push(Entry::new("data_dir", "\"\"", origin));
                let remark = "nothing is on disk; without a data_dir tools find the broker only if admin.socket is an absolute path";
                self.sorted.note(line, Status::Differs, "data_dir", remark);
            }
            "true" => {
                let remark = "what mosquitto has stored is not taken over: sessions begin anew, retained messages can be copied (FROM-MOSQUITTO.md)";
                self.sorted.note(line, Status::Differs, "data_dir", remark);
            }
            _ => {}
        }
    }

    fn limits(&mut self) {
        self.flags();
        let packet = self
            .number("max_packet_size", &PACKET)
            .unwrap_or(PACKET_DEFAULT);
        self.number(
            "message_size_limit",
            &Limit {
                zero: packet,
                ..PAYLOAD
            },
        );
        for (name, limit) in LIMITS {
            self.number(name, &limit);
        }
        self.expiry();
        self.aliases();
        let defaults = [
            ("session_expiry_max_s", "4294967295"),
            ("inflight_messages_max", "20"),
            ("queue_messages_max", "1000"),
            ("packet_bytes_max", "2000000"),
        ];
        for (key, value) in defaults {
            self.default(key, value);
        }
        self.default("payload_bytes_max", &packet.to_string());
        self.document.set(
            "limits",
            Entry::new("queue_full", "\"drop-newest\"", "as mosquitto does"),
        );
    }

    /// Writes a default of mosquitto where no line says anything.
    fn default(&mut self, key: &str, value: &str) {
        if !self.document.has("limits", key) {
            let origin = "mosquitto's default";
            self.document.set("limits", Entry::new(key, value, origin));
        }
    }

    /// A number that is written under another name.
    fn number(&mut self, name: &str, limit: &Limit) -> Option<u64> {
        let line = self.sorted.global.get(name).copied()?;
        let full = format!("{}.{}", limit.section, limit.key);
        let Ok(number) = self.sorted.value(line).parse::<u64>() else {
            self.sorted.note(line, Status::Left, "", "no number");
            return None;
        };
        let wished = if number == 0 { limit.zero } else { number };
        if wished == 0 && limit.zero == 0 && !limit.takes_zero {
            self.sorted
                .note(line, Status::Unneeded, "", "0 asks for what is so anyway");
            return None;
        }
        let held = match (wished, limit.takes_zero) {
            (0, true) => 0,
            _ => wished.clamp(limit.least, limit.most),
        };
        if held != wished && limit.is_strict {
            let remark = format!(
                "{full} is at least {}: the broker itself needs as much",
                limit.least
            );
            self.sorted.note(line, Status::Left, "", &remark);
            return None;
        }
        let (status, remark) = match (held == wished, limit.remark) {
            (false, _) => (
                Status::Differs,
                format!("{held}, the nearest that it takes"),
            ),
            (true, "") => (Status::Translated, String::new()),
            (true, remark) => (Status::Differs, remark.to_owned()),
        };
        let entry = Entry::new(limit.key, held.to_string(), self.sorted.place(line));
        self.document.set(limit.section, entry);
        self.sorted.note(line, status, &full, &remark);
        Some(held)
    }

    fn expiry(&mut self) {
        let name = "persistent_client_expiration";
        let Some(line) = self.sorted.global.get(name).copied() else {
            return;
        };
        let text = self.sorted.value(line);
        let unit = text.chars().last().unwrap_or_default();
        let number = text
            .strip_suffix(unit)
            .and_then(|number| number.parse::<u64>().ok());
        let unit_s = match unit {
            'h' => 3_600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            'm' => 30 * 86_400,
            'y' => 365 * 86_400,
            _ => 0,
        };
        let Some(seconds) = number
            .map(|number| number.saturating_mul(unit_s))
            .filter(|s| *s > 0)
        else {
            self.sorted
                .note(line, Status::Left, "", "a number and one of h, d, w, m, y");
            return;
        };
        let seconds = seconds.min(u32::MAX.into());
        let entry = Entry::new(
            "session_expiry_max_s",
            seconds.to_string(),
            self.sorted.place(line),
        );
        self.document.set("limits", entry);
        self.sorted
            .note(line, Status::Translated, "limits.session_expiry_max_s", "");
    }

    /// One number for all listeners, and for both directions.
    fn aliases(&mut self) {
        let of_listeners = self.sorted.listeners.iter();
        let lines: Vec<usize> = of_listeners
            .filter_map(|listener| listener.settings.get("max_topic_alias").copied())
            .chain(self.sorted.global.get("max_topic_alias_broker").copied())
            .collect();
        let number = |line: &usize| self.sorted.value(*line).parse::<u16>().ok();
        let most = lines.iter().filter_map(number).max();
        let mut origin = String::new();
        for line in lines {
            let wished = self.sorted.value(line).parse::<u16>().ok();
            match (wished, most) {
                (Some(wished), Some(most)) if wished < most => {
                    let remark =
                        format!("{most}: the number is one for all listeners and both directions");
                    self.sorted
                        .note(line, Status::Differs, "limits.topic_alias_max", &remark);
                }
                (Some(_), _) => {
                    origin = self.sorted.place(line);
                    self.sorted
                        .note(line, Status::Translated, "limits.topic_alias_max", "");
                }
                (None, _) => self
                    .sorted
                    .note(line, Status::Left, "", "no number from 0 to 65535"),
            }
        }
        let Some(most) = most else { return };
        self.document.set(
            "limits",
            Entry::new("topic_alias_max", most.to_string(), origin),
        );
    }

    /// Lines of which only the value says whether they mean anything here.
    fn flags(&mut self) {
        for name in ["per_listener_settings", "include_dir"] {
            if let Some(line) = self.sorted.global.get(name).copied() {
                self.sorted.note(line, Status::Translated, "", "");
            }
        }
    }

    fn log(&mut self) {
        let mut level = None;
        let mut origin = String::new();
        for line in self.sorted.log_types.clone() {
            for kind in self.sorted.value(line).to_owned().split_whitespace() {
                let wished = match kind {
                    "none" => Level::Off,
                    "error" => Level::Error,
                    "warning" => Level::Warn,
                    "notice" | "information" => Level::Info,
                    "debug" | "all" => Level::Debug,
                    "subscribe" | "unsubscribe" | "websockets" | "internal" => {
                        self.sorted.note(
                            line,
                            Status::Unneeded,
                            "",
                            "no line of its own; log.level = \"debug\" has what goes wrong",
                        );
                        continue;
                    }
                    _ => continue,
                };
                origin = self.sorted.place(line);
                level = level.max(Some(wished));
                self.sorted.note(line, Status::Translated, "log.level", "");
            }
        }
        for line in self.sorted.log_dests.clone() {
            match self.sorted.value(line).split(' ').next().unwrap_or_default() {
                "none" => {
                    level = Some(Level::Off);
                    origin = self.sorted.place(line);
                    self.sorted.note(line, Status::Translated, "log.level", "");
                }
                "stderr" => self.sorted.note(line, Status::Translated, "", ""),
                "stdout" => self.sorted.note(line, Status::Differs, "", "the log goes to standard error"),
                "syslog" => self.sorted.note(line, Status::Differs, "", "the log goes to standard error, which systemd puts into the journal"),
                "file" => self.sorted.note(line, Status::Left, "", "the log goes to standard error: systemd has it, StandardError=append:FILE in the unit writes it to a file"),
                "topic" => self.sorted.note(line, Status::Left, "", "the log is not published; motemq trace shows what clients do, the metrics count what goes wrong"),
                _ => self.sorted.note(line, Status::Left, "", "the log goes to standard error and nowhere else"),
            }
        }
        let messages = self.sorted.global.get("connection_messages").copied();
        let is_quiet = messages.is_some_and(|line| self.sorted.value(line) == "false");
        if let Some(line) = messages {
            self.sorted.note(line, Status::Translated, "log.level", "");
            if is_quiet && level.is_none() {
                origin = self.sorted.place(line);
            }
        }
        if level.is_none() && !is_quiet {
            return;
        }
        let level = level.unwrap_or(Level::Info);
        let text = match is_quiet && level > Level::Warn {
            true => format!("{},motemq::driver=warn", level.label()),
            false => level.label().to_owned(),
        };
        self.document
            .set("log", Entry::new("level", quoted(&text), origin));
    }

    fn finish(mut self, listeners: usize) -> Import {
        let name = self.conf.display().to_string();
        let name = name.replace(char::is_control, "?");
        let head = format!(
            "# Translated by motemq import from {name}. Behind each key stands the line that it comes from; what could not be\n# translated is not here: the report of the import has it. Every other key: deploy/motemq.toml\n"
        );
        let text = self.document.text(&head);
        let configuration = ImportedFile {
            name: CONFIGURATION,
            text,
        };
        self.files.insert(0, configuration);
        Import {
            files: self.files,
            lines: self.sorted.reports(),
            listeners,
        }
    }
}

/// How much is logged.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

impl Level {
    const fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// A number of mosquitto's under a key of ours.
struct Limit {
    section: &'static str,
    key: &'static str,
    least: u64,
    most: u64,
    /// What 0 stands for.
    zero: u64,
    /// 0 means the same here.
    takes_zero: bool,
    /// Outside of the range it is not translated at all.
    is_strict: bool,
    /// What differs, if anything does.
    remark: &'static str,
}

impl Limit {
    const fn new(key: &'static str, least: u64, most: u64, zero: u64) -> Self {
        Self {
            section: "limits",
            key,
            least,
            most,
            zero,
            takes_zero: false,
            is_strict: false,
            remark: "",
        }
    }
}

/// The names of the files.
const CONFIGURATION: &str = "motemq.toml";
const USERS: &str = "users";
const THEIR_RULES: &str = "acl.mosquitto";
const OUR_RULES: &str = "acl.conf";
const DENIED: &str = "acl.conf";
/// Options that say who may do what.
const SECURITY: [&str; 6] = [
    "acl_file",
    "allow_anonymous",
    "listener_allow_anonymous",
    "allow_zero_length_clientid",
    "auto_id_prefix",
    "auth_plugin_deny_special_chars",
];
const PACKET_BYTES_MAX: u64 = 268_435_460;
/// That of mosquitto 2.1.
const PACKET_DEFAULT: u64 = 2_000_000;
const PACKET: Limit = Limit::new("packet_bytes_max", 256, PACKET_BYTES_MAX, PACKET_BYTES_MAX);
const PAYLOAD: Limit = Limit {
    remark: "MQTT 3.1.1 clients that publish more are disconnected; mosquitto acknowledges and drops",
    ..Limit::new("payload_bytes_max", 1, PACKET_BYTES_MAX, PACKET_BYTES_MAX)
};
const LIMITS: [(&str, Limit); 7] = [
    (
        "max_inflight_messages",
        Limit::new("inflight_messages_max", 1, 65_535, 65_535),
    ),
    (
        "max_queued_messages",
        Limit::new("queue_messages_max", 1, 1_000_000_000, 1_000_000_000),
    ),
    (
        "max_queued_bytes",
        Limit::new("queue_bytes_max", 1_024, 1 << 40, 1 << 40),
    ),
    (
        "max_keepalive",
        Limit::new("keep_alive_max_s", 1, 65_535, 65_535),
    ),
    (
        "memory_limit",
        Limit {
            is_strict: true,
            remark: "the resident set of the process, not its heap",
            ..Limit::new("memory_bytes_max", 32 << 20, 1 << 40, 0)
        },
    ),
    (
        "sys_interval",
        Limit {
            section: "sys",
            takes_zero: true,
            ..Limit::new("interval_s", 1, 86_400, 0)
        },
    ),
    (
        "websockets_headers_size",
        Limit::new("websocket_head_bytes_max", 512, 1 << 20, 0),
    ),
];
