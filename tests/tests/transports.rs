//! Every transport below MQTT, with real sockets: WebSocket, Unix sockets, PROXY protocol, address lists, half-dead peers.
//!
//! Attack classes are named by their code in the threat table (D6, and those of A that a transport could get wrong). After each
//! attack a bystander is still served.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::config::{
    AnonymousAccess, Bind, ClientCert, Config, CrlOverdue, Identity, LimitsConfig, ListenerConfig,
    Protocol, TlsConfig,
};
use motemq::server::{Listener, Refusal, Running, start};
use motemq::websocket::Violation;
use motemq_certs::Authority;
use motemq_tests::in_process::{InProcess, expect, no_http, tls_over};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

#[test]
fn a_websocket_client_of_another_make_gets_the_full_round() {
    let server = Server::start(vec![ws()]);
    let mut client = tungstenite(server.tcp("ws"));
    let send = |client: &mut WebSocket<_>, bytes: &[u8]| {
        client.send(Message::binary(bytes.to_vec())).unwrap();
    };
    let receive = |client: &mut WebSocket<TcpStream>| match client.read().unwrap() {
        Message::Binary(bytes) => bytes.to_vec(),
        other => panic!("only binary frames are expected: {other:?}"),
    };
    send(&mut client, &connect("a"));
    assert_eq!(receive(&mut client), CONNACK);
    send(&mut client, SUBSCRIBE);
    assert_eq!(receive(&mut client), SUBACK);
    // Larger than one read, larger than one write, and with a length of eight bytes in the frame's head.
    let big = publish(&vec![7; 200_000]);
    send(&mut client, &big);
    let mut received = Vec::new();
    while received.len() < big.len() {
        received.extend(receive(&mut client));
    }
    assert!(received == big);
    client.send(Message::Ping("are you there".into())).unwrap();
    assert_eq!(
        client.read().unwrap(),
        Message::Pong("are you there".into())
    );
    client.close(None).unwrap();
    assert!(client.read().unwrap().is_close());
    assert!(matches!(
        client.read(),
        Err(tungstenite::Error::ConnectionClosed)
    ));
    server.stop();
}

#[test]
fn answers_of_one_batch_leave_in_one_frame() {
    let server = Server::start(vec![ws()]);
    let mut client = server.websocket();
    client
        .write_all(&masked(0x82, &[&connect("a"), SUBSCRIBE, PINGREQ].concat()))
        .unwrap();
    // Nothing behind CONNECT is handled before CONNACK is out.
    assert_eq!(frame(&mut client), (2, CONNACK.to_vec()));
    assert_eq!(frame(&mut client), (2, [SUBACK, PINGRESP].concat()));
    server.stop();
}

#[test]
fn d6_packets_are_split_and_merged_over_frames_at_will() {
    // Trap 60. [MQTT5-6.0.0-1] [MQTT5-6.0.0-2] [MQTT3-6.0-1] [MQTT3-6.0.0-1] [MQTT3-6.0.0-2]
    let server = Server::start(vec![ws()]);
    let stream = [&connect("a"), SUBSCRIBE, PINGREQ, &publish(b"hello")].concat();
    let expected = [CONNACK, SUBACK, PINGRESP, &publish(b"hello")].concat();
    let check = |frames: &[u8]| {
        let mut client = server.websocket();
        client.write_all(frames).unwrap();
        let mut received = Vec::new();
        while received.len() < expected.len() {
            received.extend(frame(&mut client).1);
        }
        assert_eq!(received, expected);
    };
    check(&masked(0x82, &stream));
    let bytes: Vec<u8> = stream
        .chunks(1)
        .flat_map(|byte| masked(0x82, byte))
        .collect();
    check(&bytes);
    for cut in 0..=stream.len() {
        let (start, rest) = stream.split_at(cut);
        // Two messages; one message in fragments with empty ones and a Ping among them.
        check(&[masked(0x82, start), masked(0x82, rest)].concat());
        let fragments = [
            (0x02, start),
            (0x00, &[]),
            (0x8a, b"pong"),
            (0x80, rest),
            (0x82, &[]),
        ];
        let fragments: Vec<u8> = fragments
            .iter()
            .flat_map(|(first, payload)| masked(*first, payload))
            .collect();
        check(&fragments);
    }
    server.stop();
}

