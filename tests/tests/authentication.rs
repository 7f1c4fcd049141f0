//! Rules of enhanced authentication (MQTT 5 section 4.12, trap 23), in virtual time, by the bench's scripted method.
//!
//! SCRAM over sockets is in `scram.rs`.

use motemq_codec::{Packet, ProtocolVersion, ReasonCode};
use motemq_core::{Close, Violation};
use motemq_tests::peer::{Bench, Got, Hello, METHOD, Peer, accepted};

const V5: ProtocolVersion = ProtocolVersion::V5;
const CONTINUE: ReasonCode = ReasonCode::ContinueAuthentication;
const AGAIN: ReasonCode = ReasonCode::ReAuthenticate;
const OK: ReasonCode = ReasonCode::Success;

fn hello<'a>(method: &'a str, data: &'a str) -> Hello<'a> {
    Hello {
        authentication: Some((method, data)),
        ..Hello::durable("a")
    }
}

fn begin(bench: &mut Bench, data: &str) -> Peer {
    let peer = bench.open(V5);
    bench.send_bytes(peer, &hello(METHOD, data).bytes());
    peer
}

/// A client that the method let in as `user`.
fn enter(bench: &mut Bench, user: &str) -> Peer {
    let peer = begin(bench, &format!("user:{user}"));
    assert_eq!(bench.take(peer), Some(welcome(false)));
    peer
}

fn welcome(is_present: bool) -> Got {
    Got::Authenticated(is_present, METHOD.to_owned(), "bye".to_owned())
}

fn auth(code: ReasonCode, data: &str) -> Got {
    Got::Auth(code, METHOD.to_owned(), data.to_owned())
}

fn check_violation(bench: &mut Bench, peer: Peer, violation: Violation, last: Got) {
    assert_eq!(bench.closed(peer), Some(Close::Violation(violation)));
    assert_eq!(bench.take_all(peer), [last]);
}

/// [MQTT5-4.12.0-1]
#[test]
fn an_unknown_method_is_refused_and_leaves_nothing() {
    let mut bench = Bench::default();
    let peer = bench.open(V5);
    let mut bytes = hello("x", "user:u").bytes();
    bytes.extend([0x31, 6, 0, 1, b't', 0, b'h', b'i']);
    bench.send_bytes(peer, &bytes);
    let code = ReasonCode::BadAuthenticationMethod;
    assert_eq!(bench.take_all(peer), [Got::ConnAck(false, code)]);
    assert_eq!(bench.closed(peer), Some(Close::Refused(code)));
    assert_eq!(bench.broker.session_totals().sessions, 0);
    assert!(bench.broker.retained("t").is_none());
}

/// [MQTT5-4.12.0-2] [MQTT5-4.12.0-3] [MQTT5-4.12.0-5]: as many rounds as the method wants, and the method in every packet.
#[test]
fn an_exchange_leads_to_connack_with_method_and_last_data() {
    let mut bench = Bench::default();
    let peer = begin(&mut bench, "ask:one");
    assert_eq!(bench.take_all(peer), [auth(CONTINUE, "one")]);
    bench.auth(peer, CONTINUE, Some(METHOD), "ask:two");
    assert_eq!(bench.take_all(peer), [auth(CONTINUE, "two")]);
    assert_eq!(bench.broker.session_totals().sessions, 0);
    bench.auth(peer, CONTINUE, Some(METHOD), "user:u");
    assert_eq!(bench.take_all(peer), [welcome(false)]);
    bench.send(peer, &Packet::PingReq);
    assert_eq!(bench.take_all(peer), [Got::PingResp]);
}

/// [MQTT5-4.12.0-6]
#[test]
fn without_a_method_connack_names_none() {
    let mut bench = Bench::default();
    let peer = bench.open(V5);
    bench.send_bytes(peer, &Hello::clean("a").bytes());
    assert_eq!(bench.take_all(peer), [Got::ConnAck(false, OK)]);
}

/// [MQTT5-4.12.0-7]; and right behind CONNECT, before it could see CONNACK.
#[test]
fn without_a_method_the_client_may_not_send_auth() {
    for mut bytes in [Vec::new(), vec![0xc0, 0]] {
        let mut bench = Bench::default();
        let peer = bench.open(V5);
        bytes.splice(0..0, Hello::clean("a").bytes());
        bytes.extend([0xf0, 2, 0x18, 0]);
        bench.send_bytes(peer, &bytes);
        assert_eq!(bench.take(peer), Some(Got::ConnAck(false, OK)));
        assert_eq!(
            bench.take_all(peer).last(),
            Some(&Got::Disconnect(ReasonCode::ProtocolError))
        );
        assert_eq!(
            bench.closed(peer),
            Some(Close::Violation(Violation::UnexpectedAuth))
        );
    }
}

