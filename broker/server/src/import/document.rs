//! The configuration as it is written: sections, keys, and behind each key the line that it comes from.

use std::fmt::Write as _;

/// A document that grows.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// Keys before the first section.
    pub(super) top: Vec<Entry>,
    pub(super) sections: Vec<Section>,
}

#[derive(Debug)]
pub(super) struct Section {
    /// `[limits]`, `[[listeners]]`.
    header: String,
    entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    key: String,
    /// As TOML has it.
    value: String,
    /// Where it comes from.
    origin: String,
}

impl Entry {
    pub(super) fn new(key: &str, value: impl Into<String>, origin: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            value: value.into(),
            origin: origin.into(),
        }
    }
}

/// A text as TOML has it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Document {
    /// Adds a section at the end.
    pub(super) fn add(&mut self, header: &str, entries: Vec<Entry>) {
        self.sections.push(Section {
            header: header.to_owned(),
            entries,
        });
    }

    /// Adds a key to the section `[name]`, which is made if need be.
    pub(super) fn set(&mut self, name: &str, entry: Entry) {
        let header = format!("[{name}]");
        let known = self
            .sections
            .iter_mut()
            .find(|section| section.header == header);
        match known {
            Some(section) => {
                section.entries.retain(|known| known.key != entry.key);
                section.entries.push(entry);
            }
            None => self.add(&header, vec![entry]),
        }
    }

    /// Whether the section `[name]` has this key.
    pub(super) fn has(&self, name: &str, key: &str) -> bool {
        let header = format!("[{name}]");
        let mut sections = self.sections.iter();
        let known = sections.find(|section| section.header == header);
        known.is_some_and(|section| section.entries.iter().any(|entry| entry.key == key))
    }

    /// The text, below `head`.
    pub(super) fn text(&self, head: &str) -> String {
        let mut text = head.to_owned();
        if !self.top.is_empty() {
            text.push('\n');
        }
        write(&mut text, &self.top);
        for section in &self.sections {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "\n{}", section.header);
            write(&mut text, &section.entries);
        }
        text
    }
}

fn write(text: &mut String, entries: &[Entry]) {
    for Entry { key, value, origin } in entries {
        let _ = match origin.as_str() {
            "" => writeln!(text, "{key} = {value}"),
            // A file may have any name.
            origin => writeln!(
                text,
                "{key} = {value}  # {}",
                origin.replace(char::is_control, "?")
            ),
        };
    }
}