#[test]
fn d6_frames_that_break_a_rule_end_the_connection_with_its_code() {
    let server = Server::start(vec![ws()]);
    let mut bystander = server.bystander();
    let mut huge = vec![0x82, 0xff];
    huge.extend(u64::from(LimitsConfig::default().packet_bytes_max + 1).to_be_bytes());
    huge.extend([0; 4]);
    let unmasked = [&[0x82, 14][..], &connect("a")].concat();
    for (attack, code, violation) in [
        // Trap 60. [MQTT5-6.0.0-1] [MQTT3-6.0-1] [MQTT3-6.0.0-1]: text, even if its bytes would be MQTT.
        (masked(0x81, &connect("a")), 1003, Violation::Text),
        (unmasked, 1002, Violation::Unmasked),
        (huge, 1009, Violation::FrameTooLarge),
        // A second request behind the first is no frame.
        (REQUEST.as_bytes().to_vec(), 1002, Violation::Protocol),
        (masked(0xc2, &connect("a")), 1002, Violation::Protocol),
        (masked(0x80, &connect("a")), 1002, Violation::Protocol),
        (
            [masked(0x02, &[0x10]), masked(0x82, &[0x0c])].concat(),
            1002,
            Violation::Protocol,
        ),
        (masked(0x89, &[0; 126]), 1002, Violation::Protocol),
        (masked(0x83, b""), 1002, Violation::Protocol),
    ] {
        let before = server.listener("ws").violated(violation);
        let mut client = server.websocket();
        client.write_all(&attack).unwrap();
        assert_eq!(
            frame(&mut client),
            (8, u16::to_be_bytes(code).to_vec()),
            "{attack:02x?}"
        );
        assert_eq!(rest(&mut client), b"", "{attack:02x?}");
        assert_eq!(server.listener("ws").violated(violation), before + 1);
        bystander.is_served();
    }
    server.stop();
}

#[test]
fn d6_a_refused_handshake_says_why_and_is_counted() {
    // [MQTT5-6.0.0-3] [MQTT3-6.0.0-3]: the client offers "mqtt".
    let listener = ListenerConfig {
        allow_origins: vec!["https://app.example.org".to_owned()],
        ..ws()
    };
    let server = Server::start(vec![listener]);
    let mut bystander = server.bystander();
    let with = |from: &str, to: &str| REQUEST.replace(from, to);
    let origin = |origin: &str| with("Upgrade: w", &format!("Origin: {origin}\r\nUpgrade: w"));
    let requests = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "426"),
        (
            "POST /mqtt HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nsmuggled!".to_owned(),
            "426",
        ),
        (with("Sec-WebSocket-Protocol: mqtt\r\n", ""), "400"),
        (with("Protocol: mqtt", "Protocol: chat"), "400"),
        (with("/mqtt", "/admin"), "404"),
        (origin("https://evil.example"), "403"),
        (origin("null"), "403"),
        (with("Version: 13", "Version: 7"), "426"),
        (
            format!("GET /mqtt HTTP/1.1\r\nX: {}", "x".repeat(10_000)),
            "431",
        ),
        (
            format!("GET /mqtt HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(100)),
            "431",
        ),
        ("\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0".to_owned(), "400"),
        (
            "\x16\x03\x01\x02\0\x01\0\x01\u{7f}\x03\x03".to_owned(),
            "400",
        ),
    ];
    for (number, (request, status)) in requests.iter().enumerate() {
        let mut client = server.tcp("ws");
        client.write_all(request.as_bytes()).unwrap();
        let answer = String::from_utf8(rest(&mut client)).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}\n{answer}"
        );
        drop(client);
        bystander.is_served();
        let refused = server.listener("ws").refused(Refusal::WebSocket);
        assert!(refused <= number as u64 + 1);
    }
    for allowed in [origin("https://app.example.org"), REQUEST.to_owned()] {
        let mut client = server.tcp("ws");
        client.write_all(allowed.as_bytes()).unwrap();
        // Trap 60. [MQTT5-6.0.0-4] [MQTT3-6.0.0-4]
        assert!(head(&mut client).contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"));
    }
    let counted = || server.listener("ws").refused(Refusal::WebSocket) == requests.len() as u64;
    bystander.until(counted);
    let metrics = motemq::metrics::render(server.running().server());
    let line = format!(
        "mqtt_broker_connections_refused_total{{listener=\"ws\",reason=\"websocket\"}} {}\n",
        requests.len()
    );
    assert!(metrics.contains(&line), "{metrics}");
    assert!(metrics.contains("mqtt_broker_websocket_violations_total{"));
    server.stop();
}

