//! Enrolment over MQTT, the broker's part of it: who may ask, what the signer is told, and who gets the answer.
#![expect(
    clippy::unwrap_used,
    reason = "a script that goes wrong must stop at once"
)]

use motemq_codec::{
    Forwarded, ForwardedBlock, Packet, ProtocolVersion, Publish, PublishProperties, QoS,
    ReasonCode, Will,
};
use motemq_core::{
    Acl, Attributes, Close, Enrolment, Identity, Limits, Login, QueueFull, Scope, Verdict,
    Violation,
};
use motemq_tests::peer::{Bench, Got, GotPublish, Hello, Peer, options, packet_id, subscribe};
use std::sync::Arc;

const SUBSCRIBED: u8 = 1;
const NOT_AUTHORIZED: u8 = ReasonCode::NotAuthorized as u8;

/// The signer, connected and subscribed.
fn site() -> (Bench, Peer) {
    let mut bench = Bench::new(Limits::default());
    bench.broker.set_enrolment(rules());
    bench.verdict = service("enrolment");
    let signer = bench.connect(&Hello::durable("signer"));
    bench.subscribe(signer, "$certs/request", 1);
    assert_eq!(bench.take_all(signer), []);
    (bench, signer)
}

fn rules() -> Option<Enrolment> {
    Some(Enrolment {
        signer: "enrolment".into(),
        request_bytes_max: 1_000,
        requests_max: 3,
        applicants_max: 2,
        connection_max_s: 600,
    })
}

fn certificate(name: &str) -> Identity {
    Identity::Certificate(name.into())
}

fn verdict(identity: Identity, scope: Scope) -> Verdict {
    let serial = ("serial".into(), "0a0b".into());
    let fingerprint = ("fingerprint".into(), "c0ffee".into());
    let attributes = Attributes {
        fields: match &identity {
            Identity::Certificate(_) => [serial, fingerprint].into(),
            _ => [].into(),
        },
        ..Attributes::default()
    };
    Verdict::Accepted {
        login: Login {
            attributes: Arc::new(attributes),
            scope,
            ..identity.into()
        },
        entropy: 9,
    }
}

/// The login of an enrolment service, by its certificate.
fn service(name: &str) -> Verdict {
    let uri = format!("urn:mqtt:service:{name}");
    let attributes = Attributes {
        fields: [("san-uri".into(), uri.into())].into(),
        ..Attributes::default()
    };
    Verdict::Accepted {
        login: Login {
            attributes: Arc::new(attributes),
            ..certificate(name).into()
        },
        entropy: 9,
    }
}

/// Connects as somebody.
fn connect(bench: &mut Bench, hello: &Hello<'_>, identity: Identity, scope: Scope) -> Peer {
    bench.verdict = verdict(identity, scope);
    bench.connect(hello)
}

/// A request or an answer.
fn send(bench: &mut Bench, peer: Peer, topic: &str, properties: ForwardedBlock, qos: QoS) {
    let block = properties.into_bytes();
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: (qos != QoS::AtMostOnce).then(|| packet_id(77)),
        properties: PublishProperties {
            forwarded: Forwarded::from_block(&block),
            ..PublishProperties::default()
        },
        payload: b"CSR",
    };
    bench.send(peer, &Packet::Publish(publish));
}

fn with_response(topic: &str, data: &[u8]) -> ForwardedBlock {
    let mut block = ForwardedBlock::default();
    block.response_topic(topic);
    block.correlation_data(data);
    block
}

fn user_properties(publish: &GotPublish) -> Vec<(String, String)> {
    let properties = Forwarded::from_block(&publish.forwarded).user_properties();
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    properties.iter().map(owned).collect()
}

/// What the signer is told under this name.
fn told<'a>(properties: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut named = properties.iter().filter(|(known, _)| known == name);
    let value = named.next().map(|(_, value)| value.as_str());
    assert_eq!(named.next(), None, "{name} once");
    value
}

