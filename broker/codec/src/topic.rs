//! Topic names and topic filters (section 4.7), shared subscriptions (MQTT 5.0 section 4.8.2).
//!
//! A [`TopicFilter`] in hand is valid: every wildcard fills its level, `#` only the last one. One
//! filter against one name is decided here; many filters at once are the router's business.
//! Names and filters are compared byte for byte, nothing is normalised [MQTT5-4.7.3-4].

use std::error::Error;
use std::fmt;

const BYTES_MAX: usize = 65_535;
const SHARE_PREFIX: &str = "$share/";

/// Checks that `topic` may name the topic of a message.
///
/// # Errors
///
/// When it is empty [MQTT5-4.7.3-1] [MQTT3-4.7.3-1], holds a wildcard [MQTT5-3.3.2-2]
/// [MQTT5-4.7.0-1] [MQTT3-3.3.2-2] or U+0000 [MQTT5-4.7.3-2] [MQTT3-4.7.3-2], or is longer than
/// 65,535 bytes [MQTT5-4.7.3-3].
#[inline]
pub fn validate_topic_name(topic: &str) -> Result<(), TopicNameError> {
    let bytes = topic.as_bytes();
    if bytes.is_empty() {
        return Err(TopicNameError::Empty);
    }
    if bytes.len() > BYTES_MAX {
        return Err(TopicNameError::TooLong);
    }
    if has_special(bytes) {
        return Err(special_character(bytes));
    }
    Ok(())
}

/// Whether a byte is U+0000, `+` or `#`. Eight bytes at a time, without an early exit: this is on
/// the path of every PUBLISH.
#[inline]
fn has_special(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk() else {
        return bytes.iter().any(|byte| matches!(byte, 0 | b'+' | b'#'));
    };
    // the last eight may have been seen in part already
    let (words, _) = bytes.as_chunks();
    let found = words.iter().fold(special_bytes(*last), |found, word| {
        found | special_bytes(*word)
    });
    found != 0
}

/// Zero if and only if none of the eight bytes is special.
#[inline]
const fn special_bytes(word: [u8; 8]) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const PLUSES: u64 = u64::from_ne_bytes([b'+'; 8]);
    // the one bit in which `#` differs from `+`
    const DIFFERENCE: u64 = u64::from_ne_bytes([b'+' ^ b'#'; 8]);
    let word = u64::from_ne_bytes(word);
    let wildcards = (word | DIFFERENCE) ^ PLUSES;
    let zero_bytes = word.wrapping_sub(ONES) & !word;
    let zero_wildcards = wildcards.wrapping_sub(ONES) & !wildcards;
    (zero_bytes | zero_wildcards) & (ONES << 7)
}

#[cold]
fn special_character(bytes: &[u8]) -> TopicNameError {
    if bytes.contains(&0) {
        TopicNameError::HasNul
    } else {
        TopicNameError::HasWildcard
    }
}

/// Why a string is no topic name.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum TopicNameError {
    /// It has no character.
    Empty,
    /// It is longer than 65,535 bytes.
    TooLong,
    /// It holds `+` or `#`.
    HasWildcard,
    /// It holds U+0000.
    HasNul,
}

impl fmt::Display for TopicNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty topic name",
            Self::TooLong => "topic name over 65,535 bytes",
            Self::HasWildcard => "wildcard in a topic name",
            Self::HasNul => "U+0000 in a topic name",
        })
    }
}

impl Error for TopicNameError {}

/// A valid topic filter.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicFilter<'a>(&'a str);

impl<'a> TopicFilter<'a> {
    /// Checks a filter.
    ///
    /// # Errors
    ///
    /// The first rule it breaks: [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.3-1] [MQTT5-4.7.3-2]
    /// [MQTT5-4.7.3-3], [MQTT3-4.7.1-2] [MQTT3-4.7.1-3] [MQTT3-4.7.3-1] [MQTT3-4.7.3-2] [MQTT3-4.7.3-3].
    pub fn parse(filter: &'a str) -> Result<Self, TopicFilterError> {
        if filter.is_empty() {
            return Err(TopicFilterError::Empty);
        }
        if filter.len() > BYTES_MAX {
            return Err(TopicFilterError::TooLong);
        }
        if filter.as_bytes().contains(&0) {
            return Err(TopicFilterError::HasNul);
        }
        let mut levels = filter.split('/').peekable();
        while let Some(level) = levels.next() {
            check_level(level, levels.peek().is_none())?;
        }
        Ok(Self(filter))
    }

