//! Why something is allowed or denied, for people.
//!
//! Promises: the same verdict as [`Rights`] gives to the broker, with the line that decided, or a line that would allow it.
//! Does not know: where the file is.

use super::Granting;
use super::parse::login_rules;
use super::rights::Rights;
use super::rule::{Effect, Rule};
use super::words::quote;
use motemq_codec::QoS;

/// A verdict and its reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The verdict.
    pub allowed: bool,
    /// The line of the ACL that decided; `None` if no line did.
    pub line: Option<usize>,
    /// The reason, in one line.
    pub text: String,
}

impl Rights {
    /// Why it may or may not publish this.
    #[must_use]
    pub fn explain_publish(&self, topic: &str, qos: QoS, retain: bool) -> Decision {
        self.explain(self.publish_rule(topic, qos, retain), "publish", topic)
    }

    /// Why messages of `topic` may or may not be delivered to it.
    #[must_use]
    pub fn explain_receive(&self, topic: &str) -> Decision {
        self.explain(self.receive_rule(topic), "subscribe", topic)
    }

    /// Why it may or may not subscribe to this; `qos` is what it wishes.
    #[must_use]
    pub fn explain_subscribe(&self, filter: &str, share: Option<&str>, qos: QoS) -> Decision {
        if self.acl.granting == Granting::Delivered && share.is_none() {
            return Decision {
                allowed: true,
                line: None,
                text: "a mosquitto ACL grants every subscription that is not shared, and decides by delivery".to_owned(),
            };
        }
        let granted = self.subscribe(filter, share, qos).map(|grant| grant.qos);
        let rule = self.subscribe_rule(filter, share, granted.unwrap_or(qos));
        let mut decision = self.explain(rule, "subscribe", filter);
        if granted.is_some_and(|granted| granted != qos) {
            let granted = granted.map_or(0, |granted| granted as u8);
            decision.text.push_str(&format!(" (QoS {granted} at most)"));
        }
        decision
    }

    fn explain(&self, rule: Option<&Rule>, action: &str, filter: &str) -> Decision {
        let Some(rule) = rule else {
            return Decision {
                allowed: false,
                line: None,
                text: shown(&self.explain_absence(action, filter)),
            };
        };
        let place = match rule.line {
            0 => "the login brought".to_owned(),
            line => format!("line {line}"),
        };
        let widened = match rule.effect == Effect::Deny && self.is_widened(rule) {
            true => {
                " (this client has no value that can stand in it, so it denies all that it could be about)"
            }
            false => "",
        };
        Decision {
            allowed: rule.effect == Effect::Allow,
            line: (rule.line > 0).then_some(rule.line as usize),
            text: shown(&format!("{place}: {}{widened}", rule.text)),
        }
    }

    fn explain_absence(&self, action: &str, filter: &str) -> String {
        if let Err(fault) = login_rules(&self.principal) {
            return format!("no rule allows it, and the rules of the login are wrong: {fault}");
        }
        match (self.acl.granting, self.principal.user()) {
            (Granting::Open, _) => "no rule of the login allows it".to_owned(),
            (Granting::Contained, user) => {
                let section = match user {
                    Some(user) => format!("[user {}]", quote(user)),
                    None => "[anonymous]".to_owned(),
                };
                let filter = quote(&filter.replace('%', "%%"));
                format!(
                    "no rule allows it; under {section}, this line would: allow {action} {filter}"
                )
            }
            (Granting::Delivered, user) => {
                let access = if action == "publish" { "write" } else { "read" };
                let section = match user {
                    Some(user) => format!("under \"user {user}\""),
                    None => "before the first user line".to_owned(),
                };
                format!("no line allows it; {section}, this line would: topic {access} {filter}")
            }
        }
    }
}

/// One line, whatever a client has put into its topic.
fn shown(text: &str) -> String {
    let letter = |letter: char| match letter.is_control() {
        true => char::REPLACEMENT_CHARACTER,
        false => letter,
    };
    text.chars().map(letter).collect()
}
