//! `sign-csr`: certificates for keys that stay where they were made.

use super::with_suffix;
use motemq_certs::{
    Authority, CertsError, DEVICE_DAYS, Entry, Granted, Held, Inventory, Order, Request, Validity,
    date,
};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A certificate signing request, PEM or DER; or a folder, of which every *.csr without a certificate yet is signed.
    path: PathBuf,
    /// Identity of the device, in place of the request's common name.
    #[arg(long)]
    id: Option<String>,
    /// Validity in days, or `forever`; it ends with the authority's at the latest.
    #[arg(long, default_value_t = Validity::Days(DEVICE_DAYS))]
    days: Validity,
    /// Append the intermediate's certificate, for brokers that know only the root.
    #[arg(long)]
    chain: bool,
    /// Put the certificate in the place of one that the device has; that one is kept as ID.crt.SERIAL.
    #[arg(long)]
    replace: bool,
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> Result<String, CertsError> {
    let authority = Authority::open(dir)?;
    if arguments.path.is_dir() {
        return sign_all(&authority, arguments);
    }
    let job = Job::read(&authority, &arguments.path, arguments)?;
    match &job.held {
        Some(held) if job.is_for(held) && !arguments.replace => {
            return Err(CertsError::HasCertificate(held.certificate().to_owned()));
        }
        Some(held) if !job.is_for(held) && held.has_private_key() => {
            return Err(CertsError::KeyBeside(held.private_key().to_owned()));
        }
        Some(held) if !arguments.replace => {
            return Err(CertsError::HasOtherCertificate(
                held.certificate().to_owned(),
            ));
        }
        _ => {}
    }
    let granted = job.sign(&authority)?;
    keep(&authority, &[(job, granted)], arguments)
}

/// Signs every request in a folder that has no certificate; those that are refused are named, and the others signed.
fn sign_all(authority: &Authority, arguments: &Arguments) -> Result<String, CertsError> {
    if arguments.id.is_some() {
        return Err(CertsError::OneIdForMany(arguments.path.clone()));
    }
    let mut signed = Vec::new();
    let (mut skipped, mut failed) = (0, 0);
    let mut ids = HashSet::new();
    for path in requests(&arguments.path)? {
        let outcome = Job::read(authority, &path, arguments).and_then(|job| {
            if !ids.insert(job.order.id().to_owned()) {
                let id = job.order.id().to_owned();
                return Err(CertsError::SecondRequest {
                    path: path.clone(),
                    id,
                });
            }
            match &job.held {
                None => Ok(Some((job.sign(authority)?, job))),
                Some(held) if job.is_for(held) => Ok(None),
                Some(held) => Err(CertsError::HasOtherCertificate(
                    held.certificate().to_owned(),
                )),
            }
        });
        match outcome {
            Ok(Some((granted, job))) => signed.push((job, granted)),
            Ok(None) => skipped += 1,
            Err(error) => {
                failed += 1;
                let _ = writeln!(io::stderr(), "motemq-certs: {error}");
            }
        }
    }
    let mut text = keep(authority, &signed, arguments)?;
    let _ = writeln!(
        text,
        "{} signed, {skipped} had a certificate, {failed} refused",
        signed.len()
    );
    if failed == 0 {
        return Ok(text);
    }
    let _ = io::stdout().write_all(text.as_bytes());
    Err(CertsError::NotAll(failed, "signed"))
}

/// The requests in a folder, by name.
fn requests(folder: &Path) -> Result<Vec<PathBuf>, CertsError> {
    let file = |source| CertsError::File {
        path: folder.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(file)? {
        let path = entry.map_err(file)?.path();
        if path.extension().is_some_and(|end| end == "csr") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(CertsError::NoRequests(folder.to_owned()));
    }
    paths.sort();
    Ok(paths)
}

/// A request and what is to become of it.
struct Job {
    path: PathBuf,
    request: Request,
    order: Order,
    certificate: PathBuf,
    /// What the device has already.
    held: Option<Held>,
}

impl Job {
    fn read(authority: &Authority, path: &Path, arguments: &Arguments) -> Result<Self, CertsError> {
        let bytes = fs::read(path).map_err(|source| CertsError::File {
            path: path.to_owned(),
            source,
        })?;
        let refused = |source| CertsError::RequestFile {
            path: path.to_owned(),
            source,
        };
        let mut request = Request::parse(&bytes).map_err(refused)?;
        if let Some(id) = &arguments.id {
            request = request.made_out_to(id);
        }
        let id = request.id().map_err(refused)?;
        let order = Order::device(id)?.valid(arguments.days);
        let stem = authority.dir().join("devices").join(order.id());
        Ok(Self {
            path: path.to_owned(),
            request,
            order,
            certificate: with_suffix(&stem, ".crt"),
            held: Held::open(&stem)?,
        })
    }

    /// Whether a certificate is for the key that asks.
    fn is_for(&self, held: &Held) -> bool {
        held.public_key() == self.request.public_key()
    }

    fn sign(&self, authority: &Authority) -> Result<Granted, CertsError> {
        let signed = authority.sign_request(&self.request, &self.order);
        signed.map_err(|error| match error {
            CertsError::Request(source) => CertsError::RequestFile {
                path: self.path.clone(),
                source,
            },
            error => error,
        })
    }
}

/// Enters the certificates into the inventory and writes their files; returns what to tell the user.
fn keep(
    authority: &Authority,
    signed: &[(Job, Granted)],
    arguments: &Arguments,
) -> Result<String, CertsError> {
    let entries: Vec<Entry> = signed
        .iter()
        .map(|(job, granted)| Entry::issued(&job.order, &granted.signed))
        .collect();
    Inventory::open_to_issue(authority.dir())?.append(&entries)?;
    let mut text = String::new();
    for (job, granted) in signed {
        match &job.held {
            Some(held) => held.replace_certificate(&granted.signed)?,
            None => granted.signed.write(&job.certificate, arguments.chain)?,
        }
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "certificate  {}   for the key that asked, {}\n\
             serial       {}\n\
             valid until  {}",
            job.certificate.display(),
            granted.signed.key_type,
            granted.signed.serial_hex,
            date(granted.signed.not_after_unix_s),
        );
        if !granted.left_out.is_empty() {
            let left_out = granted.left_out.join(", ");
            let _ = writeln!(text, "not granted  {left_out}");
        }
    }
    Ok(text)
}