#[test]
fn a_stalled_handshake_ends_in_time_and_counts_as_unauthenticated() {
    let limits = LimitsConfig {
        connect_timeout_s: 3,
        unauthenticated_max: 1,
        ..LimitsConfig::default()
    };
    let server = Server::start_with(vec![ws()], limits);
    let mut bystander = server.bystander();
    bystander.until(|| server.unauthenticated() == 0);
    let mut stalled = server.tcp("ws");
    stalled.write_all(&REQUEST.as_bytes()[..40]).unwrap();
    bystander.until(|| server.unauthenticated() == 1);
    // Its place goes to whoever comes next.
    let mut second = server.tcp("ws");
    second.write_all(&REQUEST.as_bytes()[..40]).unwrap();
    assert_eq!(rest(&mut stalled), b"");
    let refused = |reason| server.listener("ws").refused(reason);
    assert_eq!(refused(Refusal::UnauthenticatedMax), 1);
    assert_eq!(server.unauthenticated(), 1);
    assert_eq!(rest(&mut second), b"");
    bystander.until(|| refused(Refusal::Timeout) == 1 && server.unauthenticated() == 0);
    server.stop();
}

#[test]
fn a_websocket_without_a_connect_ends_in_time() {
    let limits = LimitsConfig {
        connect_timeout_s: 1,
        ..LimitsConfig::default()
    };
    let server = Server::start_with(vec![ws()], limits);
    let mut client = server.websocket();
    client.write_all(&masked(0x82, &connect("a")[..5])).unwrap();
    assert_eq!(frame(&mut client).0, 8);
    assert_eq!(rest(&mut client), b"");
    server.stop();
}