/// The signer's answer to what it got.
fn answer(bench: &mut Bench, signer: Peer, request: &GotPublish) {
    let properties = user_properties(request);
    let forwarded = Forwarded::from_block(&request.forwarded);
    let mut block = ForwardedBlock::default();
    if let Some(topic) = forwarded.response_topic() {
        block.response_topic(topic);
    }
    if let Some(data) = forwarded.correlation_data() {
        block.correlation_data(data);
    }
    for name in ["client-id", "session"] {
        block.user_property(name, told(&properties, name).unwrap());
    }
    block.user_property("status", "issued");
    send(bench, signer, "$certs/response", block, QoS::AtLeastOnce);
}

#[test]
fn a_request_reaches_the_signer_with_who_asked_and_the_answer_reaches_who_asked() {
    let (mut bench, signer) = site();
    let meter = Hello::durable("m-1");
    let meter = connect(&mut bench, &meter, certificate("meter-1"), Scope::Full);
    // What a client says of itself is not what the broker says of it.
    let mut block = with_response("$certs/issued/a", b"17");
    block.user_property("client-id", "m-2");
    block.user_property("login", "claim");
    block.user_property("token", "secret");
    block.user_property("else", "x");
    send(&mut bench, meter, "$certs/csr", block, QoS::AtLeastOnce);
    assert_eq!(
        bench.take(meter),
        Some(Got::Ack("PUBACK", 77, ReasonCode::Success))
    );
    let request = bench.take_publish(signer);
    assert_eq!(
        (&*request.topic, &*request.payload, request.qos),
        ("$certs/request", "CSR", 1)
    );
    let properties = user_properties(&request);
    for (name, value) in [
        ("client-id", Some("m-1")),
        ("login", Some("certificate")),
        ("user", Some("meter-1")),
        ("certificate-serial", Some("0a0b")),
        ("certificate-fingerprint", Some("c0ffee")),
        ("token", Some("secret")),
        ("else", None),
    ] {
        assert_eq!(told(&properties, name), value, "{name}");
    }
    answer(&mut bench, signer, &request);
    let issued = bench.take_publish(meter);
    assert_eq!((&*issued.topic, issued.qos), ("$certs/issued/a", 1));
    assert_eq!(
        Forwarded::from_block(&issued.forwarded).correlation_data(),
        Some(&b"17"[..])
    );
    assert_eq!(
        user_properties(&issued),
        [("status".to_owned(), "issued".to_owned())]
    );
    assert_eq!(
        bench.take(signer),
        Some(Got::Ack("PUBACK", 77, ReasonCode::Success))
    );
}

#[test]
fn a_client_without_properties_gets_its_answer_without_a_subscription() {
    let (mut bench, signer) = site();
    let others = connect(
        &mut bench,
        &Hello::clean("other"),
        certificate("o"),
        Scope::Full,
    );
    bench.subscribe(others, "$certs/issued", 1);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let id = format!("m-{}", qos as u8);
        let meter = Hello::v3(&id, true);
        let meter = connect(&mut bench, &meter, certificate("claim-1"), Scope::Enrolment);
        send(
            &mut bench,
            meter,
            "$certs/csr",
            ForwardedBlock::default(),
            qos,
        );
        let acknowledged = match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(Got::Ack("PUBACK", 77, ReasonCode::Success)),
            QoS::ExactlyOnce => Some(Got::Ack("PUBREC", 77, ReasonCode::Success)),
        };
        assert_eq!(bench.take(meter), acknowledged);
        let request = bench.take_publish(signer);
        assert_eq!(request.qos, qos.min(QoS::AtLeastOnce) as u8);
        let properties = user_properties(&request);
        assert_eq!(told(&properties, "client-id"), Some(&*id));
        assert_eq!(told(&properties, "login"), Some("claim"));
        answer(&mut bench, signer, &request);
        let _ = bench.take_all(signer);
        assert_eq!(bench.take_publish(meter).topic, "$certs/issued");
        bench.cut(meter);
    }
    assert_eq!(bench.take_all(others), []);
}

