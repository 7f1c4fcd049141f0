use super::*;
use crate::message::{ClientId, Identity};
use motemq_codec::QoS;

fn acl(text: &str) -> Arc<Acl> {
    Arc::new(Acl::parse(text).unwrap())
}

fn principal(user: Option<&str>, client: &str) -> Principal {
    Principal {
        client_id: ClientId::new(client),
        identity: user.map_or(Identity::Anonymous, |user| Identity::User(user.into())),
        attributes: Arc::default(),
    }
}

fn rights(acl: &Arc<Acl>, principal: Principal) -> Rights {
    acl.rights(&Arc::new(principal)).unwrap()
}

/// The rights of user alice with client c1.
fn of_alice(text: &str) -> Rights {
    rights(&acl(text), principal(Some("alice"), "c1"))
}

fn may_publish(rights: &Rights, topic: &str) -> bool {
    rights.publish(topic) == PublishRights::ALL
}

fn granted(rights: &Rights, filter: &str) -> bool {
    rights.subscribe(filter, None, QoS::ExactlyOnce).is_some()
}

#[test]
fn without_rules_everything_is_allowed_and_with_rules_nothing_else() {
    let everybody = Arc::new(principal(None, "c"));
    assert!(Arc::new(Acl::open()).rights(&everybody).is_none());
    let rights = of_alice("[everyone]\nallow publish a/#");
    assert!(may_publish(&rights, "a/b"));
    assert!(!may_publish(&rights, "b"));
    assert!(!granted(&rights, "a/b"));
    assert!(!rights.receive("a/b"));
}

#[test]
fn b6_a_filter_is_granted_only_if_one_allow_contains_it() {
    let rights = of_alice("[everyone]\nallow subscribe a/+\nallow subscribe b/#");
    for filter in ["a/x", "a/+", "b", "b/#", "b/+/c"] {
        assert!(granted(&rights, filter), "{filter}");
    }
    for filter in [
        "#", "+/x", "a/#", "a/x/y", "A/x", "a", "$SYS/#", "á/x", "+/#",
    ] {
        assert!(!granted(&rights, filter), "{filter}");
    }
}

#[test]
fn b3_what_a_deny_holds_of_a_granted_filter_is_not_delivered() {
    let rights = of_alice("[everyone]\nallow all #\ndeny subscribe a/secret/#");
    assert!(granted(&rights, "a/#"));
    assert!(!granted(&rights, "a/secret/+"));
    assert!(rights.receive("a/b"));
    assert!(!rights.receive("a/secret"));
    assert!(may_publish(&rights, "a/secret"));
    assert!(!rights.receive("$SYS/x"));
}
