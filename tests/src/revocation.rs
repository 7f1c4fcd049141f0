//! Certificate revocation lists of an authority of `motemq-certs`, for tests.
#![expect(
    clippy::expect_used,
    reason = "a script that goes wrong must stop at once"
)]

use motemq_certs::Issued;
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use std::path::Path;

/// Writes the list of the authority in `pki` to `file`, all at once: these certificates are revoked. It is due in `due_year`.
pub fn write_list(pki: &Path, file: &Path, revoked: &[&Issued], due_year: i32) {
    write_numbered_list(pki, file, revoked, due_year, 1);
}

/// As [`write_list`], with a CRL number.
pub fn write_numbered_list(
    pki: &Path,
    file: &Path,
    revoked: &[&Issued],
    due_year: i32,
    number: u64,
) {
    let read =
        |name: &str| std::fs::read_to_string(pki.join(name)).expect("a file of the authority");
    let key = KeyPair::from_pem(&read("ca.key")).expect("a key");
    let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), key).expect("an authority");
    let revoked = revoked.iter().map(|issued| RevokedCertParams {
        serial_number: SerialNumber::from_slice(&bytes(&issued.serial_hex)),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(due_year, 1, 1),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer).expect("a signature");
    let unfinished = file.with_extension("unfinished");
    std::fs::write(&unfinished, list.pem().expect("PEM")).expect("a file");
    std::fs::rename(unfinished, file).expect("a file");
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at: usize| hex.get(at..at + 2).expect("an even number of digits");
    let byte = |at| u8::from_str_radix(digits(at), 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(byte).collect()
}