#[test]
fn a_request_waits_for_a_signer_that_is_away() {
    let (mut bench, signer) = site();
    bench.cut(signer);
    let meter = connect(
        &mut bench,
        &Hello::durable("m"),
        certificate("m"),
        Scope::Full,
    );
    send(
        &mut bench,
        meter,
        "$certs/csr",
        ForwardedBlock::default(),
        QoS::AtLeastOnce,
    );
    assert_eq!(
        bench.take(meter),
        Some(Got::Ack("PUBACK", 77, ReasonCode::Success))
    );
    bench.restart(usize::MAX);
    bench.broker.set_enrolment(rules());
    bench.verdict = service("enrolment");
    let (signer, is_present) = bench.connect_for(&Hello {
        clean: false,
        ..Hello::durable("signer")
    });
    assert!(is_present);
    let request = bench.take_publish(signer);
    // The answer waits, too.
    answer(&mut bench, signer, &request);
    let hello = Hello {
        clean: false,
        ..Hello::durable("m")
    };
    let meter = connect(&mut bench, &hello, certificate("m"), Scope::Full);
    assert_eq!(bench.take_publish(meter).topic, "$certs/issued");
}

#[test]
fn an_answer_to_somebody_who_is_gone_finds_nobody() {
    let (mut bench, signer) = site();
    let meter = connect(
        &mut bench,
        &Hello::clean("m"),
        Identity::Anonymous,
        Scope::Enrolment,
    );
    send(
        &mut bench,
        meter,
        "$certs/csr",
        ForwardedBlock::default(),
        QoS::AtMostOnce,
    );
    let request = bench.take_publish(signer);
    assert_eq!(told(&user_properties(&request), "login"), Some("none"));
    bench.cut(meter);
    // The same name is not the same session.
    let again = connect(
        &mut bench,
        &Hello::clean("m"),
        Identity::Anonymous,
        Scope::Enrolment,
    );
    answer(&mut bench, signer, &request);
    let nobody = Got::Ack("PUBACK", 77, ReasonCode::NoMatchingSubscribers);
    assert_eq!(bench.take(signer), Some(nobody));
    assert_eq!(bench.take_all(again), []);
}

#[test]
fn who_may_only_enrol_may_do_nothing_else() {
    let (mut bench, _signer) = site();
    let hello = Hello {
        expiry_s: Some(3600),
        ..Hello::clean("m")
    };
    let meter = connect(&mut bench, &hello, certificate("claim"), Scope::Enrolment);
    for (filter, code) in [
        ("$certs/issued", SUBSCRIBED),
        ("$certs/issued/#", SUBSCRIBED),
        ("$certs/#", NOT_AUTHORIZED),
        ("$certs/request", NOT_AUTHORIZED),
        ("$certs/issuedx", NOT_AUTHORIZED),
        ("#", NOT_AUTHORIZED),
        ("t", NOT_AUTHORIZED),
        ("$SYS/#", NOT_AUTHORIZED),
        ("$share/g/$certs/issued", NOT_AUTHORIZED),
    ] {
        bench.send(meter, &subscribe(1, &[(filter, options(1))], None));
        assert_eq!(
            bench.take(meter),
            Some(Got::SubAck(1, vec![code])),
            "{filter}"
        );
    }
    for topic in ["t", "$certs/response", "$certs/issued", "$certs/request"] {
        bench.publish(meter, topic, "x", 1, 5);
        let refused = Got::Ack("PUBACK", 5, ReasonCode::NotAuthorized);
        assert_eq!(bench.take(meter), Some(refused), "{topic}");
    }
    // Its session ends with the connection, whatever it wished.
    bench.cut(meter);
    bench.verdict = verdict(certificate("claim"), Scope::Enrolment);
    let (_, is_present) = bench.connect_for(&Hello {
        clean: false,
        ..hello
    });
    assert!(!is_present);
    let peer = bench.open(ProtocolVersion::V5);
    let will = Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "t",
        payload: b"",
        delay_s: 0,
        message_expiry_s: None,
        forwarded: Forwarded::default(),
    };
    let hello = Hello {
        will: Some(will),
        ..Hello::clean("w")
    };
    bench.send_bytes(peer, &hello.bytes());
    assert_eq!(
        bench.take(peer),
        Some(Got::ConnAck(false, ReasonCode::NotAuthorized))
    );
}