/// Section 3.1.2.11.10.
#[test]
fn data_without_a_method_is_a_protocol_error() {
    let mut bench = Bench::default();
    let peer = bench.open(V5);
    let bytes = [
        0x10, 18, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 4, 0x16, 0, 1, b'x', 0, 1, b'a',
    ];
    bench.send_bytes(peer, &bytes);
    assert!(matches!(
        bench.closed(peer),
        Some(Close::Violation(Violation::Malformed(_)))
    ));
    let peer = enter(&mut bench, "u");
    bench.send_bytes(peer, &[0xf0, 6, 0x19, 4, 0x16, 0, 1, b'x']);
    assert_eq!(
        bench.take_all(peer),
        [Got::Disconnect(ReasonCode::ProtocolError)]
    );
}

/// [MQTT5-4.12.0-4]
#[test]
fn the_method_may_refuse_at_any_step() {
    for steps in [0, 1, 3] {
        let mut bench = Bench::default();
        let peer = begin(&mut bench, if steps == 0 { "no" } else { "ask:x" });
        for step in 1..=steps {
            assert_eq!(bench.take_all(peer), [auth(CONTINUE, "x")]);
            let data = if step == steps { "no" } else { "ask:x" };
            bench.auth(peer, CONTINUE, Some(METHOD), data);
        }
        let code = ReasonCode::NotAuthorized;
        assert_eq!(bench.take_all(peer), [Got::ConnAck(false, code)]);
        assert_eq!(bench.closed(peer), Some(Close::Refused(code)));
        assert_eq!(bench.broker.session_totals().sessions, 0);
    }
}

/// [MQTT5-3.1.2-30], also when it is in the same segment as CONNECT.
#[test]
fn nothing_but_auth_and_disconnect_may_come_before_connack() {
    let publish = [0x31, 6, 0, 1, b't', 0, b'h', b'i'];
    let connect = hello(METHOD, "user:u").bytes();
    for bytes in [
        &publish[..],
        &[0xc0, 0],
        &connect,
        &[0x82, 7, 0, 1, 0, 0, 1, b'#', 0],
    ] {
        let mut bench = Bench::default();
        let peer = begin(&mut bench, "ask:x");
        assert_eq!(bench.take(peer), Some(auth(CONTINUE, "x")));
        bench.send_bytes(peer, bytes);
        let refusal = Got::ConnAck(false, ReasonCode::ProtocolError);
        check_violation(&mut bench, peer, Violation::BeforeConnAck, refusal);
        assert!(bench.broker.retained("t").is_none());
        assert_eq!(bench.broker.session_totals().sessions, 0);
    }
    let mut bench = Bench::default();
    let peer = bench.open(V5);
    let mut bytes = hello(METHOD, "ask:x").bytes();
    bytes.extend(publish);
    bench.send_bytes(peer, &bytes);
    assert_eq!(
        bench.closed(peer),
        Some(Close::Violation(Violation::BeforeConnAck))
    );
}

#[test]
fn malformed_bytes_before_connack_are_answered_with_one() {
    let mut bench = Bench::default();
    let peer = begin(&mut bench, "ask:x");
    bench.take(peer);
    bench.send_bytes(peer, &[0xf0, 2, 0x01, 0]);
    assert_eq!(
        bench.take_all(peer),
        [Got::ConnAck(false, ReasonCode::MalformedPacket)]
    );
    assert!(bench.closed(peer).is_some());
}

/// A stranger may hold as much as in CONNECT, not more.
#[test]
fn auth_before_connack_is_limited_as_connect_is() {
    let mut bench = Bench::default();
    let peer = begin(&mut bench, "ask:x");
    bench.take(peer);
    bench.send_bytes(peer, &[0xf0, 0xff, 0xff, 0x0f]);
    assert_eq!(
        bench.take_all(peer),
        [Got::ConnAck(false, ReasonCode::PacketTooLarge)]
    );
}

#[test]
fn a_client_may_give_up_before_connack() {
    let mut bench = Bench::default();
    let peer = begin(&mut bench, "ask:x");
    bench.take(peer);
    bench.send_bytes(peer, &[0xe0, 0]);
    assert_eq!(bench.closed(peer), Some(Close::Normal));
    assert_eq!(bench.take_all(peer), []);
    assert_eq!(bench.broker.session_totals().sessions, 0);
}