/// What TCP clients may send wrongly is answered the same in frames of one byte.
#[test]
fn a1_a2_a3_a6_attacks_end_the_same_over_websocket_as_over_tcp() {
    let server = Server::start(vec![ws(), plain("mqtt")]);
    let mut bystander = server.bystander();
    let mut attacks: Vec<Vec<u8>> = vec![
        // A1: a CONNECT of 256 MB, announced.
        vec![0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4],
        // A2: lengths of up to six bytes.
        vec![0x10, 0x80, 0x80, 0x80, 0x80, 0x01],
        vec![0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        [&connect("v")[..], &[0xc0, 0x80, 0x80, 0x80, 0x80, 0]].concat(),
        // A6: packets that only a server sends, or that come before CONNECT, or twice.
        vec![0x20, 2, 0, 0],
        vec![0xc0, 0],
        vec![0x00, 0],
        [connect("v"), connect("v")].concat(),
        [&connect("v")[..], &[0x90, 3, 0, 1, 0]].concat(),
        [&connect("v")[..], &[0xd0, 0]].concat(),
    ];
    // A3: packets whose inner lengths point past their end.
    for wrong in [0, 1, 0xff] {
        let mut packet = SUBSCRIBE.to_vec();
        packet[5] = wrong;
        attacks.push([&connect("v")[..], &packet].concat());
    }
    for attack in attacks {
        let mut tcp = server.tcp("mqtt");
        tcp.write_all(&attack).unwrap();
        tcp.shutdown(Shutdown::Write).unwrap();
        let expected = rest(&mut tcp);
        let mut client = server.websocket();
        let frames: Vec<u8> = attack
            .chunks(1)
            .flat_map(|byte| masked(0x82, byte))
            .collect();
        client
            .write_all(&[frames, masked(0x88, &[])].concat())
            .unwrap();
        let mut received = Vec::new();
        loop {
            match frame(&mut client) {
                (2, payload) => received.extend(payload),
                (opcode, _) => break assert_eq!(opcode, 8),
            }
        }
        assert_eq!(received, expected, "{attack:02x?}");
        assert_eq!(rest(&mut client), b"");
        bystander.is_served();
    }
    assert_eq!(server.running().server().panics(), 0);
    server.stop();
}

#[test]
fn both_sides_say_goodbye() {
    let server = Server::start(vec![ws()]);
    // The client by WebSocket.
    let mut client = server.websocket();
    client
        .write_all(&masked(0x88, &4000_u16.to_be_bytes()))
        .unwrap();
    assert_eq!(frame(&mut client), (8, 4000_u16.to_be_bytes().to_vec()));
    assert_eq!(rest(&mut client), b"");
    // The client by MQTT.
    let mut client = server.websocket();
    let bytes = [&connect("a")[..], &[0xe0, 0]].concat();
    client.write_all(&masked(0x82, &bytes)).unwrap();
    assert_eq!(frame(&mut client), (2, CONNACK.to_vec()));
    assert_eq!(frame(&mut client), (8, 1000_u16.to_be_bytes().to_vec()));
    client
        .write_all(&masked(0x88, &1000_u16.to_be_bytes()))
        .unwrap();
    assert_eq!(rest(&mut client), b"");
    // The broker, when it stops: DISCONNECT 0x8B, then Close.
    let mut client = server.websocket();
    client.write_all(&masked(0x82, CONNECT_5)).unwrap();
    assert_eq!(frame(&mut client).1[0], 0x20);
    let reader = std::thread::spawn(move || {
        let last = (frame(&mut client), frame(&mut client));
        client
            .write_all(&masked(0x88, &1000_u16.to_be_bytes()))
            .unwrap();
        last
    });
    server.stop();
    let ((opcode, disconnect), close) = reader.join().unwrap();
    assert_eq!((opcode, disconnect[0], disconnect[2]), (2, 0xe0, 0x8b));
    assert_eq!(close, (8, 1000_u16.to_be_bytes().to_vec()));
}

#[test]
fn websocket_runs_over_tls_and_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let secure = ListenerConfig {
        tls: Some(certificate(dir.path())),
        ..ws()
    };
    let local = ListenerConfig {
        name: "local".to_owned(),
        bind: Bind::Unix(dir.path().join("ws.sock")),
        ..ws()
    };
    let server = Server::start(vec![secure, local]);
    let tls = tls_over(server.tcp("ws"), &dir.path().join("pki/ca.crt"));
    let unix = UnixStream::connect(dir.path().join("ws.sock")).unwrap();
    check_round(websocket_over(tls));
    check_round(websocket_over(unix));
    server.stop();

    fn check_round(mut client: impl Read + Write) {
        client.write_all(&masked(0x82, &connect("a"))).unwrap();
        assert_eq!(frame(&mut client), (2, CONNACK.to_vec()));
        let big = publish(&vec![1; 300_000]);
        client.write_all(&masked(0x82, SUBSCRIBE)).unwrap();
        assert_eq!(frame(&mut client), (2, SUBACK.to_vec()));
        client.write_all(&masked(0x82, &big)).unwrap();
        let mut received = Vec::new();
        while received.len() < big.len() {
            received.extend(frame(&mut client).1);
        }
        assert!(received == big);
    }
}

#[test]
fn a_unix_socket_serves_with_its_permissions_and_is_gone_after_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("motemq.sock");
    // A crash left it behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener = ListenerConfig {
        bind: Bind::Unix(path.clone()),
        unix_mode: 0o600,
        // Whoever can open the socket is on this machine.
        anonymous: AnonymousAccess::Loopback,
        ..plain("local")
    };
    let server = Server::start(vec![listener, plain("mqtt")]);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(&connect("a")).unwrap();
    expect(&mut client, CONNACK);
    client.write_all(PINGREQ).unwrap();
    expect(&mut client, PINGRESP);
    assert_eq!(server.listener("local").connected(), 1);
    server.stop();
    assert!(!path.exists());
}