    /// The filter as it was written.
    #[inline]
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        self.0
    }

    /// What stands between the slashes, empty levels included.
    pub fn levels(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        self.0.split('/')
    }

    /// Whether it can match more than one topic name.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.0.bytes().any(|byte| byte == b'+' || byte == b'#')
    }

    /// Whether messages to `topic`, a valid topic name, match.
    ///
    /// A leading wildcard does not match names that begin with `$` [MQTT5-4.7.2-1]
    /// [MQTT3-4.7.2-1]; `a/#` matches `a` too.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut names = topic.split('/');
        for level in self.levels() {
            match (level, names.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (level, Some(name)) if level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

impl fmt::Display for TopicFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

fn check_level(level: &str, is_last: bool) -> Result<(), TopicFilterError> {
    match level {
        "#" if !is_last => Err(TopicFilterError::MultiLevelNotLast),
        "#" | "+" => Ok(()),
        _ if level.contains('#') => Err(TopicFilterError::MultiLevelNotAlone),
        _ if level.contains('+') => Err(TopicFilterError::SingleLevelNotAlone),
        _ => Ok(()),
    }
}

/// What a SUBSCRIBE asks for: a filter, perhaps shared with the others of a group.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct SubscriptionFilter<'a> {
    /// The share name, if the subscription is shared.
    pub share: Option<&'a str>,
    /// What messages are to match.
    pub filter: TopicFilter<'a>,
}

/// Reads `filter` or `$share/name/filter`.
///
/// # Errors
///
/// The first rule it breaks; of share names: [MQTT5-4.8.2-1] [MQTT5-4.8.2-2].
pub fn parse_subscription(filter: &str) -> Result<SubscriptionFilter<'_>, TopicFilterError> {
    let Some(shared) = filter.strip_prefix(SHARE_PREFIX) else {
        let filter = TopicFilter::parse(filter)?;
        return Ok(SubscriptionFilter {
            share: None,
            filter,
        });
    };
    let (name, rest) = shared.split_once('/').unwrap_or((shared, ""));
    if name.is_empty() {
        return Err(TopicFilterError::ShareNameEmpty);
    }
    if name.contains(['+', '#']) {
        return Err(TopicFilterError::ShareNameHasWildcard);
    }
    if name.contains('\0') {
        return Err(TopicFilterError::HasNul);
    }
    if rest.is_empty() {
        return Err(TopicFilterError::ShareFilterMissing);
    }
    Ok(SubscriptionFilter {
        share: Some(name),
        filter: TopicFilter::parse(rest)?,
    })
}

/// Whether a filter asks for a shared subscription, valid or not.
#[must_use]
pub fn is_shared(filter: &str) -> bool {
    filter.starts_with(SHARE_PREFIX)
}

/// Why a string is no topic filter.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum TopicFilterError {
    /// It has no character.
    Empty,
    /// It is longer than 65,535 bytes.
    TooLong,
    /// It holds U+0000.
    HasNul,
    /// `#` is not the last level.
    MultiLevelNotLast,
    /// `#` does not fill its level.
    MultiLevelNotAlone,
    /// `+` does not fill its level.
    SingleLevelNotAlone,
    /// `$share/` is followed by no share name.
    ShareNameEmpty,
    /// The share name holds `+` or `#`.
    ShareNameHasWildcard,
    /// The share name is followed by no filter.
    ShareFilterMissing,
}

impl fmt::Display for TopicFilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty topic filter",
            Self::TooLong => "topic filter over 65,535 bytes",
            Self::HasNul => "U+0000 in a topic filter",
            Self::MultiLevelNotLast => "# before the last level of a topic filter",
            Self::MultiLevelNotAlone => "# does not fill its level of a topic filter",
            Self::SingleLevelNotAlone => "+ does not fill its level of a topic filter",
            Self::ShareNameEmpty => "empty share name",
            Self::ShareNameHasWildcard => "wildcard in a share name",
            Self::ShareFilterMissing => "shared subscription without a topic filter",
        })
    }
}