/// A claim that leaked must not keep the device away whose client id it uses, nor take over its session.
#[test]
fn who_enrols_never_meets_the_client_it_enrols_for() {
    let (mut bench, _signer) = site();
    let device = connect(
        &mut bench,
        &Hello::durable("m"),
        certificate("m"),
        Scope::Full,
    );
    let claim = connect(
        &mut bench,
        &Hello::clean("m"),
        certificate("claim"),
        Scope::Enrolment,
    );
    assert_eq!((bench.closed(device), bench.closed(claim)), (None, None));
    let again = connect(
        &mut bench,
        &Hello::durable("m"),
        certificate("m"),
        Scope::Full,
    );
    assert_eq!(bench.closed(device), Some(Close::TakenOver));
    assert_eq!((bench.closed(again), bench.closed(claim)), (None, None));
}

/// Nor each other: several devices may ask with one claim, or with nothing, under any client id.
#[test]
fn who_enrols_keeps_nobody_else_from_it() {
    let (mut bench, signer) = site();
    let hello = Hello::clean("m");
    let stranger = connect(&mut bench, &hello, Identity::Anonymous, Scope::Enrolment);
    let device = connect(&mut bench, &hello, certificate("claim"), Scope::Enrolment);
    assert_eq!((bench.closed(stranger), bench.closed(device)), (None, None));
    send(
        &mut bench,
        device,
        "$certs/csr",
        ForwardedBlock::default(),
        QoS::AtMostOnce,
    );
    let request = bench.take_publish(signer);
    answer(&mut bench, signer, &request);
    assert_eq!(bench.take_publish(device).topic, "$certs/issued");
    assert_eq!(bench.take_all(stranger), []);
    // No more than so many at a time, and not for ever.
    let third = bench.open(ProtocolVersion::V5);
    bench.send_bytes(third, &hello.bytes());
    let full = Got::ConnAck(false, ReasonCode::QuotaExceeded);
    assert_eq!(bench.take(third), Some(full));
    bench.pass(600_000);
    assert!(matches!(bench.closed(device), Some(Close::LoginEnded(_))));
    let _ = connect(&mut bench, &hello, Identity::Anonymous, Scope::Enrolment);
}

/// Devices may be called anything, and choose their client ids.
#[test]
fn a_device_with_the_signers_name_is_not_the_signer() {
    let (mut bench, _signer) = site();
    let hello = Hello::clean("d");
    let device = connect(&mut bench, &hello, certificate("enrolment"), Scope::Full);
    bench.send(
        device,
        &subscribe(1, &[("$certs/request", options(1))], None),
    );
    assert_eq!(
        bench.take(device),
        Some(Got::SubAck(1, vec![NOT_AUTHORIZED]))
    );
    let squatter = bench.open(ProtocolVersion::V5);
    bench.send_bytes(squatter, &Hello::durable("enrolment").bytes());
    let refused = Got::ConnAck(false, ReasonCode::ClientIdentifierNotValid);
    assert_eq!(bench.take(squatter), Some(refused));
    let user = Identity::User("enrolment".into());
    let signer = connect(&mut bench, &Hello::clean("enrolment"), user, Scope::Full);
    bench.subscribe(signer, "$certs/request", 1);
}