#[test]
fn a_path_that_is_taken_or_no_socket_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "precious").unwrap();
    let error = |path: &Path| {
        let listener = ListenerConfig {
            bind: Bind::Unix(path.to_owned()),
            ..plain("local")
        };
        let config = Server::config(vec![listener], LimitsConfig::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(start(config)).unwrap_err().to_string()
    };
    let told = error(&path);
    assert!(
        told.contains("no socket") && told.contains("move the file away"),
        "{told}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let live = dir.path().join("live");
    let _listener = std::os::unix::net::UnixListener::bind(&live).unwrap();
    let told = error(&live);
    assert!(told.contains("another process listens"), "{told}");
    assert!(live.exists());
    let told = error(&dir.path().join("x".repeat(200)));
    assert!(told.contains("107 bytes"), "{told}");
}

#[test]
fn addresses_that_a_listener_does_not_admit_are_closed_before_any_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let denied = ListenerConfig {
        deny_cidrs: vec!["127.0.0.0/8".parse().unwrap()],
        allow_cidrs: vec!["127.0.0.1/32".parse().unwrap()],
        tls: Some(certificate(dir.path())),
        ..plain("denied")
    };
    let elsewhere = ListenerConfig {
        allow_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        ..plain("elsewhere")
    };
    // An IPv4 client on a socket of both kinds has an address of IPv6 that means the same.
    let both = ListenerConfig {
        bind: Bind::Ip("[::]:0".parse().unwrap()),
        allow_cidrs: vec!["127.0.0.1/32".parse().unwrap()],
        ..plain("both")
    };
    let server = Server::start(vec![denied, elsewhere, both]);
    for name in ["denied", "elsewhere"] {
        let mut client = server.tcp(name);
        // The broker may have reset the connection before.
        let _ = client.write_all(b"\x16\x03\x01");
        let mut bytes = Vec::new();
        let _ = client.read_to_end(&mut bytes);
        assert_eq!(bytes, b"");
        let listener = server.listener(name);
        assert_eq!(listener.refused(Refusal::Address), 1);
        assert_eq!(listener.tls_failed(), 0);
    }
    let mut client = server.tcp("both");
    client.write_all(&connect("a")).unwrap();
    expect(&mut client, CONNACK);
    server.stop();
}

