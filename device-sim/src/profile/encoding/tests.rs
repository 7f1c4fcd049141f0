use super::*;
use crate::profile::Profile;
use crate::profile::measure::Shape;
use ciborium::Value as Cbor;
use proptest::prelude::*;
use serde_json::Value as Json;

/// The largest of everything, and some in between.
fn labels() -> [Label; 4] {
    [
        at(0, 0, 0),
        at(17, 3, 12_000_000),
        at(999_999, 70_000, 86_400_000_001),
        at(u32::MAX, u32::MAX, (1 << 48) - 1),
    ]
}

#[test]
fn every_encoding_of_every_profile_carries_the_label() {
    for profile in Profile::presets() {
        for encoding in Encoding::ALL {
            for expected in labels() {
                let payload = payload(encoding, &profile, &expected);
                assert_eq!(
                    label(&payload),
                    Some(expected),
                    "{} {encoding}",
                    profile.name
                );
            }
        }
    }
}

#[test]
fn what_is_not_whole_or_has_more_is_not_ours() {
    for profile in Profile::presets() {
        for encoding in Encoding::ALL {
            let mut payload = payload(encoding, &profile, &labels()[1]);
            for length in 0..payload.len() {
                assert_eq!(
                    label(&payload[..length]),
                    None,
                    "{} {encoding}",
                    profile.name
                );
            }
            payload.push(b'1');
            assert_eq!(label(&payload), None, "{} {encoding}", profile.name);
        }
    }
}

#[test]
fn what_others_send_is_not_ours() {
    for foreign in [
        &b""[..],
        b"hello",
        b"21.5",
        b"{}",
        b"[]",
        b"{\"d\":1,\"n\":2}",
        b"{\"d\":-1,\"n\":2,\"t\":3}",
        b"{\"d\":1,\"n\":2.5,\"t\":3}",
        b"{\"d\":4294967296,\"n\":2,\"t\":3}",
        b"[{\"bn\":\"urn:dev:ow:10e2073a01080063:\",\"n\":\"seq\",\"v\":1},{\"n\":\"t\",\"v\":1}]",
        b"[{\"bn\":\"motemq-sim:+17:\",\"n\":\"seq\",\"v\":1},{\"n\":\"t\",\"v\":1}]",
        b"[{\"bn\":\"motemq-sim:17:\",\"n\":\"seq\",\"v\":1.5},{\"n\":\"t\",\"v\":1}]",
        b"[{\"bn\":\"motemq-sim:17:\",\"n\":\"seq\",\"v\":1},{\"n\":\"t\",\"v\":-1}]",
        b"[{\"bn\":\"motemq-sim:17:\",\"n\":\"seq\",\"v\":1}]",
        &[0x01],
        &[0x01, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0],
        // A fourth field of three.
        &[0x01, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 8, 0],
        // The label's pairs in another order, an indefinite map, a map of 2^64 - 1 pairs.
        &[0xA3, 0x61, b'n', 1, 0x61, b'd', 1, 0x61, b't', 1],
        &[0xBF, 0x61, b'd', 1, 0x61, b'n', 1, 0x61, b't', 1, 0xFF],
        &[
            0xBB, 255, 255, 255, 255, 255, 255, 255, 255, 0x61, b'd', 1, 0x61, b'n', 1, 0x61, b't',
            1,
        ],
    ] {
        assert_eq!(label(foreign), None, "{foreign:?}");
    }
}

#[test]
fn json_may_have_been_written_anew_by_a_bridge() {
    let pretty = b"{\n  \"t\": 12000000,\n  \"w\": 4e2,\n  \"n\": 3,\n  \"d\": 17\n}\n";
    assert_eq!(label(pretty), Some(labels()[1]));
}

