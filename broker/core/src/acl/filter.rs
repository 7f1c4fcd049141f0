//! Filters against topics and against other filters.
//!
//! Promises: exact answers, without allocation. Both sides are valid filters (or topics); a wildcard at the start is not about
//! topics that begin with `$` [MQTT5-4.7.2-1]. Does not know: rules, substitutions.

/// Whether messages to `topic`, a valid topic, match `filter`. Most filters differ before their first wildcard.
#[inline]
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    let pairs = filter.bytes().zip(topic.bytes());
    let same = pairs.take_while(|(one, other)| one == other).count();
    match filter.as_bytes().get(same) {
        None => same == topic.len(),
        // A topic is a filter for itself alone.
        Some(b'+' | b'#') => contains(filter, topic),
        Some(_) => same == topic.len() && contains(filter, topic),
    }
}

/// Whether every topic that matches `inner` matches `outer`.
pub(super) fn contains(outer: &str, inner: &str) -> bool {
    if is_dollar_apart(outer, inner) {
        return false;
    }
    let mut inner = without_empty_topic(inner).split('/');
    for level in outer.split('/') {
        match (level, inner.next()) {
            ("#", _) => return true,
            ("+", Some(name)) if name != "#" => {}
            (level, Some(name)) if level == name => {}
            _ => return false,
        }
    }
    inner.next().is_none()
}

/// Whether some topic matches both.
pub(super) fn intersects(one: &str, other: &str) -> bool {
    if is_dollar_apart(one, other) || is_dollar_apart(other, one) {
        return false;
    }
    let mut one = without_empty_topic(one).split('/');
    let mut other = without_empty_topic(other).split('/');
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(level), Some(name)) if level == name => {}
            _ => return false,
        }
    }
}

/// The same filter, so that its `#` may stand for no level: no topic is empty.
fn without_empty_topic(filter: &str) -> &str {
    match filter {
        "#" => "+/#",
        "/#" => "/+/#",
        filter => filter,
    }
}

/// Whether the wildcard that `wild` starts with is kept from what `other` is about by a `$`.
fn is_dollar_apart(wild: &str, other: &str) -> bool {
    other.starts_with('$') && wild.starts_with(['+', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use motemq_codec::TopicFilter;
    use proptest::prelude::*;

    #[test]
    fn a_filter_contains_another_if_it_has_all_its_topics() {
        for (outer, inner, expected) in [
            ("#", "#", true),
            ("#", "a/+", true),
            ("#", "$SYS/#", false),
            ("+/#", "#", true),
            ("+/+/#", "#", false),
            ("+/+/#", "/#", true),
            ("+/#", "a", true),
            ("+", "#", false),
            ("a/#", "a", true),
            ("a/#", "a/+/b", true),
            ("a/+", "a/#", false),
            ("a/+/#", "a/#", false),
            ("a/+/#", "a/+", true),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/+/x", true),
            ("$SYS/+", "+/x", false),
            ("a", "+", false),
            ("a/+", "a/+", true),
            ("a//b", "a/+/b", false),
            ("a/+/b", "a//b", true),
            ("A/#", "a/b", false),
        ] {
            assert_eq!(contains(outer, inner), expected, "{outer} {inner}");
        }
    }

    /// Every topic of up to four levels over names of which one is in no filter.
    fn topics() -> Vec<String> {
        let names = ["", "a", "b", "$x", "other"];
        let mut all: Vec<String> = Vec::new();
        let mut last: Vec<String> = names.map(str::to_owned).into();
        for _ in 0..4 {
            all.extend(last.iter().cloned());
            let deeper = |topic: &String| names.map(|name| format!("{topic}/{name}"));
            last = last.iter().flat_map(deeper).collect();
        }
        all.retain(|topic| !topic.is_empty());
        all
    }

    fn filters() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["", "a", "b", "$x", "+"]);
        (prop::collection::vec(level, 0..4), any::<bool>()).prop_filter_map(
            "no filter",
            |(mut levels, is_open)| {
                levels.truncate(3);
                if is_open || levels.is_empty() {
                    levels.push("#");
                }
                let filter = levels.join("/");
                TopicFilter::parse(&filter).is_ok().then_some(filter)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn filters_compare_as_the_sets_of_their_topics(one in filters(), other in filters()) {
            let first = TopicFilter::parse(&one).unwrap();
            let second = TopicFilter::parse(&other).unwrap();
            let (mut is_contained, mut is_shared) = (true, false);
            for topic in topics() {
                let (in_first, in_second) = (first.matches(&topic), second.matches(&topic));
                prop_assert_eq!(matches(&one, &topic), in_first, "{} {}", one, topic);
                is_contained &= in_first || !in_second;
                is_shared |= in_first && in_second;
            }
            prop_assert_eq!(contains(&one, &other), is_contained);
            prop_assert_eq!(intersects(&one, &other), is_shared);
            prop_assert_eq!(intersects(&other, &one), is_shared);
        }
    }
}
