//! D2 to D5 and D7: clients and others who make the broker hold, match, send or answer more than it should.

use crate::framing::assert_grown_below;
use crate::site::Site;
use motemq_codec::{Packet, ProtocolVersion, ReasonCode};
use motemq_tests::peer::{Got, Hello, options, publish, subscribe};
use motemq_tests::socket::{Client, Stopwatch};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const REFUSED: u8 = ReasonCode::QuotaExceeded as u8;

#[test]
fn d2_readers_that_never_read_hold_no_more_than_their_queues() {
    let site = Site::start_with(
        "queue_bytes_max = \"1MiB\"\nqueue_messages_max = 1000\noutput_bytes_max = \"64KiB\"",
    );
    let before = site.memory();
    let readers: Vec<Client> = (0..40)
        .map(|number| {
            let mut reader = Client::connect(site.port(), &Hello::clean(&format!("slow-{number}")));
            reader.subscribe("d2/#", number % 3);
            reader
        })
        .collect();
    let mut publisher = Client::connect(site.port(), &Hello::clean("publisher"));
    let payload = "x".repeat(10_000);
    // 60 MB to each of 40 readers.
    for round in 0..60 {
        for id in 1..=100 {
            publisher.publish(&format!("d2/{round}"), &payload, u8::from(id == 100), id);
        }
        assert!(matches!(publisher.take(), Some(Got::Ack("PUBACK", 100, _))));
    }
    assert!(site.metric("mqtt_broker_messages_dropped_total") > 0.0);
    // Per reader: a queue of QoS 0, one of QoS 1 and 2, the output, and what the allocator keeps of each.
    assert_grown_below(&site, before, 40 * 3 * MIB);
    drop((readers, publisher));
    site.finish();
}

#[test]
fn d3_a_message_for_many_absent_sessions_is_kept_once() {
    let site = Site::start_with("queue_messages_max = 500\nmailbox_memory_bytes = \"16KiB\"");
    let before = site.memory();
    for number in 0..200 {
        let name = format!("away-{number}");
        let mut away = Client::connect(
            site.port(),
            &Hello {
                expiry_s: Some(u32::MAX),
                ..Hello::durable(&name)
            },
        );
        away.subscribe("d3/#", 1);
    }
    // For ever is not for ever: limits.session_expiry_max_s.
    assert!(site.metric("mqtt_broker_limit_reached_total") >= 200.0);
    let mut publisher = Client::connect(site.port(), &Hello::clean("publisher"));
    let payload = "x".repeat(10_000);
    for _ in 0..20 {
        for id in 1..=50 {
            publisher.publish("d3/all", &payload, 1, id);
        }
        for id in 1..=50 {
            assert!(matches!(publisher.take(), Some(Got::Ack("PUBACK", at, _)) if at == id));
        }
    }
    // 1,000 messages of 10 kB for 200 sessions would be 2 GB.
    assert_grown_below(&site, before, 64 * MIB);
    let queued = site.metric("mqtt_broker_session_queue_messages");
    assert!(queued <= 200.0 * 500.0, "{queued}");
    let mut back = Client::connect(site.port(), &Hello::durable("away-7"));
    assert_eq!(back.take_publish().payload, payload);
    site.finish();
}

#[test]
fn d3_sessions_have_a_limit_and_old_ones_go_on() {
    let site = Site::start_alone("sessions_max = 50");
    for number in 0..50 {
        drop(Client::connect(
            site.port(),
            &Hello::durable(&format!("away-{number}")),
        ));
    }
    let mut one_more = Client::open(site.port(), ProtocolVersion::V5);
    one_more.send_bytes(&Hello::durable("one-more").bytes());
    let refused = Got::ConnAck(false, ReasonCode::QuotaExceeded);
    assert_eq!(one_more.take(), Some(refused));
    assert!(Client::connect_for(site.port(), &Hello::durable("away-7")).1);
    site.finish();
}

