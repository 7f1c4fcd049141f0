//! What a trace shows of the packets between clients and broker, in virtual time.
#![expect(
    clippy::unwrap_used,
    reason = "a script that goes wrong must stop at once"
)]

use motemq_codec::{
    Forwarded, ForwardedBlock, Packet, ProtocolVersion, Publish, PublishProperties, QoS,
    ReasonCode, Will,
};
use motemq_core::{
    Acl, Timestamp, Trace, TraceFilter, TraceLimits, Traced, TracedDirection, TracedPacket,
    TracedValue, Verdict,
};
use motemq_tests::peer::{Bench, Hello, METHOD, publish};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

const V3: ProtocolVersion = ProtocolVersion::V3_1_1;
const LIMITS: TraceLimits = TraceLimits {
    payload_bytes_max: 64,
    packets_max: 1_000,
    bytes_max: 1 << 20,
    rate_max: u32::MAX,
};

fn filter(clients: Option<&str>, topic: Option<&str>) -> TraceFilter {
    TraceFilter {
        clients: clients.map(str::to_owned),
        topic: topic.map(str::to_owned),
    }
}

fn open(bench: &Bench, clients: Option<&str>, topic: Option<&str>) -> Arc<Trace> {
    let filter = filter(clients, topic);
    bench.broker.open_trace(filter, LIMITS, 4).unwrap()
}

fn take(trace: &Trace) -> Vec<Traced> {
    trace.take(Waker::noop()).into()
}

/// What came since the last call, one line each.
fn lines(trace: &Trace) -> Vec<String> {
    let line = |traced: Traced| match traced {
        Traced::Packet(packet) => line(&packet),
        Traced::Lost(count) => format!("{count} lost"),
    };
    take(trace).into_iter().map(line).collect()
}

fn line(packet: &TracedPacket) -> String {
    let arrow = match packet.direction {
        TracedDirection::In => "<-",
        TracedDirection::Out => "->",
        TracedDirection::None => "--",
    };
    let fields = fields(&packet.fields);
    let space = if fields.is_empty() { "" } else { " " };
    format!(
        "{arrow} {} {}{space}{fields}",
        packet.client_id, packet.name
    )
}

fn fields(fields: &[(&'static str, TracedValue)]) -> String {
    let field = |(name, value): &(&str, TracedValue)| format!("{name}={}", shown(value));
    fields.iter().map(field).collect::<Vec<_>>().join(" ")
}

fn shown(value: &TracedValue) -> String {
    match value {
        TracedValue::Flag(flag) => flag.to_string(),
        TracedValue::Number(number) => number.to_string(),
        TracedValue::Word(text) => (*text).to_owned(),
        TracedValue::Text(text) => text.to_string(),
        TracedValue::List(values) => {
            let values: Vec<_> = values.iter().map(shown).collect();
            format!("[{}]", values.join(", "))
        }
        TracedValue::Object(of) => format!("({})", fields(of)),
    }
}

/// A PUBLISH with the alias 3.
fn by_alias(topic: &str) -> Packet<'_> {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties: PublishProperties {
            topic_alias: NonZeroU16::new(3),
            ..PublishProperties::default()
        },
        payload: b"x",
    })
}

#[test]
fn a_client_is_traced_from_connect_to_its_end_in_the_order_of_the_wire() {
    let mut bench = Bench::default();
    let trace = open(&bench, Some("a"), None);
    let a = bench.connect(&Hello::clean("a"));
    let other = bench.connect(&Hello::clean("other"));
    bench.subscribe(a, "t/#", 2);
    bench.publish(a, "t/1", "one", 1, 5);
    bench.send(other, &Packet::PingReq);
    bench.send(a, &Packet::PingReq);
    bench.cut(a);
    let connack = "-> a CONNACK session_present=false reason_code=0 reason=success properties=(receive_maximum=32 \
        packet_bytes_max=1048576 topic_alias_max=16)";
    let subscribe = "<- a SUBSCRIBE packet_id=1 filters=[(filter=t/# qos=2 no_local=false \
        retain_as_published=false retain_handling=send_always)]";
    let found = lines(&trace);
    assert_eq!(
        found[0], "<- a CONNECT clean_start=true keep_alive_s=0",
        "{found:#?}"
    );
    assert!(
        found[1].starts_with(connack.split(" properties").next().unwrap()),
        "{found:#?}"
    );
    let mut rest = found[2..].to_vec();
    // Which of the two goes first is not promised.
    rest[3..5].sort();
    assert_eq!(
        rest,
        [
            subscribe,
            "-> a SUBACK packet_id=1 reasons=[granted QoS 2]",
            "<- a PUBLISH packet_id=5 qos=1 dup=false retain=false topic=t/1 payload_bytes=3 payload=one",
            "-> a PUBACK packet_id=5 reason_code=0 reason=success",
            "-> a PUBLISH packet_id=1 qos=1 dup=false retain=false topic=t/1 payload_bytes=3 payload=one",
            "<- a PINGREQ",
            "-> a PINGRESP",
            "-- a closed reason=io_error detail=the client closed the connection, or the network failed",
        ],
    );
}

