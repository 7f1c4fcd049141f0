//! The manifest: a CSV file for whoever brings the certificates onto the devices, or into another system.
//!
//! It is written as a whole when the batch is done, and only over an older one about the same devices.

use super::format::Format;
use super::ids::Device;
use motemq_certs::{
    CertsError, Entry, Inventory, Kind, certificate_der, date_time, fingerprint_sha256,
};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::path::Path;

const COLUMNS: [&str; 7] = [
    "id",
    "serial_hex",
    "fingerprint_sha256",
    "not_after",
    "key_type",
    "cert_file",
    "key_file",
];

/// Refuses to write over a manifest that tells of other devices too.
pub(super) fn check(path: &Path, devices: &[Device]) -> Result<(), CertsError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(path, error)),
    };
    let devices: HashSet<&str> = devices.iter().map(|device| device.id.as_str()).collect();
    let mut reader = csv::Reader::from_reader(text.as_slice());
    let is_ours = reader
        .headers()
        .is_ok_and(|names| names == COLUMNS.as_slice())
        && reader
            .records()
            .all(|row| row.is_ok_and(|row| row.get(0).is_some_and(|id| devices.contains(id))));
    if is_ours {
        Ok(())
    } else {
        Err(CertsError::OtherManifest(path.to_owned()))
    }
}

/// What the inventory says about the certificate that lies in the files of each device.
pub(super) fn entries<'a>(
    devices: &[Device],
    inventory: &'a Inventory,
    directory: &Path,
    format: Format,
) -> Result<Vec<&'a Entry>, CertsError> {
    devices
        .iter()
        .map(|device| {
            let entry = entry(&device.id, inventory, directory, format)?;
            // It was there before the batch, or was issued by it: somebody has replaced a file since.
            entry.ok_or_else(|| CertsError::AlreadyExists(directory.join(&device.id)))
        })
        .collect()
}

/// What the inventory says about the certificate in this device's files; nothing, if it is another one.
pub(super) fn entry<'a>(
    id: &str,
    inventory: &'a Inventory,
    directory: &Path,
    format: Format,
) -> Result<Option<&'a Entry>, CertsError> {
    let mut entries = inventory
        .of_id(id)
        .filter(|entry| entry.kind == Kind::Device);
    let newest = entries.next_back();
    let Some(older) = entries.next_back() else {
        return Ok(newest);
    };
    // One of several: the one in the file, where that can be read. A later one may have been enrolled over MQTT.
    let path = directory.join([id, format.certificate_suffix()].concat());
    let fingerprint = match format {
        Format::Pem => {
            let pem = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
            // What is no certificate is none of these.
            certificate_der(&pem).map_or_else(|_| String::new(), |der| fingerprint_sha256(&der))
        }
        Format::Der => fingerprint_sha256(&fs::read(&path).map_err(|error| failed(&path, error))?),
        Format::P12 | Format::CHeader | Format::Nvs => return Ok(newest),
    };
    let mut entries = newest.into_iter().chain([older]).chain(entries.rev());
    Ok(entries.find(|entry| entry.fingerprint == fingerprint))
}

/// Writes the manifest.
pub(super) fn write(
    path: &Path,
    entries: &[&Entry],
    directory: &Path,
    format: Format,
) -> Result<(), CertsError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = Path::new(&temporary);
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
    }
    let written =
        rows(temporary, entries, directory, format).and_then(|()| fs::rename(temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(temporary);
    }
    written.map_err(|error| failed(path, error))
}

fn rows(path: &Path, entries: &[&Entry], directory: &Path, format: Format) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(BufWriter::new(File::create(path)?));
    writer.write_record(COLUMNS)?;
    let file = |id: &str, suffix| directory.join([id, suffix].concat()).display().to_string();
    for entry in entries {
        writer.write_record([
            entry.id.as_str(),
            &entry.serial,
            &entry.fingerprint,
            &date_time(entry.not_after),
            entry.key_type.as_deref().unwrap_or_default(),
            &file(&entry.id, format.certificate_suffix()),
            &file(&entry.id, format.key_suffix()),
        ])?;
    }
    let mut file = writer.into_inner().map_err(|error| error.into_error())?;
    file.flush()?;
    file.get_ref().sync_all()
}

fn failed(path: &Path, source: io::Error) -> CertsError {
    let path = path.to_owned();
    CertsError::File { path, source }
}
