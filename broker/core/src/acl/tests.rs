use super::*;
use crate::login::Attributes;
use crate::message::{ClientId, Identity};
use motemq_codec::{QoS, TopicFilter};
use proptest::prelude::*;

fn acl(text: &str) -> Arc<Acl> {
    Arc::new(Acl::parse(text).unwrap())
}

fn mosquitto(text: &str) -> Arc<Acl> {
    Arc::new(Acl::parse_mosquitto(text).unwrap())
}

fn principal(user: Option<&str>, client: &str) -> Principal {
    Principal {
        client_id: ClientId::new(client),
        identity: user.map_or(Identity::Anonymous, |user| Identity::User(user.into())),
        attributes: Arc::default(),
    }
}

fn of(acl: &Arc<Acl>, principal: Principal) -> Rights {
    acl.rights(&Arc::new(principal)).unwrap()
}

/// The rights of user alice with client c1.
fn of_alice(text: &str) -> Rights {
    of(&acl(text), principal(Some("alice"), "c1"))
}

fn of_anonymous(text: &str, client: &str) -> Rights {
    of(&acl(text), principal(None, client))
}

fn may_publish(rights: &Rights, topic: &str) -> bool {
    rights.publish(topic) == PublishRights::ALL
}

fn granted(rights: &Rights, filter: &str) -> bool {
    granted_qos(rights, filter, None, 2).is_some()
}

fn granted_qos(rights: &Rights, filter: &str, share: Option<&str>, wish: u8) -> Option<u8> {
    let grant = rights.subscribe(filter, share, qos(wish));
    grant.map(|grant| grant.qos as u8)
}

