//! Certificates of devices, from the manifest that `motemq-certs batch --manifest` writes.
//!
//! Keys stay in the form in which they were read, some 500 bytes a device with its certificate; they are made
//! ready when a server asks for them, which a resumed session spares.

use super::{certificates, unusable};
use crate::SimError;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A device as its certificate names it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Its client id.
    pub(crate) id: Box<str>,
    pub(super) credentials: Arc<Credentials>,
}

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// What a manifest says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    id: String,
    certificate: PathBuf,
    key: PathBuf,
}

impl Identity {
    /// Reads the files of a row.
    pub(super) fn load(row: &Row) -> Result<Self, SimError> {
        Ok(Self {
            id: row.id.as_str().into(),
            credentials: Arc::new(Credentials::load(&row.certificate, &row.key)?),
        })
    }
}

impl Credentials {
    /// Reads the files, PEM or DER.
    pub(super) fn load(certificate: &Path, key: &Path) -> Result<Self, SimError> {
        let chain = match is_der(certificate) {
            true => vec![read(certificate)?.into()],
            false => certificates(certificate)?,
        };
        let private_key = match is_der(key) {
            true => PrivateKeyDer::try_from(read(key)?).map_err(|error| unusable(key, error))?,
            false => PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?,
        };
        any_supported_type(&private_key).map_err(|error| unusable(key, error))?;
        Ok(Self {
            chain,
            key: private_key,
        })
    }

    /// The client id that the certificate speaks of, as `motemq-certs` writes it: `urn:mqtt:client:ID`.
    pub(super) fn client_id(&self) -> Option<&str> {
        const URN: &[u8] = b"urn:mqtt:client:";
        let certificate = self.chain.first()?;
        let start = certificate
            .windows(URN.len())
            .position(|part| part == URN)?;
        // Before the name is its length.
        let length = usize::from(*certificate.get(start.checked_sub(1)?)?);
        let id = certificate.get(start + URN.len()..start + length)?;
        std::str::from_utf8(id).ok()
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = any_supported_type(&self.key).ok()?;
        Some(Arc::new(CertifiedKey::new(self.chain.clone(), key)))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The rows of a manifest.
pub(super) fn rows(path: &Path) -> Result<Vec<Row>, SimError> {
    let text = fs::read(path).map_err(|error| unusable(path, error))?;
    let mut rows = parse(&text).map_err(|problem| unusable(path, problem))?;
    let folder = rows.first().and_then(|row| folder(path, &row.certificate));
    for row in &mut rows {
        for file in [&mut row.certificate, &mut row.key] {
            if let Some(folder) = &folder {
                *file = folder.join(&file);
            }
        }
    }
    Ok(rows)
}

/// Files are named as seen from where `motemq-certs` ran: from here, or from one of the folders that hold the manifest.
fn folder(manifest: &Path, file: &Path) -> Option<PathBuf> {
    let here = Path::new("");
    let manifest = fs::canonicalize(manifest).ok()?;
    let mut folders = [here].into_iter().chain(manifest.ancestors().skip(1));
    let found = folders.find(|folder| folder.join(file).exists());
    found.map(Path::to_path_buf)
}

fn parse(text: &[u8]) -> Result<Vec<Row>, String> {
    let mut reader = csv::Reader::from_reader(text);
    let names = reader.headers().map_err(|error| error.to_string())?;
    let place = |name: &str| {
        let place = names.iter().position(|known| known == name);
        place.ok_or_else(|| {
            format!("has no column {name}: write it with `motemq-certs batch --manifest`")
        })
    };
    let (id, certificate, key) = (place("id")?, place("cert_file")?, place("key_file")?);
    let row = |record: Result<csv::StringRecord, csv::Error>| {
        let record = record.map_err(|error| error.to_string())?;
        let field = |place| record.get(place).unwrap_or_default();
        if [".p12", ".h", ".csv"]
            .iter()
            .any(|form| field(certificate).ends_with(form))
        {
            return Err(
                "is about files in another form: issue certificates with --format pem or der"
                    .to_owned(),
            );
        }
        Ok(Row {
            id: field(id).to_owned(),
            certificate: field(certificate).into(),
            key: field(key).into(),
        })
    };
    reader.records().map(row).collect()
}

fn is_der(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "der")
}

fn read(path: &Path) -> Result<Vec<u8>, SimError> {
    fs::read(path).map_err(|error| unusable(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_by_the_names_of_its_columns() {
        let text = b"id,serial_hex,cert_file,key_file\nm-1,00,pki/m-1.crt,pki/m-1.key\n";
        let rows = parse(text).unwrap();
        assert_eq!(
            rows,
            [Row {
                id: "m-1".to_owned(),
                certificate: "pki/m-1.crt".into(),
                key: "pki/m-1.key".into(),
            }]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let problem = parse(b"id,key_file\n").unwrap_err();
        assert!(problem.contains("cert_file"), "{problem}");
        let problem = parse(b"id,cert_file,key_file\nm,m.p12,m.p12\n").unwrap_err();
        assert!(problem.contains("--format pem"), "{problem}");
    }

    #[test]
    fn files_are_found_from_the_manifests_folders() {
        let directory = std::env::temp_dir().join(format!("FLEET-{}", std::process::id()));
        fs::create_dir_all(directory.join("pki/devices")).unwrap();
        fs::write(directory.join("pki/devices/m-1.crt"), "").unwrap();
        let manifest = directory.join("pki/fleet.csv");
        let line = "m-1,pki/devices/m-1.crt,pki/devices/m-1.key\n";
        fs::write(&manifest, format!("id,cert_file,key_file\n{line}")).unwrap();
        let rows = rows(&manifest).unwrap();
        assert!(rows[0].certificate.exists());
        fs::remove_dir_all(directory).unwrap();
    }
}