#[test]
fn behind_a_proxy_the_address_in_the_header_counts() {
    let listener = |name: &str, proxies: &str| ListenerConfig {
        proxy_protocol: true,
        proxy_cidrs: vec![proxies.parse().unwrap()],
        deny_cidrs: vec!["192.0.2.66".parse::<std::net::IpAddr>().unwrap().into()],
        anonymous: AnonymousAccess::Loopback,
        ..plain(name)
    };
    let server = Server::start(vec![
        listener("mqtt", "127.0.0.0/8"),
        listener("others", "10.0.0.0/8"),
    ]);
    let connects = |header: &[u8]| {
        let mut client = server.tcp("mqtt");
        // A refused client may be reset while it writes.
        let _ = client.write_all(&[header, &connect("a")].concat());
        let _ = client.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        answer
    };
    const NOT_AUTHORIZED: &[u8] = &[0x20, 2, 0, 5];
    // Only the client's address can say that it is on this machine.
    assert_eq!(connects(&v2(0x21, [127, 0, 0, 1])), CONNACK);
    assert_eq!(connects(&v2(0x21, [192, 0, 2, 7])), NOT_AUTHORIZED);
    assert_eq!(
        connects(b"PROXY TCP4 127.0.0.1 10.0.0.1 40000 1883\r\n"),
        CONNACK
    );
    assert_eq!(
        connects(b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 1883\r\n"),
        NOT_AUTHORIZED
    );
    // The proxy's own look at us comes from the proxy's address.
    assert_eq!(connects(&v2(0x20, [192, 0, 2, 7])), CONNACK);
    let mqtt = server.listener("mqtt");
    assert_eq!(
        (
            mqtt.refused(Refusal::Connect),
            mqtt.refused(Refusal::Address)
        ),
        (2, 0)
    );
    // Denied, or unknown where a list has to be asked.
    assert_eq!(connects(&v2(0x21, [192, 0, 2, 66])), b"");
    assert_eq!(connects(b"PROXY UNKNOWN\r\n"), b"");
    assert_eq!(mqtt.refused(Refusal::Address), 2);
    // No header, a broken one, and one from somebody who may not send any.
    assert_eq!(connects(b""), b"");
    assert_eq!(connects(b"PROXY TCP4 127.0.0.1\r\n"), b"");
    assert_eq!(mqtt.refused(Refusal::Proxy), 2);
    let mut stranger = server.tcp("others");
    let _ = stranger.write_all(&v2(0x21, [127, 0, 0, 1]));
    let _ = stranger.read_to_end(&mut Vec::new());
    assert_eq!(server.listener("others").refused(Refusal::Proxy), 1);
    server.stop();
}

#[test]
fn tls_and_websocket_start_right_behind_the_proxy_header_wherever_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let behind_proxy = |listener: ListenerConfig| ListenerConfig {
        proxy_protocol: true,
        proxy_cidrs: vec!["127.0.0.1/32".parse().unwrap()],
        ..listener
    };
    let secure = ListenerConfig {
        tls: Some(certificate(dir.path())),
        ..plain("mqtts")
    };
    let server = Server::start(vec![behind_proxy(secure), behind_proxy(ws())]);
    let header = v2(0x21, [192, 0, 2, 7]);
    for cut in [1, 11, 12, 15, 16, 20, header.len()] {
        let opened = |name: &str| {
            let mut client = server.tcp(name);
            client.set_nodelay(true).unwrap();
            let (start, rest) = header.split_at(cut);
            client.write_all(start).unwrap();
            client.write_all(rest).unwrap();
            client
        };
        let mut client = tls_over(opened("mqtts"), &dir.path().join("pki/ca.crt"));
        client.write_all(&connect("a")).unwrap();
        expect(&mut client, CONNACK);
        let mut client = websocket_over(opened("ws"));
        client.write_all(&masked(0x82, &connect("a"))).unwrap();
        assert_eq!(frame(&mut client), (2, CONNACK.to_vec()));
    }
    server.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn a_peer_that_takes_nothing_is_dropped_after_the_user_timeout() {
    let listener = ListenerConfig {
        tcp_user_timeout_s: 1,
        ..plain("mqtt")
    };
    let server = Server::start(vec![listener]);
    let mut watcher = server.tcp("mqtt");
    watcher.write_all(&connect("watcher")).unwrap();
    expect(&mut watcher, CONNACK);
    watcher.write_all(&[0x82, 6, 0, 1, 0, 1, b'w', 0]).unwrap();
    expect(&mut watcher, SUBACK);
    // Half dead: with a will on "w", it subscribes and never reads again.
    let mut half_dead = server.tcp("mqtt");
    half_dead
        .write_all(b"\x10\x18\0\x04MQTT\x04\x06\0\0\0\x04dead\0\x01w\0\x03end")
        .unwrap();
    expect(&mut half_dead, CONNACK);
    half_dead.write_all(SUBSCRIBE).unwrap();
    expect(&mut half_dead, SUBACK);
    let mut publisher = server.tcp("mqtt");
    publisher.write_all(&connect("publisher")).unwrap();
    expect(&mut publisher, CONNACK);
    let message = publish(&vec![0; 100_000]);
    // More than the buffers of both sockets hold.
    for _ in 0..300 {
        publisher.write_all(&message).unwrap();
    }
    expect(&mut watcher, b"\x30\x06\0\x01wend");
    server.stop();
}

struct Server(InProcess);

impl Server {
    fn start(listeners: Vec<ListenerConfig>) -> Self {
        Self::start_with(listeners, LimitsConfig::default())
    }

    fn start_with(listeners: Vec<ListenerConfig>, limits: LimitsConfig) -> Self {
        Self(InProcess::start(Self::config(listeners, limits)))
    }

    fn config(mut listeners: Vec<ListenerConfig>, limits: LimitsConfig) -> Config {
        listeners.push(plain("bystander"));
        Config {
            data_dir: None,
            listeners,
            limits,
            http: no_http(),
            ..Config::default()
        }
    }

    fn running(&self) -> &Running {
        self.0.running()
    }

    fn listener(&self, name: &str) -> Arc<Listener> {
        let listeners = self.running().server().listeners();
        listeners
            .iter()
            .find(|known| known.config().name == name)
            .unwrap()
            .clone()
    }

    fn unauthenticated(&self) -> usize {
        self.running().server().unauthenticated()
    }

    fn tcp(&self, name: &str) -> TcpStream {
        let socket = TcpStream::connect(self.0.address(name)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn websocket(&self) -> TcpStream {
        websocket_over(self.tcp("ws"))
    }

    fn bystander(&self) -> Bystander {
        let mut socket = self.tcp("bystander");
        socket.write_all(&connect("bystander")).unwrap();
        expect(&mut socket, CONNACK);
        Bystander(socket)
    }

    fn stop(self) {
        self.0.stop();
    }
}

/// A client that has nothing to do with an attack.
struct Bystander(TcpStream);

impl Bystander {
    fn is_served(&mut self) {
        self.0
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        self.0.write_all(PINGREQ).unwrap();
        expect(&mut self.0, PINGRESP);
    }

    /// Looks again and again, a round trip apart.
    fn until(&mut self, is_done: impl Fn() -> bool) {
        let mut looks = 0;
        while !is_done() {
            self.is_served();
            looks += 1;
            assert!(looks < 100_000, "it does not come to pass");
        }
    }
}

fn plain(name: &str) -> ListenerConfig {
    ListenerConfig {
        name: name.to_owned(),
        bind: Bind::Ip(([127, 0, 0, 1], 0).into()),
        anonymous: AnonymousAccess::Allowed,
        ..ListenerConfig::default()
    }
}

fn ws() -> ListenerConfig {
    ListenerConfig {
        protocol: Protocol::Ws,
        ..plain("ws")
    }
}

fn certificate(dir: &Path) -> TlsConfig {
    let (authority, _) = Authority::open_or_create(&dir.join("pki"), "test").unwrap();
    let (cert, key) = (dir.join("server.crt"), dir.join("server.key"));
    let issued = authority.issue_server(&["localhost".to_owned()]).unwrap();
    issued.write(&cert, &key).unwrap();
    TlsConfig {
        cert,
        key,
        client_ca: None,
        crl: None,
        crl_overdue: CrlOverdue::Warn,
        allow_list: None,
        client_cert: ClientCert::None,
        identity: Identity::None,
        record_bytes_max: 16384,
    }
}

/// A socket after its WebSocket handshake.
fn websocket_over<S: Read + Write>(mut socket: S) -> S {
    socket.write_all(REQUEST.as_bytes()).unwrap();
    let answer = head(&mut socket);
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    socket
}

fn tungstenite(socket: TcpStream) -> WebSocket<TcpStream> {
    let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
    let (client, response) = tungstenite::client(request, socket).unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
    client
}

/// The head of an HTTP answer.
fn head(socket: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A frame as a client sends it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x81, 0x42, 0x24, 0x18];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        middle @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// Opcode and payload of the next frame of the server, which are whole and not masked.
fn frame(socket: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    socket.read_exact(&mut head).unwrap();
    assert_eq!((head[0] & 0xf0, head[1] & 0x80), (0x80, 0));
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            socket.read_exact(&mut length).unwrap();
            u64::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            socket.read_exact(&mut length).unwrap();
            u64::from_be_bytes(length)
        }
        short => short.into(),
    };
    let mut payload = vec![0; length as usize];
    socket.read_exact(&mut payload).unwrap();
    (head[0] & 0x0f, payload)
}

/// Everything up to the end.
fn rest(socket: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A PROXY protocol header, version 2, for a client at this address.
fn v2(command: u8, [a, b, c, d]: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, 0x11, 0, 15]);
    header.extend([a, b, c, d, 10, 0, 0, 1, 0x9c, 0x40, 7, 0x5b]);
    header.extend([4, 0, 0]);
    header
}

fn connect(client_id: &str) -> Vec<u8> {
    let mut packet = b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0".to_vec();
    packet[1] += client_id.len() as u8;
    packet.push(client_id.len() as u8);
    packet.extend(client_id.as_bytes());
    packet
}

fn publish(payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x30];
    let mut length = payload.len() + 3;
    while length >= 0x80 {
        packet.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend([0, 1, b't']);
    packet.extend(payload);
    packet
}

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: broker.example.org:8083\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
const CONNACK: &[u8] = &[0x20, 2, 0, 0];
/// Version 5, client "v".
const CONNECT_5: &[u8] = b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01v";
/// Topic "t" at QoS 0.
const SUBSCRIBE: &[u8] = &[0x82, 6, 0, 1, 0, 1, b't', 0];
const SUBACK: &[u8] = &[0x90, 3, 0, 1, 0];
const PINGREQ: &[u8] = &[0xc0, 0];
const PINGRESP: &[u8] = &[0xd0, 0];
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
