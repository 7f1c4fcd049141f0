//! Any text as an ACL, in our format and in mosquitto's: rules or mistakes with lines, and verdicts that agree with their reasons.
//!
//! The seeds are in `corpus/acl`. The core's ordinary tests run random texts through the same parsers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use motemq_codec::{QoS, TopicFilter};
use motemq_core::{Acl, Attributes, ClientId, Identity, Principal, import_mosquitto};
use std::sync::Arc;

fuzz_target!(|text: &str| {
    let lines = text.lines().count();
    for parsed in [Acl::parse(text), Acl::parse_mosquitto(text)] {
        match parsed {
            Ok(acl) => check(&Arc::new(acl), text),
            Err(mistakes) => {
                assert!(!mistakes.is_empty());
                assert!(mistakes.iter().all(|mistake| mistake.line <= lines));
                assert!(mistakes.iter().all(|mistake| !mistake.to_string().is_empty()));
            }
        }
    }
    if let Ok(own) = import_mosquitto(text) {
        // A name with a star may leave comments only.
        let _ = Acl::parse(&own);
    }
});

fn check(acl: &Arc<Acl>, text: &str) {
    for client_id in ["c", "a/b", "#"] {
        let principal = Principal {
            client_id: ClientId::new(client_id),
            identity: Identity::User("alice".into()),
            attributes: Arc::new(Attributes {
                groups: ["ops".into()].into(),
                fields: [("cn".into(), "n".into())].into(),
                ..Attributes::default()
            }),
        };
        let rights = acl.rights(&Arc::new(principal)).expect("rules restrict");
        for filter in text.split_whitespace().take(20).chain(["a/b", "#", "$SYS/x"]) {
            if TopicFilter::parse(filter).is_err() {
                continue;
            }
            let qos = QoS::AtLeastOnce;
            let granted = rights.subscribe(filter, None, qos).is_some();
            assert_eq!(granted, rights.explain_subscribe(filter, None, qos).allowed);
            if filter.contains(['+', '#']) {
                continue;
            }
            let publishes = rights.publish(filter).allows(qos, false);
            assert_eq!(publishes, rights.explain_publish(filter, qos, false).allowed);
            assert_eq!(rights.receive(filter), rights.explain_receive(filter).allowed);
        }
    }
}