#[test]
fn a_glob_picks_clients_and_a_topic_filter_publishes() {
    let mut bench = Bench::default();
    let by_glob = open(&bench, Some("meter-*"), None);
    let by_topic = open(&bench, None, Some("fleet/+/t"));
    let by_both = open(&bench, Some("meter-1"), Some("fleet/1/#"));
    let peers = ["meter-1", "meter-2", "pump-1"].map(|id| bench.connect(&Hello::v3(id, true)));
    for trace in [&by_glob, &by_topic, &by_both] {
        drop(take(trace));
    }
    for peer in peers {
        bench.publish(peer, "fleet/1/t", "t", 0, 0);
        bench.publish(peer, "fleet/1/state", "s", 0, 0);
        bench.publish(peer, "other", "o", 0, 0);
        bench.send(peer, &Packet::PingReq);
    }
    let brief = |trace: &Trace| -> Vec<String> {
        let topic = |line: &str| line.split(" topic=").nth(1).map(|rest| rest.to_owned());
        let brief = |line: String| {
            let words: Vec<_> = line.split(' ').take(3).collect();
            let topic = topic(&line).unwrap_or_default();
            format!(
                "{} {}",
                words[1..].join(" "),
                topic.split(' ').next().unwrap()
            )
        };
        lines(trace).into_iter().map(brief).collect()
    };
    let all_of = |id: &str| {
        [
            "PUBLISH fleet/1/t",
            "PUBLISH fleet/1/state",
            "PUBLISH other",
            "PINGREQ ",
            "PINGRESP ",
        ]
        .map(|packet| format!("{id} {packet}"))
    };
    assert_eq!(
        brief(&by_glob),
        [all_of("meter-1"), all_of("meter-2")].concat()
    );
    let topics = ["meter-1", "meter-2", "pump-1"].map(|id| format!("{id} PUBLISH fleet/1/t"));
    assert_eq!(brief(&by_topic), topics);
    let [of_t, of_state, _, request, response] = all_of("meter-1");
    assert_eq!(brief(&by_both), [of_t, of_state, request, response]);
}

#[test]
fn topic_aliases_are_resolved_both_ways() {
    let mut bench = Bench::default();
    let hello = Hello {
        topic_alias_max: 4,
        ..Hello::clean("b")
    };
    let receiver = bench.connect(&hello);
    let topic = "a/topic/that/is/long/enough/for/an/alias";
    bench.subscribe(receiver, "a/#", 0);
    let sender = bench.connect(&Hello::clean("a"));
    for topic in [topic, "", ""] {
        bench.send(sender, &by_alias(topic));
    }
    // It was set before anybody looked.
    let trace = open(&bench, None, Some("a/#"));
    bench.send(sender, &by_alias(""));
    let expected = format!(
        "qos=0 dup=false retain=false topic={topic} payload_bytes=1 payload=x properties=(topic_alias="
    );
    assert_eq!(
        lines(&trace),
        [
            format!("<- a PUBLISH {expected}3)"),
            format!("-> b PUBLISH {expected}1)"),
        ],
    );
}

#[test]
fn no_password_token_or_authentication_data_is_shown_but_the_will_is() {
    let mut bench = Bench::default();
    let trace = open(&bench, Some("*"), None);
    let mut block = ForwardedBlock::default();
    block.user_property("token", "s3cret");
    block.user_property("site", "north");
    block.content_type("text/plain");
    let block = block.into_bytes();
    let hello = Hello {
        username: Some("ada"),
        password: Some("s3cret"),
        authentication: Some((METHOD, "user:s3cret")),
        will: Some(Will {
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: "w",
            payload: b"gone",
            delay_s: 9,
            message_expiry_s: None,
            forwarded: Forwarded::from_block(&block),
        }),
        ..Hello::clean("a")
    };
    let peer = bench.open(hello.version);
    bench.send_bytes(peer, &hello.bytes());
    bench.auth(
        peer,
        ReasonCode::ReAuthenticate,
        Some(METHOD),
        "user:s3cret",
    );
    let found = lines(&trace);
    let connect = "<- a CONNECT clean_start=true keep_alive_s=0 user=ada has_password=true will=(topic=w qos=1 \
        retain=true payload_bytes=4 payload=gone properties=(will_delay_s=9 content_type=text/plain \
        user_properties=[[token, (not shown)], [site, north]])) properties=(authentication_method=SCRIPT \
        authentication_data_bytes=11)";
    assert_eq!(found[0], connect, "{found:#?}");
    let auth = "<- a AUTH reason_code=25 reason=re-authenticate properties=(authentication_method=SCRIPT \
        authentication_data_bytes=11)";
    assert_eq!(found[2], auth, "{found:#?}");
    assert!(
        found[3].starts_with("-> a AUTH reason_code=0"),
        "{found:#?}"
    );
    assert!(!found.concat().contains("s3cret"), "{found:#?}");
}