/// Two readers that know nothing of ours, and the same values in all of them.
#[test]
fn independent_readers_find_the_same_values() {
    for profile in Profile::presets() {
        for (sequence, reading) in readings(&profile, 300).into_iter().enumerate() {
            let label = at(17, sequence as u32, 12_000_000);
            let written = |encoding| {
                let mut payload = Vec::new();
                encode(encoding, profile.measure, &label, &reading, &mut payload);
                payload
            };
            let json: Json = serde_json::from_slice(&written(Encoding::Json)).unwrap();
            let senml: Json = serde_json::from_slice(&written(Encoding::SenMl)).unwrap();
            let cbor: Cbor = ciborium::from_reader(&*written(Encoding::Cbor)).unwrap();
            let find = |key: &str| {
                let pairs = cbor.as_map().unwrap();
                let found = pairs.iter().find(|(name, _)| name.as_text() == Some(key));
                found.map(|(_, value)| value.clone())
            };
            assert_eq!(json["n"], sequence);
            assert_eq!(find("n").unwrap(), Cbor::from(sequence as u32));
            assert_eq!(senml[0]["bn"], "motemq-sim:000017:");
            if let Some(clock_s) = reading.clock_s {
                assert_eq!(json["ts"], clock_s);
                assert_eq!(find("ts").unwrap(), Cbor::from(clock_s));
                assert_eq!(senml[0]["bt"], clock_s);
            }
            for (field, step) in reading.fields(profile.measure) {
                let records = senml.as_array().unwrap();
                let record = records
                    .iter()
                    .find(|record| record["n"] == field.name)
                    .unwrap();
                let (json, cbor) = (&json[field.key], find(field.key).unwrap());
                match field.shape {
                    Shape::Number { decimals, .. } => {
                        let scale = 10_f64.powi(decimals.into());
                        assert_eq!((json.as_f64().unwrap() * scale).round() as i64, step);
                        let number = match cbor.as_integer() {
                            Some(whole) => i128::from(whole) as f64,
                            None => cbor.as_float().unwrap(),
                        };
                        assert_eq!((number * scale).round() as i64, step, "{}", field.key);
                        let value = record["v"].as_f64().unwrap();
                        let scale = scale * 10_f64.powi(field.unit.decimals.into());
                        let expected = step * field.unit.factor;
                        assert_eq!((value * scale).round() as i64, expected, "{}", field.name);
                    }
                    Shape::Flag => {
                        assert_eq!(json.as_bool(), Some(step != 0));
                        assert_eq!(cbor.as_bool(), Some(step != 0));
                        assert_eq!(record["vb"].as_bool(), Some(step != 0));
                    }
                    Shape::Choice(names) => {
                        let name = names[step as usize];
                        assert_eq!(json.as_str(), Some(name));
                        assert_eq!(cbor.as_text(), Some(name));
                        assert_eq!(record["vs"].as_str(), Some(name));
                    }
                }
            }
        }
    }
}

/// RFC 8428: names are of these characters, and a record has at most one value.
#[test]
fn senml_records_are_as_the_rfc_has_them() {
    for profile in Profile::presets() {
        let pack = payload(Encoding::SenMl, &profile, &labels()[1]);
        let pack: Json = serde_json::from_slice(&pack).unwrap();
        let base = pack[0]["bn"].as_str().unwrap();
        for record in pack.as_array().unwrap() {
            let name = format!("{base}{}", record["n"].as_str().unwrap());
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-:./_".contains(&byte);
            assert!(name.bytes().all(allowed) && name.as_bytes()[0].is_ascii_alphanumeric());
            let values = ["v", "vb", "vs"]
                .into_iter()
                .filter(|key| record.get(*key).is_some());
            assert_eq!(values.count(), 1, "{record}");
            let known = ["bn", "bt", "n", "u", "v", "vb", "vs"];
            assert!(
                record
                    .as_object()
                    .unwrap()
                    .keys()
                    .all(|key| known.contains(&key.as_str()))
            );
        }
    }
}

