//! One table of the document, read key by key.
//!
//! Promises:
//! - Each question (`number`, `choice`, `path` ...) is answered by the last override, else by the file, else by the
//!   default; a wrong answer is recorded as an error and replaced by the default, so that reading goes on.
//! - Asking is what makes a key known: what was written and never asked for is an error when the reading ends.
//!
//! Does not know: which keys there are. `read.rs` asks.

use super::error::{ConfigError, ConfigErrors, Hint, Place, Problem};
use super::number::{Parsed, Range, Unit, expected_number, parse_number};
use super::show::{quoted, quoted_list};
use super::source::{File, Override, fold};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What was written and what has been asked, over the whole document.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    file: &'a File,
    overrides: Vec<Override>,
    pub(super) asked: Vec<Asked>,
    unasked: Vec<Unasked>,
    errors: Vec<ConfigError>,
}

/// A key that exists.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    /// Section in general form: empty, `limits`, `listeners`, `listeners.tls`.
    pub(super) section: &'static str,
    pub(super) key: &'static str,
    /// Path for overrides; a listener's holds its name.
    pub(super) path: String,
    /// The accepted numbers, if it is a number.
    pub(super) range: Option<Range>,
    /// Where the value was written.
    pub(super) place: Place,
    /// The value that holds, as the document writes it; none for an absent path.
    pub(super) answer: Option<String>,
    /// The path that holds, if it is one.
    pub(super) file: Option<PathBuf>,
}

/// A key that was written but does not exist in its section.
#[derive(Debug)]
struct Unasked {
    place: Place,
    section: &'static str,
    key: String,
    /// Like it in the same section.
    similar: Hint,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a File, overrides: Vec<Override>, errors: Vec<ConfigError>) -> Self {
        Self {
            file,
            overrides,
            asked: Vec::new(),
            unasked: Vec::new(),
            errors,
        }
    }

    /// Records a mistake.
    pub(super) fn report(&mut self, place: Place, problem: Problem) {
        self.errors.push(ConfigError { place, problem });
    }

    /// Ends the reading: what was never asked for becomes an error.
    pub(super) fn finish(mut self) -> Result<(), ConfigErrors> {
        for unasked in std::mem::take(&mut self.unasked) {
            let problem = self.unknown_key(&unasked);
            self.report(unasked.place, problem);
        }
        for unknown in std::mem::take(&mut self.overrides) {
            if !unknown.known {
                let problem = self.unknown_override(&unknown);
                self.report(unknown.place, problem);
            }
        }
        if self.errors.is_empty() {
            return Ok(());
        }
        self.drop_consequences_of_syntax_errors();
        self.errors
            .sort_by(|left, right| left.place.cmp(&right.place));
        Err(ConfigErrors(self.errors))
    }

    fn unknown_key(&self, unasked: &Unasked) -> Problem {
        let elsewhere = self.asked.iter().find(|asked| asked.key == unasked.key);
        let hint = match elsewhere {
            Some(asked) => Hint::Section(header(asked.section)),
            None => unasked.similar.clone(),
        };
        Problem::UnknownKey {
            key: unasked.key.clone(),
            section: header(unasked.section),
            hint,
        }
    }

    fn unknown_override(&self, unknown: &Override) -> Problem {
        let candidates = self.asked.iter().map(|asked| asked.path.as_str());
        let hint = match Hint::similar(&unknown.path, candidates) {
            Hint::Similar(path) => Hint::Similar(unknown.written_here(&path)),
            other => other,
        };
        Problem::UnknownKey {
            key: unknown.path.clone(),
            section: String::new(),
            hint,
        }
    }

    /// The parser goes on behind a syntax error with what it could recover: what is wrong on the same line, or
    /// missing, may only seem so.
    fn drop_consequences_of_syntax_errors(&mut self) {
        let is_syntax = |error: &ConfigError| matches!(error.problem, Problem::Syntax(_));
        let lines: Vec<usize> = self
            .errors
            .iter()
            .filter(|error| is_syntax(error))
            .filter_map(line)
            .collect();
        if lines.is_empty() {
            return;
        }
        self.errors.retain(|error| {
            let is_missing = matches!(error.problem, Problem::MissingKey { .. });
            let is_on_such_a_line = line(error).is_some_and(|line| lines.contains(&line));
            is_syntax(error) || !(is_missing || is_on_such_a_line)
        });
    }
}

