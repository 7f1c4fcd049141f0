//! Patterns with which an operator picks client identifiers: `*` is any text, `?` one character, all else itself.
//!
//! Takes time proportional to pattern times text at worst, and no memory. Does not know: topics, whose wildcards are others.

/// Whether the whole of `text` is as `pattern` says.
#[must_use]
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // Behind the last `*`, and what it has not taken yet.
    let mut retry = None;
    loop {
        let here = (pattern.clone(), text.clone());
        match (pattern.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                text = here.1;
                retry = Some((pattern.clone(), text.clone()));
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => {
                let Some((behind, mut rest)) = retry.take() else {
                    return false;
                };
                if rest.next().is_none() {
                    return false;
                }
                (pattern, text) = (behind.clone(), rest.clone());
                retry = Some((behind, rest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_character() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "meter-17", true),
            ("meter-17", "meter-17", true),
            ("meter-1", "meter-17", false),
            ("meter-*", "meter-17", true),
            ("meter-*", "pump-17", false),
            ("*-17", "meter-17-17", true),
            ("*-17", "meter-17-1", false),
            ("m*r-?7", "meter-17", true),
            ("m*r-?7", "meter-7", false),
            ("?", "é", true),
            ("a**b", "ab", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("[a]", "[a]", true),
        ] {
            assert_eq!(glob_matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!glob_matches(&pattern, &"a".repeat(2_000)));
    }
}
