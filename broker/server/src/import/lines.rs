//! The lines of a mosquitto.conf and of the files that it includes.
//!
//! Promises: lines come in the order in which mosquitto reads them; values of options that may be secrets never leave in
//! [`Line::shown`]. Does not know: what options mean.

use super::options::is_secret;
use super::{ImportError, Unusable};
use std::fs;
use std::path::{Path, PathBuf};

/// One line that is not empty and no comment.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// The name of the file, without its folder.
    pub(super) file: String,
    pub(super) number: usize,
    pub(super) name: String,
    /// Empty where there is none.
    pub(super) value: String,
}

impl Line {
    /// Where it stands.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file, self.number)
    }

    /// The line, to be shown.
    pub(super) fn shown(&self) -> String {
        match (self.value.as_str(), is_secret(&self.name)) {
            ("", _) => self.name.clone(),
            (_, true) => format!("{} (hidden)", self.name),
            (value, false) => format!("{} {value}", self.name),
        }
    }
}

/// Reads a file, and what it includes.
pub(super) fn read(path: &Path) -> Result<Vec<Line>, ImportError> {
    let mut lines = Vec::new();
    for line in read_one(path)? {
        let folder = (line.name == "include_dir").then(|| beside(path, &line.value));
        lines.push(line);
        if let Some(folder) = folder {
            for file in included(&folder)? {
                // mosquitto does not follow an include_dir from there.
                lines.extend(read_one(&file)?);
            }
        }
    }
    Ok(lines)
}

/// A path of the file at `conf`: as mosquitto would find it from the file's own folder, or from here.
pub(super) fn beside(conf: &Path, text: &str) -> PathBuf {
    let path = Path::new(text);
    let folder = conf.parent().unwrap_or_else(|| Path::new(""));
    let beside = folder.join(path);
    let chosen = match beside.exists() || !path.exists() {
        true => beside,
        false => path.to_owned(),
    };
    std::path::absolute(&chosen).unwrap_or(chosen)
}

fn read_one(path: &Path) -> Result<Vec<Line>, ImportError> {
    let unreadable = |source| ImportError::unreadable(path, source);
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.len() > FILE_BYTES_MAX {
        let why = Unusable::TooLarge(FILE_BYTES_MAX);
        return Err(ImportError::unusable(path, why));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let text =
        String::from_utf8(bytes).map_err(|_| ImportError::unusable(path, Unusable::NotText))?;
    let file = path.file_name().unwrap_or(path.as_os_str());
    let file = file.to_string_lossy().into_owned();
    let numbered = (1..).zip(text.strip_prefix('\u{FEFF}').unwrap_or(&text).lines());
    let lines = numbered.filter_map(|(number, line)| {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (name, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        Some(Line {
            file: file.clone(),
            number,
            name: name.to_owned(),
            value: value.trim().to_owned(),
        })
    });
    Ok(lines.collect())
}

/// The files of a folder that end with `.conf`, in the order of mosquitto: letters by the alphabet, upper case first.
fn included(folder: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let unreadable = |source| ImportError::unreadable(folder, source);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "conf")
            && path.is_file()
        {
            files.push(path);
        }
    }
    files.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (name.to_lowercase(), name.into_owned())
    });
    Ok(files)
}

const FILE_BYTES_MAX: u64 = 16 << 20;
