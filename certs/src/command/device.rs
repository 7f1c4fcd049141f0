//! `device`: issues a device's certificate.

use super::keep;
use motemq_certs::{Authority, CertsError, DEVICE_DAYS, Kind};
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Identity of the device: its common name and client id.
    id: String,
    /// Validity in days.
    #[arg(long, default_value_t = DEVICE_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_524))]
    days: u32,
}

pub(crate) fn run(dir: &Path, Arguments { id, days }: &Arguments) -> Result<String, CertsError> {
    let issued = Authority::open(dir)?.issue_device_for(id, *days)?;
    let stem = dir.join("devices").join(id);
    keep(dir, &stem, id, Kind::Device, &issued)
}