fn line(error: &ConfigError) -> Option<usize> {
    match error.place {
        Place::Line { line, .. } => Some(line),
        _ => None,
    }
}

/// One table of the document; it may be absent.
#[derive(Debug)]
pub(super) struct Section<'r, 'a> {
    pub(super) reader: &'r mut Reader<'a>,
    table: Option<&'a DeTable<'a>>,
    place: Place,
    name: &'static str,
    /// Start of the paths of its overrides; `None` when it has none.
    path: Option<String>,
    asked: Vec<&'static str>,
}

/// A value as it was written.
enum Written<'a> {
    InFile(&'a DeValue<'a>),
    Outside(String),
}

impl<'r, 'a> Section<'r, 'a> {
    /// The document itself.
    pub(super) fn root(reader: &'r mut Reader<'a>, table: &'a DeTable<'a>) -> Self {
        let place = reader.file.whole();
        Self::new(reader, Some(table), place, "", Some(String::new()))
    }

    fn new(
        reader: &'r mut Reader<'a>,
        table: Option<&'a DeTable<'a>>,
        place: Place,
        name: &'static str,
        path: Option<String>,
    ) -> Self {
        let asked = Vec::new();
        Self {
            reader,
            table,
            place,
            name,
            path,
            asked,
        }
    }

    /// The table `key` of this one, called `name` as a whole.
    pub(super) fn table(&mut self, key: &'static str, name: &'static str) -> Section<'_, 'a> {
        self.asked.push(key);
        let mut table = None;
        let mut place = self.place.clone();
        if let Some(value) = self.value_in_file(key) {
            place = self.reader.file.place(value.span());
            table = value.get_ref().as_table();
            if table.is_none() {
                self.wrong_type(
                    key,
                    &place,
                    "a table",
                    &with_article(value.get_ref().type_str()),
                );
            }
        }
        let path = self.path_of(key);
        Section::new(self.reader, table, place, name, path)
    }

    /// Whether anything was written in the table `key` of this one.
    pub(super) fn has_table(&mut self, key: &'static str) -> bool {
        self.asked.push(key);
        let start = self.path_of(key).map(|path| fold(&path) + ".");
        let is_overridden = |start: &String| {
            self.reader
                .overrides
                .iter()
                .any(|setting| setting.path.starts_with(start))
        };
        self.value_in_file(key).is_some() || start.as_ref().is_some_and(is_overridden)
    }