/// [MQTT5-4.12.0-3] [MQTT5-4.12.0-5]
#[test]
fn a_wrong_auth_before_connack_is_a_protocol_error() {
    for (code, method, violation) in [
        (CONTINUE, Some("x"), Violation::OtherAuthMethod),
        (CONTINUE, None, Violation::OtherAuthMethod),
        (AGAIN, Some(METHOD), Violation::AuthOutOfTurn),
        (OK, Some(METHOD), Violation::AuthOutOfTurn),
    ] {
        let mut bench = Bench::default();
        let peer = begin(&mut bench, "ask:x");
        bench.take(peer);
        bench.auth(peer, code, method, "user:u");
        let refusal = Got::ConnAck(false, ReasonCode::ProtocolError);
        check_violation(&mut bench, peer, violation, refusal);
    }
}

/// What comes while the method thinks is looked at afterwards.
#[test]
fn a_slow_method_holds_the_connection_up_until_connack() {
    let mut bench = Bench::default();
    let peer = begin(&mut bench, "wait");
    bench.send_bytes(peer, &[0xc0, 0]);
    assert_eq!(bench.take_all(peer), []);
    bench.answer(peer, accepted("u"));
    assert_eq!(bench.take_all(peer), [welcome(false), Got::PingResp]);
}

/// [MQTT5-4.12.1-1]
#[test]
fn re_authentication_goes_on_beside_other_traffic() {
    let mut bench = Bench::default();
    let peer = enter(&mut bench, "u");
    bench.subscribe(peer, "t", 1);
    for _ in 0..2 {
        bench.auth(peer, AGAIN, Some(METHOD), "ask:x");
        assert_eq!(bench.take(peer), Some(auth(CONTINUE, "x")));
        bench.publish(peer, "t", "between", 1, 1);
        let got = bench.take_publish(peer);
        assert_eq!(bench.take(peer), Some(Got::Ack("PUBACK", 1, OK)));
        bench.ack(peer, motemq_codec::AckKind::PubAck, got.id, OK);
        bench.auth(peer, CONTINUE, Some(METHOD), "user:u");
        assert_eq!(bench.take(peer), Some(auth(OK, "bye")));
    }
    assert_eq!(bench.closed(peer), None);
}

#[test]
fn traffic_goes_on_while_the_method_thinks() {
    let mut bench = Bench::default();
    let peer = enter(&mut bench, "u");
    bench.auth(peer, AGAIN, Some(METHOD), "wait");
    bench.publish(peer, "t", "between", 1, 1);
    let code = ReasonCode::NoMatchingSubscribers;
    assert_eq!(bench.take_all(peer), [Got::Ack("PUBACK", 1, code)]);
    bench.answer(peer, accepted("u"));
    assert_eq!(bench.take_all(peer), [auth(OK, "bye")]);
}

/// Two steps in one segment: each gets its own answer.
#[test]
fn re_authentication_leaves_what_follows_it_in_the_segment() {
    let mut bench = Bench::default();
    let peer = enter(&mut bench, "u");
    let mut bytes = vec![0xf0, 19, 0x19, 17, 0x15, 0, 6];
    bytes.extend(METHOD.as_bytes());
    bytes.extend([0x16, 0, 5]);
    bytes.extend(b"ask:x");
    bytes.extend([0xc0, 0]);
    bench.send_bytes(peer, &bytes);
    assert_eq!(bench.take_all(peer), [auth(CONTINUE, "x"), Got::PingResp]);
}

/// [MQTT5-4.12.1-2], and the will is published.
#[test]
fn a_failed_re_authentication_ends_the_connection() {
    let mut bench = Bench::default();
    let watcher = bench.connect(&Hello::clean("watcher"));
    bench.subscribe(watcher, "w", 0);
    let peer = bench.open(V5);
    let will = motemq_codec::Will {
        qos: motemq_codec::QoS::AtMostOnce,
        retain: false,
        topic: "w",
        payload: b"gone",
        delay_s: 0,
        message_expiry_s: None,
        forwarded: motemq_codec::Forwarded::default(),
    };
    let hello = Hello {
        will: Some(will),
        ..hello(METHOD, "user:u")
    };
    bench.send_bytes(peer, &hello.bytes());
    assert_eq!(bench.take(peer), Some(welcome(false)));
    bench.auth(peer, AGAIN, Some(METHOD), "no");
    let code = ReasonCode::NotAuthorized;
    assert_eq!(bench.take_all(peer), [Got::Disconnect(code)]);
    assert!(matches!(
        bench.closed(peer),
        Some(Close::ReauthenticationFailed(found, _)) if found == code
    ));
    assert_eq!(bench.payloads(watcher), ["gone"]);
}

