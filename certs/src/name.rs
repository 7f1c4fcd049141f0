//! Names that go into certificates: device ids, host names, addresses.
//!
//! A device id becomes the common name and, percent-encoded, the URI `urn:mqtt:client:ID`. The characters
//! that MQTT gives a meaning in topics are refused, so that an id can always stand as one topic level, and so is what allow-lists
//! give one, and what people cannot see: two ids that look the same would be two devices.

use crate::{CertsError, Kind};
use rcgen::SanType;
use std::fmt::Write;
use std::net::IpAddr;

/// The longest common name that X.509 allows (RFC 5280, appendix A.1).
const COMMON_NAME_CHARS_MAX: usize = 64;

/// Checks that `id` can name a device.
pub(crate) fn check_device_id(id: &str) -> Result<(), CertsError> {
    let Some(problem) = device_id_problem(id) else {
        return Ok(());
    };
    let id = id.to_owned();
    Err(CertsError::DeviceId { id, problem })
}

/// Why `id` cannot name a device.
pub(crate) fn device_id_problem(id: &str) -> Option<&'static str> {
    let is_at_end = |chars: [char; 2]| id.starts_with(chars) || id.ends_with(chars);
    match common_name_problem(id) {
        None if id.contains(['/', '+', '#', '*']) => Some("contains `/`, `+`, `#` or `*`"),
        None if id.contains(is_invisible) => Some("contains an invisible or unassigned character"),
        None if is_at_end([' ', '.']) => Some("begins or ends with a space or dot"),
        problem => problem,
    }
}

/// Whether a reader would not see `character`, or see something else than what is there.
///
/// Rust says which characters cannot be printed: controls, formats (zero width, directions), separators of lines and paragraphs, spaces
/// but the one, private and unassigned ones. The rest are those of Unicode's `Default_Ignorable_Code_Point` that it prints, and a blank.
fn is_invisible(character: char) -> bool {
    let is_printed = || {
        // A mark that combines with what is before it is printed, unless it is the first.
        let text = String::from_iter(['a', character]);
        matches!(character, '"' | '\'' | '\\') || text.escape_debug().eq(text.chars())
    };
    matches!(
        character,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0100}'..='\u{e01ef}'
    ) || !is_printed()
}

/// Checks that `name` can name an authority.
pub(crate) fn check_authority_name(name: &str) -> Result<(), CertsError> {
    let Some(problem) = common_name_problem(name) else {
        return Ok(());
    };
    let name = name.to_owned();
    Err(CertsError::AuthorityName { name, problem })
}

/// Checks that `value` can stand in a subject.
pub(crate) fn check_subject_value(value: &str) -> Result<(), CertsError> {
    let Some(problem) = common_name_problem(value) else {
        return Ok(());
    };
    let value = value.to_owned();
    Err(CertsError::SubjectValue { value, problem })
}

/// The URI under which a client's id stands among the alternative names.
pub(crate) fn client_uri(kind: Kind, id: &str) -> String {
    let mut uri = String::from(match kind {
        Kind::Claim => "urn:mqtt:claim:",
        Kind::Service => "urn:mqtt:service:",
        Kind::Device | Kind::Server => "urn:mqtt:client:",
    });
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

/// Tells addresses from DNS names.
pub(crate) fn server_name(name: &str) -> Result<SanType, CertsError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    if !is_dns_name(name) {
        let name = name.to_owned();
        return Err(CertsError::ServerName { name });
    }
    Ok(SanType::DnsName(name.try_into()?))
}

/// The common name of a server certificate: its first DNS name that fits. An address would be taken for a DNS name
/// by OpenSSL where the authority is held to names.
pub(crate) fn server_common_name(names: &[String]) -> &str {
    names
        .iter()
        .map(String::as_str)
        .find(|name| common_name_problem(name).is_none() && name.parse::<IpAddr>().is_err())
        .unwrap_or("mqtt-broker")
}

fn common_name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.chars().count() > COMMON_NAME_CHARS_MAX {
        Some("is longer than 64 characters")
    } else if name.chars().any(char::is_control) {
        Some("contains a control character")
    } else {
        None
    }
}

/// Letters, digits, hyphens and underscores in labels; a wildcard may stand as the first label.
fn is_dns_name(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    // Four numbers that are no address, such as 10.0.0.300, are a slip and not a host.
    let is_numeric = host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    name.len() <= 253 && !is_numeric && host.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_ids_are_one_topic_level_of_at_most_64_characters() {
        for id in ["m", "meter-000017", "zähler 7", &"é".repeat(64)] {
            assert!(check_device_id(id).is_ok(), "{id}");
        }
        for id in ["", "a/b", "a+", "#", "a\0b", "a\nb", &"x".repeat(65)] {
            assert!(check_device_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn device_ids_have_nothing_that_cannot_be_seen() {
        for id in [
            "a b",
            "a.b",
            "a'b\"c\\d",
            "ä-ß",
            "a\u{308}",
            "कि",
            "电表",
            "😀",
        ] {
            assert_eq!(device_id_problem(id), None, "{id}");
        }
        let invisible = "\u{200b}\u{200d}\u{202e}\u{2066}\u{2028}\u{2029}\u{feff}\u{ad}\u{a0}\u{3000}\u{34f}\u{3164}\u{fe0f}\u{e0041}\u{e000}\u{378}\u{2800}";
        for character in invisible.chars() {
            let id = format!("a{character}b");
            assert!(device_id_problem(&id).is_some(), "{character:?}");
        }
        for id in [" a", "a ", ".a", "a.", ".", "..", "*", "meter-*"] {
            assert!(device_id_problem(id).is_some(), "{id:?}");
        }
    }

    #[test]
    fn the_uri_of_a_client_is_ascii() {
        let device = |id| client_uri(Kind::Device, id);
        assert_eq!(device("meter-17"), "urn:mqtt:client:meter-17");
        assert_eq!(device("é %:"), "urn:mqtt:client:%C3%A9%20%25%3A");
        assert_eq!(client_uri(Kind::Claim, "fab 1"), "urn:mqtt:claim:fab%201");
    }

    #[test]
    fn addresses_and_dns_names_are_told_apart() {
        for name in ["10.0.0.5", "::1", "fe80::1"] {
            let san = server_name(name).unwrap();
            assert!(matches!(san, SanType::IpAddress(_)), "{name}");
        }
        for name in ["localhost", "*.example", "a_b.example", "1host"] {
            let san = server_name(name).unwrap();
            assert!(matches!(san, SanType::DnsName(_)), "{name}");
        }
        for name in ["", "a..b", "-a", "a b", "é", "10.0.0.300", "a:1883", "*"] {
            assert!(server_name(name).is_err(), "{name}");
        }
    }
}