    /// The tables of the array `key`, which the document writes as `[[key]]`; `None` when it is absent.
    pub(super) fn array(&mut self, key: &'static str) -> Option<Vec<(&'a DeTable<'a>, Place)>> {
        self.asked.push(key);
        let value = self.value_in_file(key)?;
        let place = self.reader.file.place(value.span());
        let expected = format!("an array of tables: [[{key}]] before each");
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(
                key,
                &place,
                &expected,
                &with_article(value.get_ref().type_str()),
            );
            return Some(Vec::new());
        };
        if array.is_empty() && key == "listeners" {
            self.reader.report(place, Problem::NoListeners);
        }
        let mut tables = Vec::new();
        for element in array.iter() {
            let place = self.reader.file.place(element.span());
            match element.get_ref().as_table() {
                Some(table) => tables.push((table, place)),
                None => self.wrong_type(
                    key,
                    &place,
                    &expected,
                    &with_article(element.get_ref().type_str()),
                ),
            }
        }
        Some(tables)
    }

    /// One table of an array; it has no overrides until [`Section::accept_overrides`].
    pub(super) fn element(
        &mut self,
        name: &'static str,
        table: Option<&'a DeTable<'a>>,
        place: Place,
    ) -> Section<'_, 'a> {
        Section::new(self.reader, table, place, name, None)
    }

    /// Lets overrides whose paths start with `path` count from here on.
    pub(super) fn accept_overrides(&mut self, path: &str) {
        self.path = Some(path.to_owned());
    }

    /// Notes the value that holds for the key asked for last.
    pub(super) fn note_answer(&mut self, answer: impl Into<String>) {
        if let Some(asked) = self.reader.asked.last_mut() {
            asked.answer = Some(answer.into());
        }
    }

    /// Notes the file that holds for the key asked for last.
    fn note_path(&mut self, path: &Path) {
        if let Some(asked) = self.reader.asked.last_mut() {
            asked.answer = Some(quoted(&path.display().to_string()));
            asked.file = Some(path.to_owned());
        }
    }

    /// A number within `range`.
    pub(super) fn number<T: TryFrom<u64> + std::fmt::Display>(
        &mut self,
        key: &'static str,
        default: T,
        range: Range,
    ) -> T {
        let number = self.checked_number(key, default, range);
        self.note_answer(number.to_string());
        number
    }

    fn checked_number<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        default: T,
        range: Range,
    ) -> T {
        let written = self.written(key);
        if let Some(asked) = self.reader.asked.last_mut() {
            asked.range = Some(range);
        }
        let Some((written, place)) = written else {
            return default;
        };
        let (parsed, found) = match &written {
            Written::Outside(text) => (parse_number(text, range.unit), text.clone()),
            Written::InFile(DeValue::Integer(integer)) => {
                let number = u128::from_str_radix(integer.as_str(), integer.radix());
                let parsed = match integer.as_str().strip_prefix('-') {
                    Some(_) => Some(Parsed::Unfit),
                    None => Some(number.map_or(Parsed::Unfit, Parsed::from)),
                };
                (parsed, integer.to_string())
            }
            Written::InFile(DeValue::String(text)) if range.unit == Unit::Bytes => {
                (parse_number(text, range.unit), text.to_string())
            }
            Written::InFile(other) => (None, with_article(other.type_str())),
        };
        match parsed {
            Some(Parsed::Number(number)) if range.contains(number) => {
                if let Ok(number) = T::try_from(number) {
                    return number;
                }
                self.out_of_range(key, place, range, found);
            }
            Some(_) => self.out_of_range(key, place, range, found),
            None => self.wrong_type(key, &place, expected_number(range.unit), &found),
        }
        default
    }

    fn out_of_range(&mut self, key: &str, place: Place, range: Range, found: String) {
        let key = self.full(key);
        self.reader
            .report(place, Problem::OutOfRange { key, range, found });
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.choice(key, default, &[("true", true), ("false", false)])
    }

    /// One of `values`. In the file, `true` and `false` are written bare and the others as strings.
    pub(super) fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        default: T,
        values: &[(&str, T)],
    ) -> T {
        let choice = self.checked_choice(key, default, values);
        if let Some(chosen) = values.iter().find(|(_, value)| *value == choice) {
            self.note_answer(shown(&[*chosen]).join(""));
        }
        choice
    }

    fn checked_choice<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        values: &[(&str, T)],
    ) -> T {
        let Some((written, place)) = self.written(key) else {
            return default;
        };
        let (word, is_bare) = match written {
            Written::Outside(text) => (text, None),
            Written::InFile(DeValue::Boolean(flag)) => (flag.to_string(), Some(true)),
            Written::InFile(DeValue::String(text)) => (text.to_string(), Some(false)),
            Written::InFile(other) => {
                let expected = format!("one of {}", shown(values).join(", "));
                self.wrong_type(key, &place, &expected, &with_article(other.type_str()));
                return default;
            }
        };
        let is_meant =
            |name: &str| name == word && is_bare.is_none_or(|bare| bare == is_boolean(name));
        if let Some((_, value)) = values.iter().find(|(name, _)| is_meant(name)) {
            return *value;
        }
        self.unknown_value(key, place, word, values);
        default
    }

    /// Records that `found` is not one of `values`.
    pub(super) fn unknown_value<T>(
        &mut self,
        key: &str,
        place: Place,
        found: String,
        values: &[(&str, T)],
    ) {
        let hint = match Hint::similar(&found, values.iter().map(|(name, _)| *name)) {
            Hint::Similar(word) if is_boolean(&word) => Hint::Bare(word),
            other => other,
        };
        let problem = Problem::UnknownValue {
            key: self.full(key),
            values: shown(values),
            found,
            hint,
        };
        self.reader.report(place, problem);
    }

    /// A text and where it was written; `None` when absent or of another kind.
    pub(super) fn text(&mut self, key: &'static str) -> Option<(String, Place)> {
        let text = self.checked_text(key);
        if let Some((text, _)) = &text {
            self.note_answer(quoted(text));
        }
        text
    }

    /// As [`Section::text`], for a key that has a default.
    pub(super) fn text_or(&mut self, key: &'static str, default: &str) -> Option<(String, Place)> {
        let text = self.text(key);
        if text.is_none() {
            self.note_answer(quoted(default));
        }
        text
    }

    fn checked_text(&mut self, key: &'static str) -> Option<(String, Place)> {
        match self.written(key)? {
            (Written::Outside(text), place) => Some((text, place)),
            (Written::InFile(DeValue::String(text)), place) => Some((text.to_string(), place)),
            (Written::InFile(other), place) => {
                self.wrong_type(key, &place, "a string", &with_article(other.type_str()));
                None
            }
        }
    }

    /// The texts of an array, each with its place; `None` when the key is absent. Outside the file they are written as in
    /// it, or with commas between them.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<(String, Place)>> {
        let texts = self.checked_texts(key);
        let all = texts.iter().flatten().map(|(text, _)| text);
        self.note_answer(quoted_list(all));
        texts
    }

    fn checked_texts(&mut self, key: &'static str) -> Option<Vec<(String, Place)>> {
        let expected = "an array of strings";
        match self.written(key)? {
            (Written::Outside(text), place) => {
                let texts = listed(&text);
                Some(
                    texts
                        .into_iter()
                        .map(|text| (text, place.clone()))
                        .collect(),
                )
            }
            (Written::InFile(DeValue::Array(array)), _) => {
                let mut texts = Vec::new();
                for element in array.iter() {
                    let place = self.reader.file.place(element.span());
                    match element.get_ref() {
                        DeValue::String(text) => texts.push((text.to_string(), place)),
                        other => {
                            let found = with_article(other.type_str());
                            self.wrong_type(key, &place, expected, &format!("{found} in it"));
                        }
                    }
                }
                Some(texts)
            }
            (Written::InFile(other), place) => {
                self.wrong_type(key, &place, expected, &with_article(other.type_str()));
                None
            }
        }
    }

    /// A text that has to be there and whether it was; an empty one counts as absent.
    pub(super) fn required_text(&mut self, key: &'static str) -> Option<(String, Place)> {
        let errors_before = self.reader.errors.len();
        let text = self.text(key);
        if text.as_ref().is_some_and(|(text, _)| !text.is_empty()) {
            return text;
        }
        if self.reader.errors.len() == errors_before {
            let place = text.map_or_else(|| self.place.clone(), |(_, place)| place);
            let (key, section) = (key.to_owned(), header(self.name));
            self.reader
                .report(place, Problem::MissingKey { key, section });
        }
        None
    }

    /// A path; `None` when `""`. Relative ones in the file start from its folder, others from the current one.
    pub(super) fn path(&mut self, key: &'static str, default: Option<&Path>) -> Option<PathBuf> {
        let folder = self.reader.file.folder();
        let path = match self.text(key) {
            None => default.map(|path| folder.join(path)),
            Some((text, _)) if text.is_empty() => None,
            Some((text, Place::Line { .. })) => Some(folder.join(text)),
            Some((text, _)) => Some(PathBuf::from(text)),
        };
        if let Some(path) = &path {
            self.note_path(path);
        }
        path
    }

    /// A path written at `place`: relative ones in the file start from its folder.
    pub(super) fn joined(&self, path: &str, place: &Place) -> PathBuf {
        match place {
            Place::Line { .. } => self.reader.file.folder().join(path),
            _ => PathBuf::from(path),
        }
    }

    /// A path that has to be there; empty, with an error, when it is not.
    pub(super) fn required_path(&mut self, key: &'static str) -> PathBuf {
        let path = match self.required_text(key) {
            Some((text, Place::Line { .. })) => self.reader.file.folder().join(text),
            Some((text, _)) => PathBuf::from(text),
            None => PathBuf::new(),
        };
        self.note_path(&path);
        path
    }

    /// Reads `text` as an address; `None`, with an error unless it is `""`, when it is none.
    pub(super) fn parse_address(
        &mut self,
        key: &str,
        text: String,
        place: Place,
        expected: &str,
    ) -> Option<(SocketAddr, Place)> {
        if text.is_empty() {
            return None;
        }
        if let Ok(address) = text.parse() {
            return Some((address, place));
        }
        self.malformed(key, place, expected, text);
        None
    }

    /// Whether `key` was written anywhere; does not count as asking.
    pub(super) fn is_written(&self, key: &str) -> bool {
        let path = self.path_of(key).map(|path| fold(&path));
        let is_overridden = |path: String| {
            self.reader
                .overrides
                .iter()
                .any(|setting| setting.path == path)
        };
        self.value_in_file(key).is_some() || path.is_some_and(is_overridden)
    }

    /// Where the value of `key` was written; [`Place::Default`] when nowhere.
    pub(super) fn place_of(&self, key: &str) -> Place {
        if let Some(index) = self.override_of(key) {
            return self.reader.overrides[index].place.clone();
        }
        self.value_in_file(key)
            .map_or(Place::Default, |value| self.reader.file.place(value.span()))
    }

    /// Where the table starts.
    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    /// Ends the reading of this table.
    pub(super) fn finish(self) {
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            let place = self.reader.file.place(key.span());
            let key = key.get_ref().to_string();
            if !self.asked.contains(&key.as_str()) {
                let similar = Hint::similar(&key, self.asked.iter().copied());
                let section = self.name;
                self.reader.unasked.push(Unasked {
                    place,
                    section,
                    key,
                    similar,
                });
            }
        }
    }

    /// Records that `found` is not of the form that `key` needs.
    pub(super) fn malformed(&mut self, key: &str, place: Place, expected: &str, found: String) {
        let (key, expected) = (self.full(key), expected.to_owned());
        let problem = Problem::Malformed {
            key,
            expected,
            found,
        };
        self.reader.report(place, problem);
    }

    fn wrong_type(&mut self, key: &str, place: &Place, expected: &str, found: &str) {
        let problem = Problem::WrongType {
            key: self.full(key),
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        self.reader.report(place.clone(), problem);
    }

    /// The key with its section, as messages name it.
    pub(super) fn full(&self, key: &str) -> String {
        let section = self.path.as_deref().unwrap_or(self.name);
        join(section, key)
    }

    /// Asks for `key`: the last override, else the file.
    fn written(&mut self, key: &'static str) -> Option<(Written<'a>, Place)> {
        self.asked.push(key);
        self.reader.asked.push(Asked {
            section: self.name,
            key,
            path: self.path_of(key).unwrap_or_default(),
            range: None,
            place: self.place_of(key),
            answer: None,
            file: None,
        });
        if let Some(last) = self.override_of(key) {
            let path = self.reader.overrides[last].path.clone();
            for setting in &mut self.reader.overrides {
                setting.known |= setting.path == path;
            }
            let setting = &self.reader.overrides[last];
            return Some((
                Written::Outside(setting.text.clone()),
                setting.place.clone(),
            ));
        }
        let value = self.value_in_file(key)?;
        Some((
            Written::InFile(value.get_ref()),
            self.reader.file.place(value.span()),
        ))
    }

    fn value_in_file(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.get(key)
    }

    fn override_of(&self, key: &str) -> Option<usize> {
        let path = fold(&self.path_of(key)?);
        self.reader
            .overrides
            .iter()
            .rposition(|setting| setting.path == path)
    }

    fn path_of(&self, key: &str) -> Option<String> {
        self.path.as_deref().map(|section| join(section, key))
    }
}

/// `section.key`, or the key alone at the top.
pub(super) fn join(section: &str, key: &str) -> String {
    match section {
        "" => key.to_owned(),
        section => format!("{section}.{key}"),
    }
}

/// The texts in an override: a TOML array, or texts with commas between them.
fn listed(text: &str) -> Vec<String> {
    if let Ok(value) = DeValue::parse(text)
        && let DeValue::Array(array) = value.get_ref()
    {
        let strings = array
            .iter()
            .map(|element| element.get_ref().as_str().map(str::to_owned));
        if let Some(texts) = strings.collect() {
            return texts;
        }
    }
    let parts = text.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A section as the document writes it.
fn header(section: &str) -> String {
    match section {
        "" => "at the top of the file".to_owned(),
        "listeners" | "profiles" => format!("[[{section}]]"),
        section => format!("[{section}]"),
    }
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {kind}")
}

fn is_boolean(word: &str) -> bool {
    matches!(word, "true" | "false")
}

/// Accepted values as the document writes them.
fn shown<T>(values: &[(&str, T)]) -> Vec<String> {
    let show = |word: &str| match is_boolean(word) {
        true => word.to_owned(),
        false => format!("\"{word}\""),
    };
    values.iter().map(|(word, _)| show(word)).collect()
}
