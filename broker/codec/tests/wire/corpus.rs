//! The valid packets of the fuzz corpus: whole, cut short, changed by one byte; and random bytes.

use crate::fuzz;
use motemq_codec::{Decoded, decode};
use proptest::prelude::*;
use std::fs;
use std::path::Path;

#[test]
fn a_packet_cut_short_is_incomplete() {
    for data in valid_packets() {
        let (version, bytes) = fuzz::split(&data).unwrap();
        for length in 0..bytes.len() {
            let (cut, missing) = bytes.split_at(length);
            match decode(cut, version, bytes.len()) {
                Ok(Decoded::Incomplete { needed }) => {
                    assert!((1..=missing.len()).contains(&needed))
                }
                other => panic!("{cut:02x?} {other:?}"),
            }
        }
    }
}

#[test]
fn a_packet_ends_before_the_next() {
    for data in valid_packets() {
        let (version, bytes) = fuzz::split(&data).unwrap();
        let alone = decode(bytes, version, bytes.len());
        let followed = [bytes, &[0xFF, 0x00]].concat();
        assert_eq!(decode(&followed, version, bytes.len()), alone);
    }
}

#[test]
fn every_change_of_one_byte_is_judged() {
    for mut data in valid_packets() {
        for position in 0..data.len() {
            let original = data[position];
            for byte in 0..=u8::MAX {
                data[position] = byte;
                check_all(&data);
            }
            data[position] = original;
        }
    }
}

#[test]
fn every_packet_is_judged_with_a_byte_missing_or_added_inside() {
    for data in valid_packets() {
        for position in 3..data.len() {
            let mut shorter = data.clone();
            shorter.remove(position);
            shorter[2] = shorter[2].wrapping_sub(1);
            check_all(&shorter);
            let mut longer = data.clone();
            longer.insert(position, data[position]);
            longer[2] = longer[2].wrapping_add(1);
            check_all(&longer);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn random_bytes_are_judged(data in prop::collection::vec(any::<u8>(), 0..64)) {
        check_all(&data);
    }

    /// Nearly all random bytes fail in the fixed header; these have a good one.
    #[test]
    fn random_bodies_are_judged(
        choice in 0..3u8,
        packet_type in 1..16u8,
        flags in prop_oneof![Just(0u8), Just(2), 0..16u8],
        body in prop::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..64),
    ) {
        let length = u8::try_from(body.len()).unwrap();
        let mut data = vec![choice, packet_type << 4 | flags, length];
        data.extend(body);
        check_all(&data);
    }
}

fn check_all(data: &[u8]) {
    fuzz::decode(data);
    fuzz::roundtrip(data);
    fuzz::differential(data);
}

/// The inputs of the corpus that are one packet; a fuzzer adds others.
fn valid_packets() -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/decode");
    let files = fs::read_dir(path).unwrap();
    let inputs = files.map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let packets: Vec<_> = inputs.filter(|data| is_one_packet(data)).collect();
    assert!(packets.len() >= 59, "the corpus has {}", packets.len());
    packets
}

fn is_one_packet(data: &[u8]) -> bool {
    fuzz::split(data).is_some_and(|(version, bytes)| {
        let decoded = decode(bytes, version, bytes.len());
        matches!(decoded, Ok(Decoded::Packet { length, .. }) if length == bytes.len())
    })
}