#[test]
fn re_authentication_as_another_user_ends_the_connection() {
    let mut bench = Bench::default();
    let peer = enter(&mut bench, "u");
    bench.auth(peer, AGAIN, Some(METHOD), "user:v");
    assert_eq!(
        bench.take_all(peer),
        [Got::Disconnect(ReasonCode::NotAuthorized)]
    );
}

/// A session belongs to the user whom the method named.
#[test]
fn the_session_is_the_users() {
    let mut bench = Bench::default();
    let peer = enter(&mut bench, "u");
    bench.cut(peer);
    let other = begin(&mut bench, "user:v");
    assert_eq!(
        bench.take_all(other),
        [Got::ConnAck(false, ReasonCode::NotAuthorized)]
    );
    let again = begin(&mut bench, "user:u");
    assert_eq!(bench.take_all(again), [welcome(true)]);
}

/// [MQTT5-4.12.1-1] [MQTT5-4.12.0-5] [MQTT5-4.12.0-3]
#[test]
fn a_wrong_auth_after_connack_is_a_protocol_error() {
    let mut cases = vec![
        (vec![], AGAIN, Some("x"), Violation::OtherAuthMethod),
        (vec![], AGAIN, None, Violation::OtherAuthMethod),
        (vec![], CONTINUE, Some(METHOD), Violation::AuthOutOfTurn),
        (vec![], OK, Some(METHOD), Violation::AuthOutOfTurn),
    ];
    for data in ["ask:x", "wait"] {
        let step = vec![data];
        cases.push((step, AGAIN, Some(METHOD), Violation::AuthOutOfTurn));
    }
    cases.push((
        vec!["ask:x"],
        CONTINUE,
        Some("x"),
        Violation::OtherAuthMethod,
    ));
    cases.push((
        vec!["wait"],
        CONTINUE,
        Some(METHOD),
        Violation::AuthOutOfTurn,
    ));
    for (before, code, method, violation) in cases {
        let mut bench = Bench::default();
        let peer = enter(&mut bench, "u");
        for data in before {
            bench.auth(peer, AGAIN, Some(METHOD), data);
        }
        bench.take_all(peer);
        bench.auth(peer, code, method, "user:u");
        let end = Got::Disconnect(ReasonCode::ProtocolError);
        check_violation(&mut bench, peer, violation, end);
    }
}

/// [MQTT5-3.1.2-24] [MQTT5-3.2.2-19]
#[test]
fn a_client_that_has_no_room_for_auth_is_refused() {
    let mut bench = Bench::default();
    let peer = bench.open(V5);
    let small = Hello {
        packet_bytes_max: Some(20),
        ..hello(METHOD, "ask:0123456789")
    };
    bench.send_bytes(peer, &small.bytes());
    let code = ReasonCode::PacketTooLarge;
    assert_eq!(bench.closed(peer), Some(Close::Refused(code)));
    assert_eq!(bench.take_all(peer), [Got::ConnAck(false, code)]);
    assert!(bench.bytes_down(peer) <= 20);
}

/// A late answer changes nothing.
#[test]
fn an_answer_after_the_end_is_ignored() {
    let mut bench = Bench::default();
    let peer = begin(&mut bench, "wait");
    bench.cut(peer);
    bench.answer(peer, accepted("u"));
    assert_eq!(bench.take_all(peer), []);
    assert_eq!(bench.broker.session_totals().sessions, 0);
}

/// [MQTT5-3.15.1-1] reserved bits, [MQTT5-3.15.2-1] reason codes, and MQTT 3.1.1, which has no AUTH.
#[test]
fn an_auth_that_is_none_ends_the_connection() {
    for bytes in [&[0xf1, 2, 0x19, 0][..], &[0xf0, 2, 0x02, 0]] {
        let mut bench = Bench::default();
        let peer = enter(&mut bench, "u");
        bench.send_bytes(peer, bytes);
        assert_eq!(
            bench.take_all(peer),
            [Got::Disconnect(ReasonCode::MalformedPacket)]
        );
    }
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::v3("a", true));
    assert_eq!(bench.closed(peer), None);
    bench.send_bytes(peer, &[0xf0, 0]);
    assert!(matches!(
        bench.closed(peer),
        Some(Close::Violation(Violation::Malformed(_)))
    ));
}
