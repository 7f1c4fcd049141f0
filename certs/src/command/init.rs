//! `init`: makes the authority.

use motemq_certs::{Authority, CertsError};
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name of the authority, shown by certificate viewers.
    #[arg(long, default_value = "MoteMQ CA")]
    name: String,
}

pub(crate) fn run(dir: &Path, Arguments { name }: &Arguments) -> Result<String, CertsError> {
    let authority = Authority::create(dir, name)?;
    let out = match dir.to_str() {
        Some("pki") => String::new(),
        _ => format!(" --out {}", dir.display()),
    };
    Ok(format!(
        "authority    {name}\n\
         certificate  {}\n\
         private key  {}   keep it secret, back it up\n\
         SHA-256      {}\n\
         next         motemq-certs{out} server localhost 127.0.0.1\n\
         \x20            motemq-certs{out} device meter-000001\n",
        authority.certificate_path().display(),
        dir.join("ca.key").display(),
        authority.fingerprint_sha256(),
    ))
}