/// With `drop-oldest`, too: what was acknowledged does not give way to what comes later.
#[test]
fn a_full_queue_of_the_signer_refuses() {
    let mut bench = Bench::new(Limits {
        queue_messages_max: 2,
        queue_full: QueueFull::DropOldest,
        ..Limits::default()
    });
    bench.broker.set_enrolment(rules());
    bench.verdict = service("enrolment");
    let signer = bench.connect(&Hello::durable("signer"));
    bench.subscribe(signer, "$certs/request", 1);
    bench.cut(signer);
    let meter = connect(
        &mut bench,
        &Hello::clean("m"),
        certificate("m"),
        Scope::Full,
    );
    for code in [
        ReasonCode::Success,
        ReasonCode::Success,
        ReasonCode::QuotaExceeded,
    ] {
        send(
            &mut bench,
            meter,
            "$certs/csr",
            ForwardedBlock::default(),
            QoS::AtLeastOnce,
        );
        assert_eq!(bench.take(meter), Some(Got::Ack("PUBACK", 77, code)));
    }
    assert_eq!(refusal(&mut bench, meter), "busy");
    let other = connect(
        &mut bench,
        &Hello::clean("o"),
        certificate("o"),
        Scope::Full,
    );
    send(
        &mut bench,
        other,
        "$certs/csr",
        ForwardedBlock::default(),
        QoS::AtMostOnce,
    );
    assert_eq!(refusal(&mut bench, other), "unavailable");
}

#[test]
fn nobody_but_the_signer_sees_requests_or_answers_them() {
    let (mut bench, signer) = site();
    let other = connect(
        &mut bench,
        &Hello::clean("o"),
        certificate("o"),
        Scope::Full,
    );
    for filter in [
        "$certs/request",
        "$certs/#",
        "$share/g/$certs/request",
        "$certs/csr",
    ] {
        bench.send(other, &subscribe(1, &[(filter, options(1))], None));
        assert_eq!(
            bench.take(other),
            Some(Got::SubAck(1, vec![NOT_AUTHORIZED])),
            "{filter}"
        );
    }
    bench.subscribe(other, "#", 1);
    let mut block = ForwardedBlock::default();
    block.user_property("client-id", "signer");
    block.user_property("session", "1");
    send(
        &mut bench,
        other,
        "$certs/response",
        block,
        QoS::AtLeastOnce,
    );
    let refused = Got::Ack("PUBACK", 77, ReasonCode::NotAuthorized);
    assert_eq!(bench.take_all(other), [refused]);
    send(
        &mut bench,
        other,
        "$certs/csr",
        ForwardedBlock::default(),
        QoS::AtMostOnce,
    );
    assert_eq!(bench.take_all(other), []);
    // Another name signs from now on.
    let _ = bench.take_all(signer);
    bench.cut(signer);
    send(
        &mut bench,
        other,
        "$certs/csr",
        ForwardedBlock::default(),
        QoS::AtLeastOnce,
    );
    assert_eq!(bench.take_all(other).len(), 1);
    bench.broker.set_enrolment(Some(Enrolment {
        signer: "other".into(),
        ..rules().unwrap()
    }));
    // What was asked of the old one is not for it any more.
    bench.verdict = service("enrolment");
    let signer = bench.connect(&Hello {
        clean: false,
        ..Hello::durable("signer")
    });
    send(
        &mut bench,
        other,
        "$certs/csr",
        ForwardedBlock::default(),
        QoS::AtMostOnce,
    );
    assert_eq!(bench.take_all(signer), []);
    assert_eq!(refusal(&mut bench, other), "unavailable");
}