#[test]
fn refusals_are_shown_with_their_reasons() {
    let mut bench = Bench::default();
    let acl = Acl::parse("[everyone]\nallow publish open/#\n").unwrap();
    bench.broker.set_acl(Arc::new(acl));
    let trace = open(&bench, Some("*"), None);
    let peer = bench.connect(&Hello::v3("a", true));
    bench.publish(peer, "closed/t", "x", 0, 0);
    let found = lines(&trace);
    let refused = "-- a refused topic=closed/t reason_code=135 reason=not authorized detail=";
    assert!(
        found.iter().any(|line| line.starts_with(refused)),
        "{found:#?}"
    );
    bench.verdict = Verdict::Refused {
        code: ReasonCode::BadUserNameOrPassword,
        reason: "wrong password",
    };
    let stranger = bench.open(V3);
    bench.send_bytes(stranger, &Hello::v3("b", true).bytes());
    let babbler = bench.open(V3);
    bench.send_bytes(babbler, b"GET / HTTP/1.1\r\n\r\n");
    let found = lines(&trace);
    assert_eq!(
        found[0], "<- b CONNECT clean_start=true keep_alive_s=0",
        "{found:#?}"
    );
    let refused =
        "-> b CONNACK session_present=false reason_code=134 reason=bad user name or password";
    assert_eq!(found[1], refused);
    assert_eq!(
        found[2],
        "-- b closed reason=refused detail=bad user name or password"
    );
    assert!(
        found[3].starts_with("--  closed reason=protocol_error detail="),
        "{found:#?}"
    );
    assert_eq!(found.len(), 4, "{found:#?}");
}

#[test]
fn a_disconnect_of_the_broker_is_shown_with_its_time() {
    let mut bench = Bench::default();
    let trace = open(&bench, Some("a"), None);
    let hello = Hello {
        keep_alive_s: 10,
        ..Hello::clean("a")
    };
    bench.connect(&hello);
    drop(take(&trace));
    let connected_at = bench.now;
    bench.pass(60_000);
    let found = take(&trace);
    let Some(Traced::Packet(disconnect)) = found.first() else {
        panic!("{found:?}");
    };
    assert_eq!(
        line(disconnect),
        "-> a DISCONNECT reason_code=141 reason=keep alive timeout properties=(reason_string=nothing arrived within the keep-alive)"
    );
    assert_eq!(
        disconnect.at,
        Timestamp::from_ms(connected_at.as_ms() + 15_000)
    );
    let Some(Traced::Packet(end)) = found.get(1) else {
        panic!("{found:?}");
    };
    let closed =
        "-- a closed reason=keepalive_timeout detail=nothing arrived within the keep-alive";
    assert_eq!(line(end), closed);
}

#[test]
fn a_client_that_was_idle_when_the_trace_began_is_in_it() {
    let mut bench = Bench::default();
    let hello = Hello {
        keep_alive_s: 10,
        ..Hello::v3("a", true)
    };
    let peer = bench.connect(&hello);
    bench.subscribe(peer, "t", 0);
    let idle = bench.connect(&Hello { id: "b", ..hello });
    let trace = open(&bench, Some("?"), None);
    let sender = bench.connect(&Hello::clean("sender"));
    bench.publish(sender, "t", "x", 0, 0);
    bench.pass(60_000);
    assert!(bench.closed(idle).is_some());
    let found = lines(&trace);
    let delivered = "-> a PUBLISH qos=0 dup=false retain=false topic=t payload_bytes=1 payload=x";
    assert_eq!(found[0], delivered, "{found:#?}");
    for id in ["a", "b"] {
        let end = format!("-- {id} closed reason=keepalive_timeout");
        assert!(
            found.iter().any(|line| line.starts_with(&end)),
            "{found:#?}"
        );
    }
}

