//! The files that a device's certificate and key go to.
//!
//! Whatever holds a key is for its owner only. The names in the C header and in the NVS table are the same for every
//! device, so that one firmware fits all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use motemq_certs::{CertsError, Issued};
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use std::fmt::Write as _;

/// In which form certificates and keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// ID.crt and ID.key, text
    Pem,
    /// ID.crt.der and ID.key.der, a third smaller
    Der,
    /// ID.p12, for Java, Windows and gateways
    P12,
    /// ID.h, arrays for a firmware in C
    CHeader,
    /// ID.nvs.csv, a table for ESP-IDF's nvs_partition_gen.py
    Nvs,
}

/// A file of a device: what follows its id, and whether it holds the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) suffix: &'static str,
    pub(crate) is_private: bool,
}

/// What all files of a batch have in common.
pub(crate) struct Common {
    pub(crate) format: Format,
    /// The intermediate follows the certificate.
    pub(crate) has_chain: bool,
    /// What devices verify the broker against, DER.
    pub(crate) root_der: Vec<u8>,
    /// What issues, DER.
    pub(crate) issuer_der: Vec<u8>,
    pub(crate) p12_password: String,
}

impl Format {
    /// The files, the one with the certificate last.
    pub(crate) const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Pem => const { &[private(".key"), public(".crt")] },
            Self::Der => const { &[private(".key.der"), public(".crt.der")] },
            Self::P12 => const { &[private(".p12")] },
            Self::CHeader => const { &[private(".h")] },
            Self::Nvs => const { &[private(".nvs.csv")] },
        }
    }

    /// What follows the id in the name of the file with the certificate.
    pub(crate) fn certificate_suffix(self) -> &'static str {
        self.kinds().last().map_or("", |kind| kind.suffix)
    }

    /// What follows the id in the name of the file with the key.
    pub(crate) fn key_suffix(self) -> &'static str {
        self.kinds().first().map_or("", |kind| kind.suffix)
    }
}

impl Common {
    /// The contents of the files of [`Format::kinds`].
    pub(crate) fn contents(&self, id: &str, issued: &Issued) -> Result<Vec<Vec<u8>>, CertsError> {
        Ok(match self.format {
            Format::Pem => {
                let certificate = if self.has_chain {
                    &issued.chain_pem
                } else {
                    &issued.certificate_pem
                };
                vec![
                    issued.private_key_pem.clone().into(),
                    certificate.clone().into(),
                ]
            }
            Format::Der => vec![
                issued.private_key_der.clone(),
                issued.certificate_der.clone(),
            ],
            Format::P12 => vec![self.p12(id, issued)?],
            Format::CHeader => vec![self.c_header(id, issued).into()],
            Format::Nvs => vec![self.nvs(id, issued).into()],
        })
    }

    fn p12(&self, id: &str, issued: &Issued) -> Result<Vec<u8>, CertsError> {
        let failed = |error: p12_keystore::error::Error| CertsError::Pkcs12(error.to_string());
        let mut certificates =
            vec![Certificate::from_der(&issued.certificate_der).map_err(failed)?];
        if self.has_chain {
            certificates.push(Certificate::from_der(&self.issuer_der).map_err(failed)?);
        }
        let key = PrivateKey::from_der(&issued.private_key_der).map_err(failed)?;
        let chain = PrivateKeyChain::new(issued.serial_hex.as_str(), key, certificates);
        let mut store = KeyStore::new();
        store.add_entry(id, KeyStoreEntry::PrivateKeyChain(chain));
        store.writer(&self.p12_password).write().map_err(failed)
    }

    fn c_header(&self, id: &str, issued: &Issued) -> String {
        let mut text = format!(
            "// Made by motemq-certs. Holds a private key: one device, one header.\n\
             #pragma once\n\n\
             static const char mqtt_client_id[] = {};\n\n\
             // The broker's certificate is verified against this.\n{}\n\
             // Serial {}.\n{}\n// PKCS #8.\n{}",
            c_string(id),
            c_array("mqtt_ca_certificate", &self.root_der),
            issued.serial_hex,
            c_array("mqtt_certificate", &issued.certificate_der),
            c_array("mqtt_private_key", &issued.private_key_der),
        );
        text.shrink_to_fit();
        text
    }

    fn nvs(&self, id: &str, issued: &Issued) -> String {
        format!(
            "key,type,encoding,value\n\
             mqtt,namespace,,\n\
             client_id,data,string,{}\n\
             ca_cert,data,base64,{}\n\
             cert,data,base64,{}\n\
             key,data,base64,{}\n",
            csv_field(id),
            STANDARD.encode(&self.root_der),
            STANDARD.encode(&issued.certificate_der),
            STANDARD.encode(&issued.private_key_der),
        )
    }
}

const fn private(suffix: &'static str) -> Kind {
    Kind {
        suffix,
        is_private: true,
    }
}

const fn public(suffix: &'static str) -> Kind {
    Kind {
        suffix,
        is_private: false,
    }
}

/// A string literal; what is not plain ASCII is written in octal, which ends after three digits, unlike hexadecimal.
fn c_string(text: &str) -> String {
    let mut literal = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | b'?' => literal.extend(['\\', char::from(byte)]),
            b' '..=b'~' => literal.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(literal, "\\{byte:03o}")),
        }
    }
    literal.push('"');
    literal
}

fn c_array(name: &str, bytes: &[u8]) -> String {
    let mut text = format!("static const unsigned char {name}[{}] = {{\n", bytes.len());
    for line in bytes.chunks(16) {
        text.push_str("   ");
        for byte in line {
            // Writing to a string cannot fail.
            let _ = write!(text, " 0x{byte:02x},");
        }
        text.push('\n');
    }
    text.push_str("};\n");
    text
}

fn csv_field(text: &str) -> String {
    if text.contains([',', '"']) || text.starts_with(' ') || text.ends_with(' ') {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_literal() {
        assert_eq!(c_string("meter-1"), "\"meter-1\"");
        assert_eq!(c_string("a\"b\\c?é1"), "\"a\\\"b\\\\c\\?\\303\\2511\"");
        assert_eq!(csv_field("a,\"b\""), "\"a,\"\"b\"\"\"");
    }

    #[test]
    fn arrays_have_their_length() {
        let text = c_array("x", &[0xab; 17]);
        assert!(text.starts_with("static const unsigned char x[17] = {\n    0xab, "));
        assert_eq!(text.matches("0xab").count(), 17);
        assert_eq!(text.lines().count(), 4);
    }
}