/// The word in the refusal that a client gets.
fn refusal(bench: &mut Bench, peer: Peer) -> String {
    let publish = bench.take_publish(peer);
    assert!(
        publish.topic.starts_with("$certs/issued"),
        "{}",
        publish.topic
    );
    let properties = user_properties(&publish);
    let word = publish.payload.split('"').nth(3).unwrap().to_owned();
    if !properties.is_empty() {
        assert_eq!(told(&properties, "status"), Some("refused"));
        assert_eq!(told(&properties, "reason"), Some(&*word));
    }
    let start = format!(r#"{{"error":"{word}","message":""#);
    assert!(publish.payload.starts_with(&start), "{}", publish.payload);
    word
}

#[test]
fn what_the_signer_need_not_see_is_refused_with_a_word() {
    let (mut bench, signer) = site();
    let meter = connect(
        &mut bench,
        &Hello::clean("m"),
        certificate("m"),
        Scope::Full,
    );
    let refused = |code| Some(Got::Ack("PUBACK", 77, code));
    send(
        &mut bench,
        meter,
        "$certs/csr",
        with_response("t", b"1"),
        QoS::AtLeastOnce,
    );
    assert_eq!(bench.take(meter), refused(ReasonCode::TopicNameInvalid));
    assert_eq!(refusal(&mut bench, meter), "response-topic");
    send(
        &mut bench,
        meter,
        "$certs/csr",
        with_response("$certs/issued", &[0; 998]),
        QoS::AtLeastOnce,
    );
    assert_eq!(bench.take(meter), refused(ReasonCode::QuotaExceeded));
    assert_eq!(refusal(&mut bench, meter), "too-large");
    bench.retain(meter, "$certs/csr", "CSR", 1, 77);
    assert_eq!(bench.take(meter), refused(ReasonCode::NotAuthorized));
    assert_eq!(refusal(&mut bench, meter), "retained");
    send(
        &mut bench,
        meter,
        "$certs/csr",
        ForwardedBlock::default(),
        QoS::AtLeastOnce,
    );
    assert_eq!(bench.take(meter), refused(ReasonCode::QuotaExceeded));
    assert_eq!(refusal(&mut bench, meter), "too-many-requests");
    bench.pass(3_600_000);
    send(
        &mut bench,
        meter,
        "$certs/csr",
        ForwardedBlock::default(),
        QoS::AtLeastOnce,
    );
    assert_eq!(bench.take(meter), refused(ReasonCode::Success));
    assert_eq!(bench.take_all(signer).len(), 1);
    // An old client cannot be told in its acknowledgement, and is not thrown out either.
    bench.unsubscribe(signer, "$certs/request");
    let old = connect(
        &mut bench,
        &Hello::v3("old", true),
        certificate("old"),
        Scope::Full,
    );
    send(
        &mut bench,
        old,
        "$certs/csr",
        ForwardedBlock::default(),
        QoS::AtLeastOnce,
    );
    assert_eq!(bench.take(old), refused(ReasonCode::Success));
    assert_eq!(refusal(&mut bench, old), "unavailable");
    assert_eq!(bench.closed(old), None);
}

#[test]
fn rules_neither_open_nor_close_an_enrolment() {
    let (mut bench, signer) = site();
    let acl = Acl::parse("[everyone]\nallow subscribe #\nallow publish t\n").unwrap();
    bench.broker.set_acl(Arc::new(acl));
    let meter = connect(
        &mut bench,
        &Hello::clean("m"),
        certificate("m"),
        Scope::Full,
    );
    send(
        &mut bench,
        meter,
        "$certs/csr",
        ForwardedBlock::default(),
        QoS::AtMostOnce,
    );
    let request = bench.take_publish(signer);
    answer(&mut bench, signer, &request);
    assert_eq!(bench.take_publish(meter).topic, "$certs/issued");
}

#[test]
fn without_enrolment_its_topics_are_the_brokers_own() {
    let mut bench = Bench::default();
    let meter = bench.connect(&Hello::clean("m"));
    for filter in ["$certs/issued", "$certs/request"] {
        bench.send(meter, &subscribe(1, &[(filter, options(1))], None));
        assert_eq!(
            bench.take(meter),
            Some(Got::SubAck(1, vec![NOT_AUTHORIZED]))
        );
    }
    bench.publish(meter, "$certs/csr", "CSR", 1, 5);
    let refused = Got::Ack("PUBACK", 5, ReasonCode::NotAuthorized);
    assert_eq!(bench.take(meter), Some(refused));
    let old = bench.connect(&Hello::v3("old", true));
    bench.publish(old, "$certs/csr", "CSR", 1, 5);
    assert!(matches!(
        bench.closed(old),
        Some(Close::Violation(Violation::PublishRefused(..)))
    ));
}