#[test]
fn an_assigned_identifier_is_the_one_that_is_asked_for() {
    let mut bench = Bench::default();
    let assigned = open(&bench, Some("auto-*"), None);
    let named = open(&bench, Some("meter-*"), None);
    bench.connect(&Hello::clean(""));
    let found = lines(&assigned);
    assert!(found[0].starts_with("-> auto-"), "{found:#?}");
    assert!(found[0].contains(" CONNACK "), "{found:#?}");
    assert_eq!(lines(&named), [""; 0]);
}

#[test]
fn exactly_once_is_shown_with_all_its_packets() {
    let mut bench = Bench::default();
    let a = bench.connect(&Hello::clean("a"));
    bench.subscribe(a, "t", 2);
    let trace = open(&bench, Some("a"), None);
    bench.publish(a, "t", "x", 2, 7);
    let release = motemq_codec::AckKind::PubRel;
    bench.ack(a, release, 7, ReasonCode::Success);
    bench.ack(a, motemq_codec::AckKind::PubRec, 1, ReasonCode::Success);
    bench.ack(a, motemq_codec::AckKind::PubComp, 1, ReasonCode::Success);
    let name = |line: String| {
        line.split(' ')
            .skip(2)
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut found: Vec<_> = lines(&trace).into_iter().map(name).collect();
    found.sort();
    let mut expected = [
        "PUBLISH packet_id=7",
        "PUBREC packet_id=7",
        "PUBREL packet_id=7",
        "PUBCOMP packet_id=7",
        "PUBLISH packet_id=1",
        "PUBREC packet_id=1",
        "PUBREL packet_id=1",
        "PUBCOMP packet_id=1",
    ];
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_reader_that_is_too_slow_is_told_how_much_it_missed_and_where() {
    let mut bench = Bench::default();
    let limits = TraceLimits {
        packets_max: 3,
        ..LIMITS
    };
    let wanted = filter(None, Some("#"));
    let trace = bench.broker.open_trace(wanted, limits, 4).unwrap();
    let peer = bench.connect(&Hello::clean("a"));
    let say = |bench: &mut Bench, text: &str| bench.publish(peer, "t", text, 0, 0);
    let payloads = |trace: &Trace| -> Vec<String> {
        let last = |line: String| line.split("payload=").last().unwrap().to_owned();
        lines(trace).into_iter().map(last).collect()
    };
    for text in ["1", "2", "3", "4", "5"] {
        say(&mut bench, text);
    }
    assert_eq!(payloads(&trace), ["1", "2", "3", "2 lost"]);
    say(&mut bench, "6");
    assert_eq!(payloads(&trace), ["6"]);
    assert_eq!(trace.lost(), 2);
}

#[test]
fn a_trace_shows_so_many_packets_a_second() {
    let mut bench = Bench::default();
    let limits = TraceLimits {
        rate_max: 2,
        ..LIMITS
    };
    let wanted = filter(None, Some("#"));
    let trace = bench.broker.open_trace(wanted, limits, 4).unwrap();
    let peer = bench.connect(&Hello::clean("a"));
    for _ in 0..5 {
        bench.publish(peer, "t", "x", 0, 0);
    }
    assert_eq!(lines(&trace).len(), 3);
    bench.pass(1_000);
    bench.publish(peer, "t", "x", 0, 0);
    assert_eq!(lines(&trace).len(), 1);
    assert_eq!(trace.lost(), 3);
}

#[test]
fn there_are_so_many_traces_and_a_closed_one_shows_nothing() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    let open = |bench: &Bench| bench.broker.open_trace(filter(None, Some("#")), LIMITS, 2);
    let first = open(&bench).unwrap();
    let second = open(&bench).unwrap();
    assert!(open(&bench).is_err());
    bench.publish(peer, "t", "x", 0, 0);
    bench.broker.close_trace(&first);
    bench.publish(peer, "t", "x", 0, 0);
    assert_eq!(lines(&first), [""; 0]);
    assert_eq!(lines(&second).len(), 2);
    assert!(open(&bench).is_ok());
}

#[test]
fn who_waits_is_woken_once() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let mut bench = Bench::default();
    let trace = open(&bench, None, Some("#"));
    let peer = bench.connect(&Hello::clean("a"));
    let count = Arc::new(Count(AtomicUsize::new(0)));
    assert!(trace.take(&count.clone().into()).is_empty());
    for _ in 0..3 {
        bench.send(peer, &publish("t", "x", 0, 0));
    }
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert_eq!(take(&trace).len(), 3);
}