impl Error for TopicFilterError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names() {
        // [MQTT5-4.7.3-1] [MQTT5-4.7.3-2] [MQTT5-4.7.3-3] [MQTT5-4.7.0-1] [MQTT5-3.3.2-2]
        // [MQTT3-4.7.0-1] [MQTT3-4.7.1-1] [MQTT3-4.7.3-1] [MQTT3-4.7.3-2] [MQTT3-4.7.3-3] [MQTT3-3.3.2-2]
        for name in ["a", "/", "//", "a/b", "$SYS/x", " ", "é/ü", "\u{FEFF}a"] {
            assert_eq!(validate_topic_name(name), Ok(()), "{name}");
        }
        assert_eq!(validate_topic_name(&"a".repeat(65_535)), Ok(()));
        for (name, error) in [
            ("", TopicNameError::Empty),
            ("a/+", TopicNameError::HasWildcard),
            ("#", TopicNameError::HasWildcard),
            ("a\0b", TopicNameError::HasNul),
            (&"a".repeat(65_536), TopicNameError::TooLong),
        ] {
            assert_eq!(validate_topic_name(name), Err(error));
        }
    }

    #[test]
    fn a_special_character_is_found_anywhere_and_nothing_else_is() {
        for length in 1..40 {
            for position in 0..length {
                for byte in 0..=0x7F {
                    let mut name = vec![b'x'; length];
                    *name.get_mut(position).unwrap() = byte;
                    let name = String::from_utf8(name).unwrap();
                    let expected = match byte {
                        0 => Err(TopicNameError::HasNul),
                        b'+' | b'#' => Err(TopicNameError::HasWildcard),
                        _ => Ok(()),
                    };
                    assert_eq!(validate_topic_name(&name), expected, "{name}");
                }
            }
        }
        // bytes that differ from the special ones in the top bit only
        assert_eq!(
            validate_topic_name("\u{AB}\u{A3}\u{80}\u{AB}\u{A3}"),
            Ok(())
        );
    }

    #[test]
    fn filters_have_their_wildcards_alone_in_a_level() {
        // [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT3-4.7.1-2] [MQTT3-4.7.1-3]
        for filter in [
            "#", "+", "/", "+/+", "a/#", "+/a/#", "a//b", "/+", "$share", "$SYS/#",
        ] {
            assert!(TopicFilter::parse(filter).is_ok(), "{filter}");
        }
        for (filter, error) in [
            ("", TopicFilterError::Empty),
            ("#/a", TopicFilterError::MultiLevelNotLast),
            ("a/#/b", TopicFilterError::MultiLevelNotLast),
            ("a#", TopicFilterError::MultiLevelNotAlone),
            ("a/b#", TopicFilterError::MultiLevelNotAlone),
            ("##", TopicFilterError::MultiLevelNotAlone),
            ("a+", TopicFilterError::SingleLevelNotAlone),
            ("a/+b/c", TopicFilterError::SingleLevelNotAlone),
            ("++", TopicFilterError::SingleLevelNotAlone),
            ("a\0", TopicFilterError::HasNul),
            (&"a".repeat(65_536), TopicFilterError::TooLong),
        ] {
            assert_eq!(TopicFilter::parse(filter), Err(error));
        }
    }

    #[test]
    fn filters_match_names() {
        // [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.3-4] [MQTT3-4.7.1-2] [MQTT3-4.7.1-3] [MQTT3-4.7.3-4]
        for (filter, name, matches) in [
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("#", "a/b", true),
            ("#", "/", true),
            ("+", "a", true),
            ("+", "/a", false),
            ("/+", "/a", true),
            ("/+", "/", true),
            ("+/+", "/a", true),
            ("a/+/b", "a//b", true),
            ("a/+", "a", false),
            ("a/+", "a/", true),
            ("a/+/c", "a/b/d", false),
            ("a", "A", false),
            ("a", "a/", false),
            ("a/", "a", false),
            ("+/a", "é/a", true),
            ("+/#", "a", true),
            ("a/b", "a/b", true),
        ] {
            let found = TopicFilter::parse(filter).unwrap().matches(name);
            assert_eq!(found, matches, "{filter} {name}");
        }
    }

    #[test]
    fn a_leading_wildcard_does_not_match_a_dollar() {
        // [MQTT5-4.7.2-1] [MQTT3-4.7.2-1]
        for (filter, name, matches) in [
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("+/#", "$SYS", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/+", "$SYS/x", true),
            ("a/+", "a/$x", true),
            ("a/#", "a/$x", true),
        ] {
            let found = TopicFilter::parse(filter).unwrap().matches(name);
            assert_eq!(found, matches, "{filter} {name}");
        }
    }

    #[test]
    fn shared_subscriptions() {
        // [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]
        let parsed = parse_subscription("$share/g/a/+").unwrap();
        assert_eq!((parsed.share, parsed.filter.as_str()), (Some("g"), "a/+"));
        let parsed = parse_subscription("$share/g//a").unwrap();
        assert_eq!((parsed.share, parsed.filter.as_str()), (Some("g"), "/a"));
        let parsed = parse_subscription("a/$share/g").unwrap();
        assert_eq!((parsed.share, parsed.filter.as_str()), (None, "a/$share/g"));
        for (filter, error) in [
            ("$share/", TopicFilterError::ShareNameEmpty),
            ("$share//a", TopicFilterError::ShareNameEmpty),
            ("$share/g", TopicFilterError::ShareFilterMissing),
            ("$share/g/", TopicFilterError::ShareFilterMissing),
            ("$share/+/a", TopicFilterError::ShareNameHasWildcard),
            ("$share/g#/a", TopicFilterError::ShareNameHasWildcard),
            ("$share/g\0/a", TopicFilterError::HasNul),
            ("$share/g/a+", TopicFilterError::SingleLevelNotAlone),
        ] {
            assert_eq!(parse_subscription(filter), Err(error), "{filter}");
        }
    }

    #[test]
    fn levels_and_wildcards() {
        let filter = TopicFilter::parse("/a//+").unwrap();
        assert_eq!(filter.levels().collect::<Vec<_>>(), ["", "a", "", "+"]);
        assert!(filter.has_wildcard());
        assert!(!TopicFilter::parse("a/b").unwrap().has_wildcard());
    }
}
