//! Serial numbers as text: lower-case hexadecimal without leading zero bytes, as the inventory and the broker write them.

use crate::CertsError;

/// A certificate's serial, big-endian, as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    let start = bytes.iter().position(|byte| *byte != 0);
    let bytes = start.and_then(|start| bytes.get(start..)).unwrap_or(&[0]);
    hex(bytes)
}

/// Bytes in lower-case hexadecimal, whatever they begin with.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a serial that [`text`] or [`normal`] wrote.
pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, CertsError> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok();
        // Of a number a sign would be taken too.
        let pair = pair.filter(|pair| pair.len() == 2 && !pair.starts_with('+'));
        pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    let bytes: Option<Vec<u8>> = pairs.map(byte).collect();
    bytes
        .filter(|bytes| (1..=20).contains(&bytes.len()))
        .ok_or_else(|| CertsError::Serial(text.to_owned()))
}

/// A serial as people paste it, with colons, blanks, `0x` or in upper case, in the form of the inventory.
///
/// # Errors
/// [`CertsError::Serial`] when it is no number of 1 to 20 bytes.
pub fn normal_serial(serial: &str) -> Result<String, CertsError> {
    let digits = serial.trim();
    let digits = digits.strip_prefix("serial=").unwrap_or(digits);
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    let digits: String = digits
        .chars()
        .filter(|character| !matches!(character, ':' | ' '))
        .map(|character| character.to_ascii_lowercase())
        .collect();
    let even = if digits.len() % 2 == 1 {
        format!("0{digits}")
    } else {
        digits
    };
    let bytes = bytes(&even).map_err(|_| CertsError::Serial(serial.to_owned()))?;
    Ok(text(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_read_as_people_paste_them() {
        for (pasted, expected) in [
            ("0a1b", "0a1b"),
            ("A1:0B", "a10b"),
            ("0xA1B", "0a1b"),
            ("00:00:a1", "a1"),
            ("serial=0A", "0a"),
            ("0", "00"),
        ] {
            assert_eq!(normal_serial(pasted).unwrap(), expected, "{pasted}");
        }
        let too_long = "1".repeat(41);
        for wrong in ["", "xy", "0x", "a b c g", "+1", "-1", "é1", &too_long] {
            let error = normal_serial(wrong).unwrap_err();
            assert!(matches!(error, CertsError::Serial(_)), "{wrong}");
        }
    }

    #[test]
    fn text_and_bytes_are_the_same_number() {
        assert_eq!(text(&[0, 0xff, 1]), "ff01");
        assert_eq!(bytes("ff01").unwrap(), [0xff, 1]);
        assert_eq!(text(&[]), "00");
    }
}
