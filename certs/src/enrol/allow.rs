//! Which ids may be enrolled with a claim certificate: a text with an id per line.
//!
//! `*` stands for any run of characters, also none. Empty lines and lines that start with `#` say nothing; an id cannot contain either.
//! The last line counts only with its newline: of one that is still being written, `*-north` could be `*` so far.

/// The ids that may be claimed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    /// Ids without a star, sorted: a fleet's list is long.
    ids: Vec<String>,
    patterns: Vec<String>,
}

impl AllowList {
    /// Reads the text of a list.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned);
        let (patterns, mut ids): (Vec<_>, Vec<_>) = lines.partition(|line| line.contains('*'));
        ids.sort_unstable();
        Self { ids, patterns }
    }

    /// The list that any id is on.
    #[must_use]
    pub fn any() -> Self {
        Self::parse("*\n")
    }

    /// How many ids and patterns are on it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len() + self.patterns.len()
    }

    /// Whether nothing is on it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `id` is on it.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        let listed = self.ids.binary_search_by(|listed| listed.as_str().cmp(id));
        listed.is_ok() || self.patterns.iter().any(|pattern| matches(pattern, id))
    }
}

/// Takes what stands between stars at its first place in the rest: if that does not lead to a match, nothing does.
fn matches(pattern: &str, id: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == id;
    };
    let Some(mut left) = id.strip_prefix(start) else {
        return false;
    };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        let Some(place) = left.find(part) else {
            return false;
        };
        left = left.get(place + part.len()..).unwrap_or_default();
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, id, expected) in [
            ("meter-*", "meter-1", true),
            ("meter-*", "meter-", true),
            ("meter-*", "gauge-1", false),
            ("*-1", "meter-1", true),
            ("*-1", "meter-11", false),
            ("m*r-*1", "meter-11", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*", "", true),
            ("a*b*b", "ab", false),
            ("a*b*b", "abb", true),
            ("a*bc*c", "abc", false),
            ("**", "x", true),
            ("ä*", "äß", true),
        ] {
            assert_eq!(matches(pattern, id), expected, "{pattern} {id}");
        }
    }

    #[test]
    fn a_list_has_ids_patterns_and_remarks() {
        let list = AllowList::parse("# north\nmeter-2\r\n\n  meter-1\ngauge-*\n");
        assert_eq!(list.len(), 3);
        for id in ["meter-1", "meter-2", "gauge-7"] {
            assert!(list.contains(id), "{id}");
        }
        for id in ["meter-3", "# north", "", "meter-*"] {
            assert!(!list.contains(id), "{id}");
        }
    }

    #[test]
    fn half_a_line_says_nothing() {
        let list = AllowList::parse("meter-1\n*");
        assert!(list.contains("meter-1"));
        assert!(!list.contains("gauge-1"));
        assert!(AllowList::parse("meter-1\n*-north\n").contains("gauge-north"));
    }

    #[test]
    fn nothing_is_on_an_empty_list_and_all_on_the_other() {
        assert!(!AllowList::default().contains("meter-1"));
        assert!(AllowList::any().contains("meter-1"));
    }
}
