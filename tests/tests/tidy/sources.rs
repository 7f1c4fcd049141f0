//! The Rust files of the workspace, and which of their lines run only in tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of ours.
pub(crate) struct Source {
    /// From the workspace's root.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// A `mod tests` in a file of its own.
    pub(crate) fn is_unit_tests(&self) -> bool {
        self.path.ends_with("tests.rs")
    }

    /// What of the file runs only in tests.
    pub(crate) fn test_code(&self) -> &str {
        let in_tests = self
            .path
            .components()
            .any(|part| part.as_os_str() == "tests");
        if in_tests || self.is_unit_tests() {
            return &self.text;
        }
        let start = self.text.find("#[cfg(test)]\nmod ");
        start.map_or("", |start| &self.text[start..])
    }
}

pub(crate) fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for folder in ["broker", "certs", "device-sim", "tests"] {
        collect(&root().join(folder), &mut files);
    }
    files.sort();
    assert!(files.len() > 80, "only {} files found", files.len());
    files
        .into_iter()
        .map(|file| Source {
            text: fs::read_to_string(&file).unwrap(),
            path: file.strip_prefix(root()).unwrap().to_owned(),
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
