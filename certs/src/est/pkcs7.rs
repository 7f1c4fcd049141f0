//! The degenerate PKCS #7 in which EST carries certificates: a `SignedData` that nobody signed (RFC 5652, 5.1).
//!
//! Written in DER: lengths in their shortest form, the set of certificates in the order of their bytes.

/// The certificates, DER, and nothing else.
pub(super) fn certificates_only(certificates: &[Vec<u8>]) -> Vec<u8> {
    let mut sorted: Vec<&[u8]> = certificates.iter().map(Vec::as_slice).collect();
    sorted.sort_unstable();
    let signed_data = [
        VERSION.to_vec(),
        element(SET, &[]), // digest algorithms
        element(SEQUENCE, DATA),
        element(TAGGED_0, &sorted.concat()),
        element(SET, &[]), // signers
    ];
    let signed_data = element(SEQUENCE, &signed_data.concat());
    let content = element(TAGGED_0, &signed_data);
    element(SEQUENCE, &[SIGNED_DATA, &content].concat())
}

fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len().to_be_bytes();
    let start = length.iter().position(|byte| *byte != 0);
    let length = start.and_then(|start| length.get(start..)).unwrap_or(&[0]);
    let mut bytes = vec![tag];
    if contents.len() >= 0x80 {
        // At most eight bytes of length.
        bytes.push(0x80 | u8::try_from(length.len()).unwrap_or(0));
    }
    bytes.extend_from_slice(length);
    bytes.extend_from_slice(contents);
    bytes
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// Constructed, context-specific, number 0.
const TAGGED_0: u8 = 0xa0;
/// INTEGER 1.
const VERSION: [u8; 3] = [0x02, 0x01, 0x01];
/// The OBJECT IDENTIFIER 1.2.840.113549.1.7.2, signedData.
const SIGNED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
/// The OBJECT IDENTIFIER 1.2.840.113549.1.7.1, data.
const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_as_short_as_it_can_be() {
        for (bytes, expected) in [
            (0, &[0x31, 0x00][..]),
            (0x7f, &[0x31, 0x7f]),
            (0x80, &[0x31, 0x81, 0x80]),
            (0xff, &[0x31, 0x81, 0xff]),
            (0x100, &[0x31, 0x82, 0x01, 0x00]),
            (0x1_0000, &[0x31, 0x83, 0x01, 0x00, 0x00]),
        ] {
            let element = element(SET, &vec![7; bytes]);
            assert_eq!(element.len(), expected.len() + bytes);
            assert!(element.starts_with(expected), "{bytes}");
        }
    }

    /// The bytes are those of `openssl crl2pkcs7 -nocrl`, with two stand-ins for certificates.
    #[test]
    fn certificates_stand_sorted_in_a_frame_that_is_signed_by_nobody() {
        let large = vec![0x30, 0x02, 0x05, 0x01];
        let small = vec![0x30, 0x02, 0x05, 0x00];
        let expected = [
            b"\x30\x2d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x20\x30\x1e\x02\x01\x01\x31\x00".as_slice(),
            b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01\xa0\x08",
            &small,
            &large,
            b"\x31\x00",
        ];
        assert_eq!(
            certificates_only(&[large.clone(), small.clone()]),
            expected.concat()
        );
    }
}