#[test]
fn d4_subscriptions_have_a_limit_and_their_match_a_price() {
    let site = Site::start();
    let mut bomber = Client::connect(site.port(), &Hello::clean("bomber"));
    // 1,000 filters a packet, until there are no more.
    for batch in 0..11 {
        let filters: Vec<_> = (0..1000)
            .map(|index| format!("{batch}/+/{index}/#"))
            .collect();
        let filters: Vec<_> = filters.iter().map(|f| (f.as_str(), options(0))).collect();
        bomber.send(&subscribe(1, &filters, None));
        let Some(Got::SubAck(1, codes)) = bomber.take() else {
            panic!("no SUBACK");
        };
        let refused = codes.iter().filter(|code| **code == REFUSED).count();
        assert_eq!(refused, if batch == 10 { 1000 } else { 0 });
    }
    // Every mixture of `+` and `x` over 12 levels matches one topic.
    let mut mixer = Client::connect(site.port(), &Hello::clean("mixer"));
    for chunk in (0..4096_u32).collect::<Vec<_>>().chunks(512) {
        let filters: Vec<String> = chunk.iter().map(|bits| mixture(*bits)).collect();
        let filters: Vec<_> = filters.iter().map(|f| (f.as_str(), options(0))).collect();
        mixer.send(&subscribe(1, &filters, None));
        assert!(
            matches!(mixer.take(), Some(Got::SubAck(1, codes)) if codes.iter().all(|c| *c == 0))
        );
    }
    let mut publisher = Client::connect(site.port(), &Hello::clean("publisher"));
    let topic = ["x"; 12].join("/");
    let before = site.cpu();
    for number in 0..200 {
        // A topic more each time, so that nothing is remembered.
        publisher.publish(&format!("{}{number}", &topic[..topic.len() - 1]), "m", 0, 0);
        publisher.publish(&topic, "m", 0, 0);
    }
    assert_eq!(publisher.ping(), Some(Vec::new()));
    let received = mixer.take_publish();
    assert_eq!(received.payload, "m");
    // 400 look-ups of up to 4,096 filters; a generous bound for a slow machine.
    let used = site.cpu() - before;
    assert!(used < Duration::from_secs(20), "{used:?}");
    site.finish();
}

fn mixture(bits: u32) -> String {
    let level = |place: u32| if bits >> place & 1 == 1 { "+" } else { "x" };
    (0..12).map(level).collect::<Vec<_>>().join("/")
}

#[test]
fn d5_retained_messages_have_a_limit_and_are_sent_at_the_pace_of_who_takes_them() {
    let site = Site::start_with("retained_messages_max = 20000");
    let mut bomber = Client::connect(site.port(), &Hello::clean("bomber"));
    let mut refused = 0;
    for batch in 0..210 {
        for id in 1..=100 {
            let topic = format!("d5/{batch}/{id}");
            let Packet::Publish(mut packet) = publish(&topic, "retained", 1, id) else {
                continue;
            };
            packet.retain = true;
            bomber.send(&Packet::Publish(packet));
        }
        for _ in 1..=100 {
            match bomber.take() {
                Some(Got::Ack("PUBACK", _, code)) => refused += u32::from(code.is_error()),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(refused, 1000);
    let before = site.memory();
    let mut readers: Vec<Client> = (0..50)
        .map(|number| {
            let mut reader =
                Client::connect(site.port(), &Hello::clean(&format!("reader-{number}")));
            reader.send(&subscribe(1, &[("d5/#", options(0))], None));
            reader
        })
        .collect();
    // Nobody reads yet: a million deliveries wait as references.
    assert!(matches!(readers[0].take(), Some(Got::SubAck(..))));
    assert_grown_below(&site, before, 120 * MIB);
    for _ in 0..20_000 {
        assert!(readers[0].take_publish().retain);
    }
    drop(readers);
    site.finish();
}

#[test]
fn d7_the_http_port_answers_whatever_others_do_to_it() {
    let site = Site::start();
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, site.http())).unwrap();
    // A head that never ends.
    let mut endless = connect();
    endless.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    let line = format!("X-Padding: {}\r\n", "x".repeat(1000));
    let is_cut = (0..10_000).any(|_| endless.write_all(line.as_bytes()).is_err());
    assert!(is_cut, "ten megabytes of a head were taken");
    // Bodies that never come, heads that stop, and silence: more than there are places, for longer than each lasts.
    let held: Vec<TcpStream> = (0..100)
        .map(|number| {
            let mut stream = connect();
            let start: &[u8] = match number % 3 {
                0 => b"GET /metrics HT",
                1 => b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx",
                _ => b"",
            };
            stream.write_all(start).unwrap();
            stream
        })
        .collect();
    let watch = Stopwatch::start();
    assert!(site.metric("mqtt_broker_sessions") >= 1.0);
    println!("the metrics came after {:?}", watch.elapsed());
    for mut stream in held {
        // Each has an end.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    // No client makes a series of its own.
    let before = site.series();
    let clients: Vec<Client> = (0..200)
        .map(|number| {
            let mut client =
                Client::connect(site.port(), &Hello::clean(&format!("client-{number}")));
            client.publish(&format!("d7/{number}"), "x", 0, 0);
            client.subscribe(&format!("d7/{number}"), 0);
            client
        })
        .collect();
    assert_eq!(site.series(), before);
    drop(clients);
    site.finish();
}
