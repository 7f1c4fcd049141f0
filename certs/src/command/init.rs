//! `init`: makes the authority.

use super::warn_about;
use motemq_certs::{
    Authority, CertsError, INTERMEDIATE_YEARS, Intermediate, Inventory, KeyType, Permitted,
    ROOT_YEARS, Root, Validity, date,
};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name of the authority, shown by certificate viewers [default: "MoteMQ CA" and six random digits: no two should have one name].
    #[arg(long)]
    name: Option<String>,
    /// Kind of key: p256, p384, ed25519 or rsa2048.
    #[arg(long, value_name = "TYPE", default_value_t)]
    key: KeyType,
    /// Validity of the root in years, or `forever`.
    #[arg(long, value_name = "YEARS", default_value_t = ROOT_YEARS.to_string())]
    root_years: String,
    /// Let an intermediate issue, so that the root's key can be put away.
    #[arg(long)]
    intermediate: bool,
    /// Validity of the intermediate in years, or `forever`; it ends with the root's at the latest.
    #[arg(long, value_name = "YEARS", default_value_t = INTERMEDIATE_YEARS.to_string())]
    intermediate_years: String,
    /// Where the root's key goes, such as a medium that is then taken away [default: root.key in the directory].
    #[arg(long, value_name = "FILE", requires = "intermediate")]
    root_key_out: Option<PathBuf>,
    /// Hold the authority to this DNS name and those below it; may be repeated. OpenSSL holds device ids with a dot to it too.
    #[arg(long, value_name = "NAME")]
    permit_dns: Vec<String>,
    /// Hold the authority to this network or address, such as 10.0.0.0/8; may be repeated.
    #[arg(long, value_name = "NETWORK")]
    permit_ip: Vec<String>,
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> Result<String, CertsError> {
    if let Some(folder) = arguments.root_key_out.as_deref().and_then(Path::parent)
        && !folder.as_os_str().is_empty()
        && !folder.is_dir()
    {
        return Err(CertsError::NoFolder(folder.to_owned()));
    }
    let mut permitted = Permitted::default();
    for name in &arguments.permit_dns {
        permitted = permitted.dns(name)?;
    }
    for network in &arguments.permit_ip {
        permitted = permitted.network(network)?;
    }
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => random_name()?,
    };
    let mut root = Root::new(&name)?
        .key_type(arguments.key)
        .valid(Validity::years(&arguments.root_years)?)
        .permitted(permitted);
    if arguments.intermediate {
        root = root.intermediate(Intermediate {
            validity: Validity::years(&arguments.intermediate_years)?,
            root_key: arguments.root_key_out.clone(),
        });
    }
    let authority = root.create(dir)?;
    // The broker's configuration may name the list from the first day.
    authority.write_crl(&mut Inventory::open(dir)?, None)?;
    warn_about(arguments.key);
    Ok(told(dir, arguments, &name, &authority))
}

/// Verifiers look an issuer up by its name: of two that share one, a server that trusts both may try the wrong one.
fn random_name() -> Result<String, CertsError> {
    let mut digits = [0; 3];
    aws_lc_rs::rand::fill(&mut digits).map_err(|_| CertsError::Random)?;
    let [a, b, c] = digits;
    Ok(format!("MoteMQ CA {a:02x}{b:02x}{c:02x}"))
}

fn told(dir: &Path, arguments: &Arguments, name: &str, authority: &Authority) -> String {
    let out = match dir.to_str() {
        Some("pki") => String::new(),
        _ => format!(" --out {}", dir.display()),
    };
    let root_key = arguments.root_key_out.clone();
    let root_key = root_key.unwrap_or_else(|| dir.join("root.key"));
    let mut text = format!(
        "authority    {}\n\
         certificate  {}\n\
         private key  {}   keep it secret, back it up\n\
         valid until  {}\n\
         SHA-256      {}\n",
        name,
        authority.certificate_path().display(),
        dir.join("ca.key").display(),
        date(authority.not_after_unix_s()),
        authority.fingerprint_sha256(),
    );
    // Writing to a string cannot fail.
    if authority.is_intermediate() {
        let _ = write!(
            text,
            "root         {}   for devices: what they verify the broker against\n\
             root's key   {}   put it away: nothing here needs it\n",
            dir.join("root.crt").display(),
            root_key.display(),
        );
    }
    if !authority.permitted().is_everything() {
        let _ = writeln!(text, "permitted    {}", authority.permitted());
    }
    let names = match (arguments.permit_dns.first(), arguments.permit_ip.is_empty()) {
        (Some(name), _) => name,
        (None, false) => "ADDRESS",
        (None, true) => "localhost 127.0.0.1",
    };
    let _ = write!(
        text,
        "next         motemq-certs{out} server {names}\n\
         \x20            motemq-certs{out} device meter-000001\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::random_name;

    #[test]
    fn no_two_authorities_have_one_name_unless_told_to() {
        let (one, other) = (random_name().unwrap(), random_name().unwrap());
        assert_ne!(one, other);
        let digits = one.strip_prefix("MoteMQ CA ").unwrap();
        assert!(digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