#[test]
fn a_payload_looks_like_this() {
    let values = [Some(412.0), Some(230.4), Some(1_234_567.0), Some(1.0)];
    let mut reading = Reading::new(Measure::Power, &values);
    reading.clock_s = Some(1_767_247_212);
    let written = |encoding| {
        let mut payload = Vec::new();
        encode(
            encoding,
            Measure::Power,
            &labels()[1],
            &reading,
            &mut payload,
        );
        payload
    };
    assert_eq!(
        String::from_utf8(written(Encoding::Json)).unwrap(),
        r#"{"d":17,"n":3,"t":12000000,"ts":1767247212,"w":412,"v":230.4,"e":1234567,"a":"overload"}"#
    );
    assert_eq!(
        String::from_utf8(written(Encoding::SenMl)).unwrap(),
        concat!(
            r#"[{"bn":"motemq-sim:000017:","bt":1767247212,"n":"seq","v":3},"#,
            r#"{"n":"t","u":"s","v":12.000000},{"n":"power","u":"W","v":412},"#,
            r#"{"n":"voltage","u":"V","v":230.4},{"n":"energy","u":"J","v":4444441200},"#,
            r#"{"n":"alarm","vs":"overload"}]"#
        )
    );
    assert_eq!(
        hex(&written(Encoding::Packed)),
        "010200000011000000030000 00b71b00 8f 69560d6c 019c 0900 0012d687 01".replace(' ', "")
    );
    assert_eq!(
        hex(&written(Encoding::Cbor)),
        concat!(
            "a8 6164 11 616e 03 6174 1a00b71b00 627473 1a69560d6c 6177 19019c ",
            "6176 fa43666666 6165 1a0012d687 6161 686f7665726c6f6164"
        )
        .replace(' ', "")
    );
}

#[test]
fn a_command_is_read_in_every_encoding_and_is_no_reading() {
    let plug = Profile::named("smart-plug").unwrap();
    for encoding in Encoding::ALL {
        for name in labels() {
            for is_on in [true, false] {
                let sent = Command {
                    device: name.device,
                    sequence: name.sequence,
                    intended_at: name.intended_at,
                    is_on,
                };
                let mut payload = Vec::new();
                let profile = Profile {
                    encoding,
                    ..Profile::clone(&plug)
                };
                sent.encode(&profile, &mut payload);
                assert_eq!(Command::decode(&payload), Some(sent), "{encoding}");
                assert_eq!(label(&payload), None, "{encoding}");
                for length in 0..payload.len() {
                    assert_eq!(Command::decode(&payload[..length]), None, "{encoding}");
                }
            }
        }
        let state = payload(encoding, &plug, &labels()[1]);
        assert_eq!(Command::decode(&state), None, "{encoding}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = (label(&bytes), Command::decode(&bytes));
    }

    #[test]
    fn no_change_of_a_payload_makes_the_reader_panic(
        profile in 0_usize..8,
        encoding in 0_usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let profile = &Profile::presets()[profile];
        let mut payload = payload(Encoding::ALL[encoding], profile, &labels()[1]);
        for (place, byte) in changes {
            let place = place.index(payload.len());
            payload[place] = byte;
        }
        let _ = (label(&payload), Command::decode(&payload));
    }

    #[test]
    fn any_label_comes_back(
        device: u32,
        sequence: u32,
        micros in 0_u64..1 << 48,
        encoding in 0_usize..4,
    ) {
        let expected = at(device, sequence, micros);
        let profile = Profile::named("thermometer").unwrap();
        let payload = payload(Encoding::ALL[encoding], &profile, &expected);
        prop_assert_eq!(label(&payload), Some(expected));
    }
}

/// The first reading of a device.
fn payload(encoding: Encoding, profile: &Profile, label: &Label) -> Vec<u8> {
    let mut payload = Vec::new();
    let reading = readings(profile, 1)[0];
    encode(encoding, profile.measure, label, &reading, &mut payload);
    payload
}

fn readings(profile: &Profile, count: u32) -> Vec<Reading> {
    let mut sensor = crate::profile::Sensor::new(profile, 42, 17);
    let read = |number| sensor.read(profile, profile.every * number);
    (0..count).map(read).collect()
}

fn at(device: u32, sequence: u32, micros: u64) -> Label {
    Label {
        device,
        sequence,
        intended_at: Duration::from_micros(micros),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