fn qos(number: u8) -> QoS {
    match number {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
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
    let nobody = of_alice("[user bob]\nallow all #");
    assert!(!may_publish(&nobody, "a") && !granted(&nobody, "a") && !nobody.receive("a"));
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
fn b6_names_are_compared_byte_by_byte() {
    // é as one character and as two, and the Kelvin sign.
    let rights = of_alice("[user alice]\nallow all caf\u{E9}/k");
    assert!(may_publish(&rights, "caf\u{E9}/k"));
    assert!(!may_publish(&rights, "cafe\u{301}/k"));
    assert!(!may_publish(&rights, "caf\u{E9}/\u{212A}"));
    // A blank of no kind that separates words.
    let rights = of_alice("[user alice]\nallow all a\u{A0}\n");
    assert!(may_publish(&rights, "a\u{A0}") && !may_publish(&rights, "a"));
    let rights = of(&mosquitto("topic a\u{A0}"), principal(None, "c"));
    assert!(may_publish(&rights, "a\u{A0}") && !may_publish(&rights, "a"));
    let other = acl("[user Alice]\nallow all #");
    assert!(!may_publish(
        &of(&other, principal(Some("alice"), "c")),
        "a"
    ));
}

#[test]
fn b3_what_a_deny_holds_of_a_granted_filter_is_not_delivered() {
    let rights = of_alice("[everyone]\nallow all #\ndeny subscribe a/secret/#");
    assert!(granted(&rights, "a/#"));
    assert!(!granted(&rights, "a/secret/+"));
    assert!(rights.receive("a/b"));
    assert!(!rights.receive("a/secret"));
    assert!(may_publish(&rights, "a/secret"));
}

#[test]
fn a9_a_wildcard_of_a_rule_is_not_about_dollar_topics() {
    let rights = of_alice("[everyone]\nallow all #\nallow all +/x");
    assert!(!rights.receive("$SYS/x"));
    assert!(!granted(&rights, "$SYS/#"));
    assert!(!may_publish(&rights, "$SYS/x"));
    let rights = of_alice("[everyone]\nallow subscribe $SYS/#");
    assert!(rights.receive("$SYS/x") && granted(&rights, "$SYS/#"));
    assert!(!granted(&rights, "#"));
}

#[test]
fn a_deny_wins_wherever_it_stands() {
    let lines = ["allow publish a/#", "deny publish a/b"];
    for (first, second) in [(0, 1), (1, 0)] {
        let text = format!(
            "[everyone]\n{}\n[user alice]\n{}",
            lines[first], lines[second]
        );
        let rights = of_alice(&text);
        assert!(may_publish(&rights, "a/c"));
        assert!(!may_publish(&rights, "a/b"));
    }
}

#[test]
fn a_section_is_about_whom_it_says() {
    let mut by_certificate = principal(None, "laptop-1");
    by_certificate.identity = Identity::Certificate("alice".into());
    let mut in_group = principal(Some("carol"), "x");
    in_group.attributes = Arc::new(Attributes {
        groups: ["ops".into()].into(),
        ..Attributes::default()
    });
    let everybody = [
        principal(None, "laptop-1"),
        principal(Some("alice"), "laptop-1"),
        principal(Some("alice"), "phone"),
        by_certificate,
        in_group,
        principal(Some("adm-7"), "x"),
    ];
    for (header, expected) in [
        ("everyone", [true, true, true, true, true, true]),
        ("anonymous", [true, false, false, false, false, false]),
        ("user alice", [false, true, true, true, false, false]),
        ("user \"al*\"", [false, true, true, true, false, false]),
        ("user *", [false, true, true, true, true, true]),
        ("login alice", [false, true, true, false, false, false]),
        ("certificate *", [false, false, false, true, false, false]),
        ("client laptop-*", [true, true, false, true, false, false]),
        (
            "user alice client laptop-*",
            [false, true, false, true, false, false],
        ),
        (
            "client laptop-* anonymous",
            [true, false, false, false, false, false],
        ),
        ("group ops", [false, false, false, false, true, true]),
        (
            "group ops user adm-*",
            [false, false, false, false, false, true],
        ),
    ] {
        let acl = acl(&format!(
            "group ops = adm-*, bob\n[{header}]\nallow publish #"
        ));
        let found = everybody
            .clone()
            .map(|one| may_publish(&of(&acl, one), "a"));
        assert_eq!(found, expected, "{header}");
    }
}

#[test]
fn values_of_the_client_stand_in_filters() {
    let acl = acl("[everyone]\nallow publish d/%c/%u/%{cn}/x%%-%{o}");
    let mut alice = principal(Some("alice"), "c1");
    alice.attributes = Arc::new(Attributes {
        fields: [("cn".into(), "n".into()), ("o".into(), "Org".into())].into(),
        ..Attributes::default()
    });
    let rights = of(&acl, alice);
    assert!(may_publish(&rights, "d/c1/alice/n/x%-Org"));
    assert!(!may_publish(&rights, "d/%c/%u/%{cn}/x%%-%{o}"));
    assert!(!may_publish(&rights, "d/c2/alice/n/x%-Org"));
}

#[test]
fn b4_a_value_that_is_more_than_a_part_of_a_level_allows_nothing() {
    for client in ["#", "+", "a/b", "a+", "a\0b", "a\u{7}b", "", "\u{9F}"] {
        let rights = of_anonymous("[everyone]\nallow all d/%c/#\nallow all e/x%c", client);
        for topic in [
            "d/a/b",
            "d/a",
            "d/+",
            "d/#",
            &format!("d/{client}/x"),
            "e/x",
        ] {
            assert!(!may_publish(&rights, topic), "{client:?} {topic}");
            assert!(!rights.receive(topic), "{client:?} {topic}");
        }
        assert!(!granted(&rights, "d/#"), "{client:?}");
        assert!(!granted(&rights, &format!("d/{client}/#")), "{client:?}");
    }
    let rights = of_anonymous("[everyone]\nallow all %c/#\nallow all d/%c", "$SYS");
    assert!(!may_publish(&rights, "$SYS/x") && !granted(&rights, "$SYS/#"));
    assert!(may_publish(&rights, "d/$SYS"));
    // A regular expression is a name like another.
    assert!(may_publish(
        &of_anonymous("[everyone]\nallow all d/%c", ".*"),
        "d/.*"
    ));
    assert!(!may_publish(
        &of_anonymous("[everyone]\nallow all d/%c", ".*"),
        "d/x"
    ));
}

#[test]
fn b4_a_deny_with_such_a_value_denies_whatever_it_could_be_about() {
    let denied = |client: &str, deny: &str, topic: &str| {
        let text = format!("[everyone]\nallow all #\nallow all $SYS/#\n{deny}");
        let rights = of_anonymous(&text, client);
        assert_eq!(may_publish(&rights, topic), rights.receive(topic));
        assert_eq!(granted(&rights, topic), rights.receive(topic));
        !may_publish(&rights, topic)
    };
    for client in ["+", "a/b", "", "#"] {
        assert!(denied(client, "deny all d/%c/secret", "d/x/secret"));
        assert!(denied(client, "deny all d/%c/secret", "d/a/b/secret"));
        assert!(denied(client, "deny all d/x-%c/secret", "d/x-y"));
        assert!(!denied(client, "deny all d/%c/secret", "e/x"));
        assert!(denied(client, "deny all %c/secret", "e/x"));
        assert!(denied(client, "deny all %c/secret", "$SYS/x"));
    }
    assert!(denied("$SYS", "deny all %c/#", "$SYS/x"));
    assert!(!denied("good", "deny all d/%c/secret", "d/x/secret"));
    // What is absent, and what is there twice.
    assert!(denied("good", "deny all d/%u", "d/x"));
    assert!(denied("good", "deny all d/%{cn}", "d/x"));
    let mut twice = principal(None, "c");
    twice.attributes = Arc::new(Attributes {
        fields: [("ou".into(), "a".into()), ("ou".into(), "b".into())].into(),
        ..Attributes::default()
    });
    let acl = acl("[everyone]\nallow all %{ou}/#\nallow all z/#\ndeny all z/%{ou}");
    let rights = of(&acl, twice);
    assert!(!may_publish(&rights, "a/x") && !may_publish(&rights, "z/c"));
}

#[test]
fn publishing_can_depend_on_qos_and_retain() {
    let rights = of_alice(
        "[everyone]\nallow publish a qos<=1 retain=no\nallow publish b retain=yes qos>=1\nallow publish c\ndeny publish c qos=2\nallow all d qos=0",
    );
    let allowed = |topic: &str| {
        let rights = rights.publish(topic);
        [false, true].map(|retain| [0, 1, 2].map(|number| rights.allows(qos(number), retain)))
    };
    assert_eq!(allowed("a"), [[true, true, false], [false; 3]]);
    assert_eq!(allowed("b"), [[false; 3], [false, true, true]]);
    assert_eq!(allowed("c"), [[true, true, false]; 2]);
    assert_eq!(allowed("d"), [[true, false, false]; 2]);
}

#[test]
fn subscribing_can_depend_on_qos_and_share() {
    let rights = of_alice(
        "[everyone]\nallow subscribe a/# qos<=1\nallow subscribe jobs/# share=work*\nallow subscribe news/# share=no\nallow subscribe b/#\ndeny subscribe b/big/# qos>=1\nallow subscribe c/#\ndeny subscribe c/x share=*",
    );
    assert_eq!(granted_qos(&rights, "a/b", None, 2), Some(1));
    assert_eq!(granted_qos(&rights, "a/b", None, 0), Some(0));
    assert_eq!(granted_qos(&rights, "a/b", Some("g"), 1), Some(1));
    assert_eq!(granted_qos(&rights, "jobs/1", Some("workers"), 2), Some(2));
    assert_eq!(granted_qos(&rights, "jobs/1", Some("others"), 2), None);
    assert_eq!(granted_qos(&rights, "jobs/1", None, 2), None);
    assert_eq!(granted_qos(&rights, "news/1", None, 2), Some(2));
    assert_eq!(granted_qos(&rights, "news/1", Some("workers"), 2), None);
    // Such a deny cannot be left to the delivery: it holds for every filter with a topic of it.
    assert_eq!(granted_qos(&rights, "b/small", None, 2), Some(2));
    assert_eq!(granted_qos(&rights, "b/#", None, 2), Some(0));
    assert!(rights.receive("b/big/x"));
    assert_eq!(granted_qos(&rights, "c/#", Some("g"), 2), None);
    assert_eq!(granted_qos(&rights, "c/#", None, 2), Some(2));
    assert!(rights.receive("c/x"));
}

#[test]
fn a_shared_subscription_is_granted_as_a_whole_or_not_at_all() {
    let rights = of_alice("[everyone]\nallow subscribe jobs/#\ndeny subscribe jobs/secret");
    assert!(granted(&rights, "jobs/#"));
    assert_eq!(granted_qos(&rights, "jobs/#", Some("g"), 2), None);
    assert_eq!(granted_qos(&rights, "jobs/+/x", Some("g"), 2), Some(2));
    let acl = mosquitto(
        "topic read jobs/#\ntopic read x/#\ntopic deny x/y\npattern deny jobs/1\npattern read z/#\n",
    );
    let rights = of(&acl, principal(None, "c"));
    for (filter, expected) in [
        ("jobs/#", true),
        ("x/#", false),
        ("z/+", true),
        ("#", false),
    ] {
        let found = granted_qos(&rights, filter, Some("g"), 2).is_some();
        assert_eq!(found, expected, "{filter}");
        let decision = rights.explain_subscribe(filter, Some("g"), QoS::AtMostOnce);
        assert_eq!(decision.allowed, expected, "{filter}");
        assert!(granted(&rights, filter));
    }
}

#[test]
fn a_login_brings_rules_that_allow_and_nothing_else_is_allowed_then() {
    let with = |rules: &[&str]| {
        let mut alice = principal(Some("alice"), "c1");
        alice.attributes = Arc::new(Attributes {
            rules: rules.iter().map(|rule| (*rule).into()).collect(),
            ..Attributes::default()
        });
        alice
    };
    let open = Arc::new(Acl::open());
    let rights = of(&open, with(&["allow publish t/%c", "allow subscribe s/#"]));
    assert!(may_publish(&rights, "t/c1") && granted(&rights, "s/#"));
    assert!(!may_publish(&rights, "a") && !rights.receive("a"));
    // One mistake, and none of them counts: also a denial is a mistake.
    for wrong in [
        "deny publish t/secret",
        "allow",
        "[everyone]",
        "topic t/#",
        "",
    ] {
        let rights = of(&open, with(&["allow publish t/#", wrong]));
        assert!(!may_publish(&rights, "t/x"), "{wrong}");
    }
    // With a file, both allow; what the file denies stays denied.
    let files = [
        acl("[everyone]\nallow publish a\ndeny publish t/secret"),
        mosquitto("pattern write a\npattern deny t/secret"),
    ];
    for file in files {
        let rights = of(&file, with(&["allow publish t/#"]));
        assert!(may_publish(&rights, "a") && may_publish(&rights, "t/x"));
        assert!(!may_publish(&rights, "t/secret"));
    }
}

#[test]
fn mosquittos_topic_lines_are_about_users_and_its_patterns_about_everybody() {
    let acl = mosquitto(
        "topic read open/#\nuser alice\ntopic a/#\npattern write d/%c/%u\npattern read e/%c/100%\nuser bob\ntopic write b/#\ntopic read c d\n",
    );
    let client = |user, client| of(&acl, principal(user, client));
    let (nobody, alice, bob) = (
        client(None, "c"),
        client(Some("alice"), "c"),
        client(Some("bob"), "c"),
    );
    assert!(nobody.receive("open/x") && !may_publish(&nobody, "open/x"));
    assert!(!alice.receive("open/x"));
    assert!(alice.receive("a/x") && may_publish(&alice, "a/x"));
    assert!(!bob.receive("a/x") && may_publish(&bob, "b/x") && !bob.receive("b/x"));
    assert!(bob.receive("c d"));
    assert!(may_publish(&alice, "d/c/alice") && may_publish(&bob, "d/c/bob"));
    assert!(!may_publish(&nobody, "d/c/") && !may_publish(&nobody, "d/c/alice"));
    assert!(nobody.receive("e/c/100%") && alice.receive("e/c/100%"));
    // Every SUBSCRIBE is granted; the delivery decides.
    assert!(granted(&nobody, "#") && granted(&bob, "a/x"));
    // A name that could be a wildcard, in any pattern.
    assert!(!client(Some("al+"), "x").receive("e/x/100%"));
    assert!(client(Some("b/b"), "x").receive("e/x/100%"));
}

#[test]
fn mosquittos_denials_win_among_lines_of_their_kind() {
    let acl = mosquitto(
        "user alice\ntopic readwrite a/#\ntopic deny a/secret\npattern deny a/x\npattern readwrite a/secret\npattern readwrite p/#\npattern deny p/secret\n",
    );
    let alice = of(&acl, principal(Some("alice"), "c"));
    assert!(!may_publish(&alice, "a/secret") && !alice.receive("a/secret"));
    // Patterns are not asked about what a topic line has decided.
    assert!(may_publish(&alice, "a/x") && alice.receive("a/x"));
    assert!(may_publish(&alice, "p/x") && !may_publish(&alice, "p/secret"));
}

#[test]
fn b5_an_acl_without_rules_is_a_mistake() {
    let texts = [
        "",
        "\n",
        "# nothing\n",
        "group ops = alice\n",
        "[everyone]\n",
    ];
    for text in texts {
        let error = Acl::parse(text).unwrap_err();
        assert_eq!(
            error,
            [AclError {
                line: 0,
                fault: AclFault::NoRules
            }]
        );
    }
    for text in ["", "# nothing\n", "user alice\n"] {
        let error = Acl::parse_mosquitto(text).unwrap_err();
        assert_eq!(
            error,
            [AclError {
                line: 0,
                fault: AclFault::NoRules
            }]
        );
    }
}

#[test]
fn a_wrong_line_says_what_to_write() {
    for (line, expected) in [
        ("alow publish a", "did you mean \"allow\"?"),
        ("allow publsh a", "did you mean \"publish\"?"),
        ("allow read a", "did you mean \"subscribe\"?"),
        ("allow write a", "did you mean \"publish\"?"),
        ("allow publish", "the filter is missing"),
        ("allow", "the filter is missing"),
        (
            "allow publish a b",
            "put a filter with blanks in double quotes",
        ),
        ("allow publish a/#/b", "# before the last level"),
        ("allow publish a+", "+ does not fill its level"),
        ("allow publish \"\"", "empty topic filter"),
        ("allow publish +%c", "+ does not fill its level"),
        ("allow publish a/%d", "write %% for a percent sign"),
        ("allow publish a/%{c n}", "write %% for a percent sign"),
        ("allow publish a/%", "write %% for a percent sign"),
        ("allow subscribe $share/g/a", "share=NAME"),
        ("allow publish a retain=maybe", "retain=yes or retain=no"),
        ("allow publish a retian=yes", "did you mean \"retain\"?"),
        (
            "allow subscribe a retain=no",
            "retain is a condition of publish only",
        ),
        (
            "allow all a retain=no",
            "retain is a condition of publish only",
        ),
        (
            "allow publish a share=x",
            "share is a condition of subscribe only",
        ),
        ("allow subscribe a share=", "share=NAME"),
        ("allow publish a qos<=3", "qos<=N"),
        ("allow publish a qos<2", "qos<=N"),
        ("allow publish a qos=<1", "qos<=N"),
        ("allow publish a qos<=1 qos<=2", "qos<= is there twice"),
        ("allow publish a qos<=1 qos>=2", "no quality of service"),
        ("allow publish \"a", "a double quote is not closed"),
        ("allow publish \"a\\b\"", "a backslash"),
        ("allow publish a\u{1}b", "control character"),
        ("[user alice", "in brackets"),
        ("[]", "[everyone]"),
        ("[*]", "did you mean \"everyone\"?"),
        ("[usr alice]", "did you mean \"user\"?"),
        ("[alice]", "write everyone, anonymous"),
        ("[user]", "a name is missing behind user"),
        ("[user a user b]", "user is there twice"),
        ("[anonymous certificate x]", "certificate is there twice"),
        ("[anonymous user x]", "anonymous does not go with"),
        ("[everyone user x]", "everyone does not go with"),
        ("[group opz]", "did you mean \"ops\"?"),
        ("group late = x", "above the first section"),
        ("topic read a", "write allow subscribe TOPIC"),
        ("topic deny a", "write deny all TOPIC"),
        ("pattern write a", "write allow publish TOPIC"),
        ("user alice", "write [user NAME]"),
    ] {
        let text = format!("group ops = alice\n[everyone]\nallow all x\n{line}\n");
        let errors = Acl::parse(&text).unwrap_err();
        assert_eq!(errors.len(), 1, "{line}");
        let message = errors[0].to_string();
        assert!(message.starts_with("line 4: "), "{message}");
        assert!(message.contains(expected), "{line}: {message}");
    }
    let long = format!("[everyone]\nallow all {}", "x".repeat(5_000));
    assert_eq!(
        Acl::parse(&long).unwrap_err()[0].fault,
        AclFault::LineTooLong
    );
}

#[test]
fn a_wrong_line_of_mosquittos_says_what_to_write() {
    for (line, expected) in [
        ("topc read a", "did you mean \"topic\"?"),
        ("topic raed a", "did you mean \"read\"?"),
        ("topic a b", "where the topic has blanks"),
        ("topic", "a topic is missing"),
        ("topic read", "a topic is missing"),
        ("user", "a name is missing"),
        ("user  ", "a name is missing"),
        ("topic read a+/b", "+ does not fill its level"),
        ("pattern read #/%c", "# before the last level"),
        ("[everyone]", "auth.acl_file"),
        ("allow publish a", "auth.acl_file"),
    ] {
        let errors = Acl::parse_mosquitto(&format!("topic a\n\n# c\n{line}\n")).unwrap_err();
        assert_eq!(errors.len(), 1, "{line}");
        let message = errors[0].to_string();
        assert!(message.starts_with("line 4: "), "{message}");
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn a_file_of_the_other_format_is_one_mistake() {
    let mosquitto = "user a\ntopic read a\npattern b\n";
    assert_eq!(Acl::parse(mosquitto).unwrap_err().len(), 1);
    let own = "[everyone]\nallow publish a\ndeny publish b\nwrong\n";
    assert_eq!(Acl::parse_mosquitto(own).unwrap_err().len(), 2);
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let text = "allow publish early\n[usr x]\nallow publish under-it\ndeny nothing x\n\n[user a]\nallow publish a+\n";
    let errors = Acl::parse(text).unwrap_err();
    let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [1, 2, 4, 7]);
    assert_eq!(errors[0].fault, AclFault::NoSection);
}

#[test]
fn groups_are_read_with_blanks_quotes_and_more_than_once() {
    let text = "group ops=alice , \"bob smith\",ops-*\ngroup ops = carol,\ngroup tokens =\n[group ops]\nallow publish a\n[group tokens]\nallow publish b";
    let acl = acl(text);
    for (user, expected) in [
        ("alice", true),
        ("bob smith", true),
        ("ops-9", true),
        ("carol", true),
        ("bob", false),
    ] {
        let rights = of(&acl, principal(Some(user), "c"));
        assert_eq!(may_publish(&rights, "a"), expected, "{user}");
        assert!(!may_publish(&rights, "b"));
    }
    for line in [
        "group",
        "group ops",
        "group = a",
        "group a b = c",
        "group a = b c",
        "group a = ,",
    ] {
        let errors = Acl::parse(&format!("{line}\n[everyone]\nallow all #")).unwrap_err();
        assert_eq!(errors[0].fault, AclFault::GroupDefinition, "{line}");
    }
}

#[test]
fn windows_line_ends_indents_and_a_byte_order_mark_are_no_mistake() {
    let rights = of_alice("\u{FEFF}# c\r\n  [ user alice ]\r\n\tallow\tpublish  \"a b\"  \r\n");
    assert!(may_publish(&rights, "a b"));
}

#[test]
fn a_decision_names_the_line_or_what_to_add() {
    let rights = of_alice(
        "[everyone]\nallow all a/#\ndeny all a/secret\nallow subscribe q qos<=1\ndeny publish d/%{cn}/x\n",
    );
    let decision = rights.explain_publish("a/b", QoS::AtMostOnce, false);
    assert_eq!((decision.allowed, decision.line), (true, Some(2)));
    assert_eq!(decision.text, "line 2: allow all a/#");
    let decision = rights.explain_receive("a/secret");
    assert_eq!((decision.allowed, decision.line), (false, Some(3)));
    let decision = rights.explain_publish("b \"%", QoS::AtMostOnce, false);
    assert_eq!((decision.allowed, decision.line), (false, None));
    let added = decision.text.split_once("would: ").unwrap().1;
    assert!(decision.text.contains("[user alice]"), "{}", decision.text);
    assert!(may_publish(
        &of_alice(&format!("[user alice]\n{added}")),
        "b \"%"
    ));
    let decision = rights.explain_publish("b\n\u{1B}[2J", QoS::AtMostOnce, false);
    assert!(
        !decision.text.contains(char::is_control),
        "{}",
        decision.text
    );
    let decision = rights.explain_subscribe("q", None, QoS::ExactlyOnce);
    assert_eq!(
        decision.text,
        "line 4: allow subscribe q qos<=1 (QoS 1 at most)"
    );
    assert!(decision.allowed);
    let decision = rights.explain_publish("d/e", QoS::AtMostOnce, false);
    assert!(decision.text.contains("no value that can stand in it"));
    let decision = rights.explain_subscribe("a/#", None, QoS::AtMostOnce);
    assert!(decision.allowed);
    let decision = rights.explain_subscribe("a/secret", None, QoS::AtMostOnce);
    assert_eq!(decision.line, Some(3));
}

#[test]
fn an_imported_acl_allows_the_same_topics() {
    let text = "# mine\ntopic read open/100%\n\nuser alice\ntopic a/#\ntopic deny a/secret\npattern write d/%c/%u/50%\npattern read e/%c\ntopic write c d\nuser w*\ntopic write w\ntopic deny x\npattern deny a/x/#\npattern deny f/%u";
    let own_text = import_mosquitto(text).unwrap();
    let (theirs, own) = (mosquitto(text), acl(&own_text));
    assert!(own_text.contains("\n# mine\n"), "{own_text}");
    let differences: Vec<&str> = own_text
        .lines()
        .filter(|line| line.starts_with("# differs"))
        .collect();
    assert_eq!(differences.len(), 4, "{own_text}");
    assert!(
        differences[3].contains("line 5 (\"topic a/#\")"),
        "{own_text}"
    );
    for user in [None, Some("alice"), Some("bob"), Some("w*")] {
        let theirs = of(&theirs, principal(user, "c1"));
        let own = of(&own, principal(user, "c1"));
        for topic in [
            "open/100%",
            "a/b",
            "a/secret",
            "a",
            "d/c1/alice/50%",
            "d/c1/bob/50%",
            "e/c1",
            "c d",
            "x",
            "f/alice",
            "f/z",
            "z",
        ] {
            assert_eq!(
                own.publish(topic),
                theirs.publish(topic),
                "{user:?} {topic}\n{own_text}"
            );
            assert_eq!(
                own.receive(topic),
                theirs.receive(topic),
                "{user:?} {topic}\n{own_text}"
            );
        }
        // Never more.
        assert!(!own.receive("a/x"));
    }
    let wild = of(&own, principal(Some("w*"), "c"));
    assert!(!may_publish(&wild, "w") && may_publish(&of(&theirs, principal(Some("w*"), "c")), "w"));
    assert!(import_mosquitto("").is_err());
}

/// A rule in its simplest reading.
#[derive(Clone, Debug)]
struct Naive {
    deny: bool,
    publish: bool,
    subscribe: bool,
    filter: String,
    qos_max: u8,
}

impl Naive {
    fn line(&self) -> String {
        let effect = if self.deny { "deny" } else { "allow" };
        let action = match (self.publish, self.subscribe) {
            (true, true) => "all",
            (true, false) => "publish",
            _ => "subscribe",
        };
        format!("{effect} {action} {} qos<={}", self.filter, self.qos_max)
    }

    fn is_about(&self, topic: &str) -> bool {
        TopicFilter::parse(&self.filter).unwrap().matches(topic)
    }
}

fn naive_rules() -> impl Strategy<Value = Vec<Naive>> {
    let filters = vec![
        "#", "+", "a/#", "a/+", "a/b", "+/b", "a", "b", "$x/#", "+/+/b", "b/+",
    ];
    let rule = (
        any::<bool>(),
        0..3_u8,
        prop::sample::select(filters),
        0..3_u8,
    );
    let rule = rule.prop_map(|(deny, action, filter, qos_max)| Naive {
        deny,
        publish: action != 1,
        subscribe: action != 0,
        filter: filter.to_owned(),
        qos_max,
    });
    prop::collection::vec(rule, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn a_naive_reading_of_the_rules_comes_to_the_same(rules in naive_rules()) {
        let lines: Vec<String> = rules.iter().map(Naive::line).collect();
        let rights = of_alice(&format!("[everyone]\n{}", lines.join("\n")));
        let reversed: Vec<String> = lines.iter().rev().cloned().collect();
        let backwards = of_alice(&format!("[everyone]\n{}", reversed.join("\n")));
        for topic in ["a", "b", "a/b", "b/b", "a/", "b/a", "a/a/b", "$x/b", "$x", "c"] {
            let about: Vec<&Naive> = rules.iter().filter(|rule| rule.is_about(topic)).collect();
            let is = |deny: bool, test: &dyn Fn(&Naive) -> bool| {
                about.iter().any(|rule| rule.deny == deny && test(rule))
            };
            for number in 0..3 {
                let test = |rule: &Naive| rule.publish && number <= rule.qos_max;
                let expected = is(false, &test) && !is(true, &test);
                for retain in [false, true] {
                    prop_assert_eq!(rights.publish(topic).allows(qos(number), retain), expected);
                    let decision = rights.explain_publish(topic, qos(number), retain);
                    prop_assert_eq!(decision.allowed, expected);
                    let mut deciding = decision.line.map(|line| &rules[line - 2]);
                    prop_assert!(deciding.take().is_none_or(|rule| rule.deny != expected && rule.is_about(topic)));
                }
            }
            let receives = is(false, &|rule| rule.subscribe)
                && !is(true, &|rule| rule.subscribe && rule.qos_max == 2);
            prop_assert_eq!(rights.receive(topic), receives);
            prop_assert_eq!(rights.explain_receive(topic).allowed, receives);
            prop_assert_eq!(backwards.publish(topic), rights.publish(topic));
            prop_assert_eq!(backwards.receive(topic), receives);
            // A topic is a filter for itself alone.
            for number in 0..3 {
                let test = |rule: &Naive| rule.subscribe && number <= rule.qos_max;
                let expected = is(false, &test) && !is(true, &test);
                let grant = rights.subscribe(topic, None, qos(number));
                prop_assert_eq!(grant == Some(Grant { qos: qos(number) }), expected);
                let decision = rights.explain_subscribe(topic, None, qos(number));
                prop_assert_eq!(decision.allowed, grant.is_some());
            }
        }
    }

    #[test]
    fn no_text_panics(text in "(?s).{0,200}", words in "([a-z%\\[\\]\"#+/= \\n<>{}*,$]|allow |publish |group |user |topic ){0,60}") {
        for text in [text, words] {
            for parsed in [Acl::parse(&text), Acl::parse_mosquitto(&text)] {
                match parsed {
                    Ok(acl) => {
                        let rights = of(&Arc::new(acl), principal(Some("u"), "c"));
                        let _ = (rights.publish("a/b"), rights.receive("a"));
                    }
                    Err(errors) => {
                        for error in errors {
                            prop_assert!(!error.to_string().is_empty());
                        }
                    }
                }
            }
        }
    }
}
