use super::*;
use std::net::SocketAddr;
use std::path::PathBuf;
use tempfile::TempDir;

const DELIVERED: &str = include_str!("../../../../deploy/motemq.toml");

const TLS_LISTENER: &str = "[[listeners]]\nname = \"mqtts\"\nbind = \"0.0.0.0:8883\"\n\
    [listeners.tls]\ncert = \"server.crt\"\nkey = \"/keys/server.key\"\n";

#[test]
fn without_sources_the_defaults_hold() {
    let config = load(&Sources::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.data_dir, Some(PathBuf::from("data")));
    assert_eq!(config.listeners[0].bind, ip("0.0.0.0:1883"));
}

#[test]
fn the_delivered_file_equals_the_defaults() {
    let (folder, config) = read(DELIVERED, &[], &[]);
    let data_dir = Some(folder.path().join("data"));
    let expected = Config {
        data_dir,
        ..Config::default()
    };
    assert_eq!(config.unwrap(), expected);
}

#[test]
fn the_delivered_file_shows_every_key_and_no_other() {
    let mut expected = keys();
    let mut shown = keys_shown(DELIVERED);
    expected.sort();
    shown.sort();
    shown.dedup(); // the TLS listener shows some keys again
    assert_eq!(shown, expected);
}

#[test]
fn the_examples_of_the_delivered_file_read_once_uncommented() {
    let start = DELIVERED.find("# [[listeners]]").unwrap();
    let end = DELIVERED.find("[limits]").unwrap();
    let uncommented = |line: &str| format!("{}\n", line.strip_prefix("# ").unwrap_or(line));
    let examples: String = DELIVERED[start..end]
        .split("\n\n")
        .filter_map(|example| example.get(example.find("# [[listeners]]")?..))
        .flat_map(str::lines)
        .map(uncommented)
        .collect();
    let text = format!("{}{examples}{}", &DELIVERED[..start], &DELIVERED[end..]);
    let listeners = read(&text, &[], &[]).1.unwrap().listeners;
    let tls = listeners[1].tls.as_ref().unwrap();
    assert_eq!(tls.client_cert, ClientCert::Required);
    assert_eq!(tls.identity, Identity::Cn);
    assert_eq!(tls.record_bytes_max, 16_384);
    assert_eq!(listeners[2].protocol, Protocol::Ws);
    assert_eq!(
        listeners[2].websocket_paths,
        ListenerConfig::default().websocket_paths
    );
    assert!(matches!(listeners[3].bind, Bind::Unix(_)));
    assert_eq!(listeners[3].unix_mode, ListenerConfig::default().unix_mode);
    assert!(listeners[4].proxy_protocol);
    assert_eq!(listeners.len(), 5);
}

#[test]
fn three_mistakes_give_three_messages_with_line_column_and_suggestion() {
    let text = "data_dir = \"data\"\n\
        [[listeners]]\n\
        name = \"mqtt\"\n\
        bind = \"0.0.0.0:1883\"\n\
        \u{20}\u{20}max_conections = 5\n\
        [limits]\n\
        receive_maximum = 70000\n\
        queue_full = \"drop-oldst\"\n";
    check_messages(
        text,
        &[
            ":5:3: unknown key \"max_conections\" in [[listeners]]; did you mean \"max_connections\"?",
            ":7:19: limits.receive_maximum must be from 1 to 65535; found 70000",
            ":8:14: limits.queue_full must be one of \"drop-oldest\", \"drop-newest\", \"refuse\", \"disconnect\"; \
             found \"drop-oldst\"; did you mean \"drop-oldest\"?",
        ],
    );
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let text = "[limits]\nreceive_maximum = 1\ninflight_messages_max = 1\nsubscriptions_max = 1\n";
    let variables = [
        ("MOTEMQ_LIMITS__RECEIVE_MAXIMUM", "2"),
        ("MOTEMQ_LIMITS__INFLIGHT_MESSAGES_MAX", "2"),
    ];
    let flags = ["limits.receive_maximum=9", "limits.receive_maximum = 3"];
    let limits = read(text, &variables, &flags).1.unwrap().limits;
    assert_eq!(limits.receive_maximum, 3);
    assert_eq!(limits.inflight_messages_max, 2);
    assert_eq!(limits.subscriptions_max, 1);
    assert_eq!(
        limits.topic_alias_max,
        LimitsConfig::default().topic_alias_max
    );
}

#[test]
fn a_value_that_an_override_hides_is_not_judged() {
    let limits = read(
        "[limits]\nreceive_maximum = 0\n",
        &[],
        &["limits.receive_maximum=3"],
    )
    .1
    .unwrap()
    .limits;
    assert_eq!(limits.receive_maximum, 3);
}

#[test]
fn overrides_address_listeners_by_name() {
    let text =
        "[[listeners]]\nname = \"lan-plain\"\nbind = \"0.0.0.0:1883\"\n".to_owned() + TLS_LISTENER;
    let variables = [("MOTEMQ_LISTENERS__LAN_PLAIN__QOS_MAX", "1")];
    let flags = [
        "listeners.mqtts.max_connections=5",
        "listeners.mqtts.tls.record_bytes_max=1KiB",
        "listeners.lan-plain.bind=127.0.0.1:1884",
        "listeners.lan-plain.anonymous=loopback",
    ];
    let listeners = read(&text, &variables, &flags).1.unwrap().listeners;
    assert_eq!(
        (listeners[0].max_connections, listeners[1].max_connections),
        (100_000, 5)
    );
    assert_eq!((listeners[0].qos_max, listeners[1].qos_max), (1, 2));
    assert_eq!(listeners[0].bind, ip("127.0.0.1:1884"));
    assert_eq!(listeners[0].anonymous, AnonymousAccess::Loopback);
    assert_eq!(listeners[1].tls.as_ref().unwrap().record_bytes_max, 1024);
}

#[test]
fn the_default_listener_takes_overrides_and_can_be_given_tls() {
    let flags = [
        "listeners.mqtt.bind=127.0.0.1:0",
        "listeners.mqtt.tls.cert=server.crt",
        "listeners.mqtt.tls.key=server.key",
    ];
    let listeners = read("", &[], &flags).1.unwrap().listeners;
    assert_eq!(listeners[0].bind, ip("127.0.0.1:0"));
    assert_eq!(
        listeners[0].tls.as_ref().unwrap().cert,
        PathBuf::from("server.crt")
    );
}

#[test]
fn unknown_overrides_are_errors_in_the_form_they_were_written() {
    let flags = ["listeners.mqt.max_connections=5", "novalue"];
    let variables = [
        ("MOTEMQ_LIMITS__RECIEVE_MAXIMUM", "5"),
        ("MOTEMQ_DATADIR", "/srv"),
    ];
    let messages = read("", &variables, &flags).1.unwrap_err().to_string();
    let expected = [
        "environment MOTEMQ_DATADIR: unknown key \"datadir\"; did you mean \"MOTEMQ_DATA_DIR\"?",
        "environment MOTEMQ_LIMITS__RECIEVE_MAXIMUM: unknown key \"limits.recieve_maximum\"; \
         did you mean \"MOTEMQ_LIMITS__RECEIVE_MAXIMUM\"?",
        "--set listeners.mqt.max_connections=5: unknown key \"listeners.mqt.max_connections\"; \
         did you mean \"listeners.mqtt.max_connections\"?",
        "--set novalue: needs key=value",
    ];
    assert_eq!(messages, expected.join("\n"));
}

#[test]
fn variables_of_others_are_passed_over() {
    let variables = [
        ("PATH", "/bin"),
        ("MOTEMQ_SERVICE_HOST", "10.0.0.1"),
        ("MOTEMQ_SERVICE_PORT_MQTT", "1883"),
        ("MOTEMQ_PORT", "tcp://10.0.0.1:1883"),
        ("MOTEMQ_PORT_1883_TCP_ADDR", "10.0.0.1"),
        ("MOTEMQ_LOG__LEVEL", "debug"),
    ];
    assert_eq!(read("", &variables, &[]).1.unwrap().log.level, "debug");
}

#[test]
fn every_number_is_held_to_its_range() {
    let mut numbers = 0;
    for asked in asked_for(TLS_LISTENER) {
        let Some(range) = asked.range else { continue };
        let attempt =
            |number: u64| read(TLS_LISTENER, &[], &[&format!("{}={number}", asked.path)]).1;
        let path = &asked.path;
        assert!(attempt(range.min).is_ok(), "{path} takes {}", range.min);
        assert!(attempt(range.max).is_ok(), "{path} takes {}", range.max);
        check_out_of_range(attempt(range.max + 1), path, range);
        match range.or_zero {
            true => assert!(attempt(0).is_ok(), "{path} takes 0"),
            false if range.min > 0 => check_out_of_range(attempt(0), path, range),
            false => {}
        }
        if range.min > 1 {
            check_out_of_range(attempt(range.min - 1), path, range);
        }
        numbers += 1;
    }
    assert!(numbers > 40, "{numbers}");
}

#[test]
fn the_order_of_sources_is_kept_and_its_mistakes_say_what_to_write() {
    let order = |text: &str, set: &[&str]| read(text, &[], set).1.map(|config| config.auth.order);
    let all = AuthSource::ALL;
    assert_eq!(order("", &[]).unwrap(), all);
    let written = "[auth]\norder = [\"jwt\", \"password\"]\npassword_file = \"users\"\n";
    let swapped = [AuthSource::Jwt, AuthSource::Password];
    assert_eq!(order(written, &[]).unwrap(), swapped);
    assert_eq!(order("", &["auth.order=jwt,password"]).unwrap(), swapped);
    check_messages(
        "[auth]\norder = [\"pasword\", \"jwt\", \"jwt\"]\n",
        &[
            ":2:10: auth.order must be one of \"certificate\", \"password\", \"jwt\", \"scram\"; found \"pasword\"; did you mean \"password\"?",
            ":2:28: auth.order must be a list with each source once; found \"jwt twice\"",
        ],
    );
    check_messages(
        "[auth]\norder = []\n",
        &[
            ":2:9: auth.order must be at least one source, or absent for all: [\"certificate\", \"password\", \"jwt\", \"scram\"]; found \"[]\"",
        ],
    );
}

#[test]
fn a_source_that_is_configured_must_be_in_the_order() {
    for (file, source, cure) in [
        ("password_file", "password", "unset auth.password_file"),
        (
            "mosquitto_password_file",
            "password",
            "unset auth.password_file",
        ),
        ("scram_file", "scram", "unset auth.scram_file"),
    ] {
        let other = if source == "scram" {
            "password"
        } else {
            "scram"
        };
        let text = format!("[auth]\norder = [\"{other}\"]\n{file} = \"f\"\n");
        let message = read(&text, &[], &[]).1.unwrap_err().to_string();
        assert!(
            message.contains(&format!("auth.order needs \"{source}\" in it"))
                && message.contains(cure),
            "{message}"
        );
    }
    let text = "[auth]\norder = [\"password\"]\n[auth.jwt]\nkeys_file = \"k\"\n";
    let message = read(text, &[], &[]).1.unwrap_err().to_string();
    assert!(message.contains("needs \"jwt\" in it"), "{message}");
    let text = format!("{TLS_LISTENER}client_ca = \"ca\"\n[auth]\norder = [\"password\"]\n");
    let message = read(&text, &[], &[]).1.unwrap_err().to_string();
    assert!(
        message.contains("needs \"certificate\" in it") && message.contains("identity = \"none\""),
        "{message}"
    );
    let text = text.replace("[auth]", "identity = \"none\"\n[auth]");
    assert!(read(&text, &[], &[]).1.is_ok());
}

#[test]
fn settings_of_tokens_need_their_keys() {
    check_messages(
        "[auth.jwt]\nissuer = \"i\"\nuser_claim = \"\"\n",
        &[
            ":2:10: auth.jwt.issuer needs auth.jwt.keys_file, the keys that tokens are signed with (JWKS)",
            ":3:14: auth.jwt.user_claim needs auth.jwt.keys_file, the keys that tokens are signed with (JWKS)",
            ":3:14: auth.jwt.user_claim must be the name of a claim, such as \"sub\"; found \"\"",
        ],
    );
    let text = "[auth.jwt]\nkeys_file = \"jwks.json\"\naudience = \"a\"\nacl_claim = \"\"\n";
    let (folder, config) = read(text, &[], &[]);
    let jwt = config.unwrap().auth.jwt;
    assert_eq!(jwt.keys_file, Some(folder.path().join("jwks.json")));
    assert_eq!((jwt.audience.as_str(), jwt.acl_claim.as_str()), ("a", ""));
    assert_eq!((jwt.user_claim.as_str(), jwt.leeway_s), ("sub", 30));
}

#[test]
fn the_limits_refuse_zero_where_it_has_no_meaning() {
    let zero_is_fine: Vec<_> = asked_for("")
        .into_iter()
        .filter(|asked| {
            asked.section == "limits" && asked.range.is_some_and(|range| range.contains(0))
        })
        .map(|asked| asked.key)
        .collect();
    assert_eq!(
        zero_is_fine,
        [
            "topic_alias_max",
            "publish_rate_max",
            "publish_bytes_rate_max",
            "identity_publish_rate_max",
            "identity_publish_bytes_rate_max",
            "identity_sessions_max",
            "identity_connections_max",
            "client_retained_messages_max",
            "client_retained_bytes_max",
            "memory_bytes_max",
            "connect_rate_max",
            "address_connect_rate_max",
            "address_connections_max",
            "tls_sessions_max",
            "websocket_frame_bytes_max"
        ]
    );
}

#[test]
fn numbers_that_no_type_holds_are_out_of_range_too() {
    check_messages(
        "[limits]\nreceive_maximum = -1\n",
        &[":2:19: limits.receive_maximum must be from 1 to 65535; found -1"],
    );
    check_messages(
        "[limits]\nqueue_bytes_max = 99999999999999999999999999\n",
        &[
            ":2:19: limits.queue_bytes_max must be from 1KiB to 1TiB bytes; found 99999999999999999999999999",
        ],
    );
    check_messages(
        "[limits]\nqueue_bytes_max = \"99999999TiB\"\n",
        &[":2:19: limits.queue_bytes_max must be from 1KiB to 1TiB bytes; found 99999999TiB"],
    );
}

#[test]
fn sizes_take_units_and_other_numbers_do_not() {
    for (size, bytes) in [
        ("65536", 65_536),
        ("65_536", 65_536),
        ("0x10000", 65_536),
        ("\"65536\"", 65_536),
        ("\"64KiB\"", 65_536),
        ("\"64 kib\"", 65_536),
        ("\"1MiB\"", 1_048_576),
        ("\"2MB\"", 2_000_000),
        ("\"1GiB\"", 1_073_741_824),
        ("\"4096B\"", 4096),
    ] {
        let text = format!("[limits]\nqueue_bytes_max = {size}\n");
        assert_eq!(
            read(&text, &[], &[]).1.unwrap().limits.queue_bytes_max,
            bytes,
            "{size}"
        );
    }
    let expected = "limits.queue_bytes_max must be a size: an integer of bytes, or a string such as \"64KiB\" or \"1MiB\"";
    for (size, found) in [
        ("\"64K\"", "64K"),
        ("\"\"", ""),
        ("1.5", "a float"),
        ("\"KiB\"", "KiB"),
    ] {
        let text = format!("[limits]\nqueue_bytes_max = {size}\n");
        check_messages(&text, &[&format!(":2:19: {expected}; found {found}")]);
    }
    check_messages(
        "[limits]\nconnect_timeout_s = \"2m\"\n",
        &[":2:21: limits.connect_timeout_s must be an integer of seconds; found a string"],
    );
}

#[test]
fn a_key_in_the_wrong_section_is_told_its_own() {
    check_messages(
        "receive_maximum = 5\n[http]\ndata_dir = \"x\"\n",
        &[
            ":1:1: unknown key \"receive_maximum\" at the top of the file; it belongs in [limits]",
            ":3:1: unknown key \"data_dir\" in [http]; it belongs at the top of the file",
        ],
    );
}

#[test]
fn unknown_sections_and_values_of_another_kind_are_errors() {
    check_messages(
        "[limit]\n",
        &[":1:2: unknown key \"limit\" at the top of the file; did you mean \"limits\"?"],
    );
    check_messages(
        "limits = 5\n",
        &[":1:10: limits must be a table; found an integer"],
    );
    check_messages(
        "[log]\nlevel = 3\n",
        &[":2:9: log.level must be a string; found an integer"],
    );
    let array = "listeners must be an array of tables: [[listeners]] before each";
    check_messages(
        "[listeners]\nname = \"a\"\n",
        &[&format!(":1:1: {array}; found a table")],
    );
    check_messages(
        "listeners = [1]\n",
        &[&format!(":1:14: {array}; found an integer")],
    );
    check_messages(
        "listeners = []\n",
        &[":1:13: at least one [[listeners]] is needed"],
    );
}

#[test]
fn the_start_of_a_key_suggests_it() {
    check_messages(
        "[[listeners]]\nname = \"a\"\nbind = \"0.0.0.0:1\"\nqos = 1\n",
        &[":4:1: unknown key \"qos\" in [[listeners]]; did you mean \"qos_max\"?"],
    );
}

#[test]
fn words_are_told_from_booleans() {
    let listener = "[[listeners]]\nname = \"a\"\nbind = \"0.0.0.0:1\"\nanonymous = ";
    let anonymous = |value: &str| {
        read(&format!("{listener}{value}\n"), &[], &[])
            .1
            .map(|config| config.listeners[0].anonymous)
    };
    assert_eq!(anonymous("true"), Ok(AnonymousAccess::Allowed));
    assert_eq!(anonymous("false"), Ok(AnonymousAccess::Refused));
    assert_eq!(anonymous("\"loopback\""), Ok(AnonymousAccess::Loopback));
    let message = "must be one of false, true, \"loopback\"; found";
    check_messages(
        &format!("{listener}\"true\"\n"),
        &[&format!(
            ":4:13: listeners.a.anonymous {message} \"true\"; did you mean true without quotes?"
        )],
    );
    check_messages(
        &format!("{listener}1\n"),
        &[&format!(
            ":4:13: listeners.a.anonymous {message} an integer"
        )],
    );
}

#[test]
fn syntax_errors_are_reported_together_with_what_is_sound() {
    let (_folder, config) = read(
        "[limits]\nreceive_maximum = 5 5\ntopic_alias = 3\n[http\n",
        &[],
        &[],
    );
    let ConfigErrors(errors) = config.unwrap_err();
    let syntax_lines: Vec<_> = errors
        .iter()
        .filter(|error| matches!(error.problem, Problem::Syntax(_)))
        .map(line)
        .collect();
    assert_eq!(syntax_lines, [2, 4]);
    let others: Vec<_> = errors
        .iter()
        .filter(|error| !matches!(error.problem, Problem::Syntax(_)))
        .map(line)
        .collect();
    assert_eq!(others, [3]);
}

#[test]
fn a_key_given_twice_is_an_error() {
    let (_folder, config) = read(
        "[limits]\nreceive_maximum = 5\nreceive_maximum = 6\n",
        &[],
        &[],
    );
    let ConfigErrors(errors) = config.unwrap_err();
    assert_eq!(errors.iter().map(line).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_listener_needs_a_name_and_an_address() {
    check_messages(
        "[[listeners]]\n\n[[listeners]]\nname = \"\"\nbind = \"\"\n",
        &[
            ":1:1: [[listeners]] needs the key \"name\"",
            ":1:1: [[listeners]] needs the key \"bind\"",
            ":4:8: [[listeners]] needs the key \"name\"",
            ":5:8: [[listeners]] needs the key \"bind\"",
        ],
    );
}

#[test]
fn listeners_share_neither_name_nor_address() {
    check_messages(
        "[[listeners]]\nname = \"a-b\"\nbind = \"0.0.0.0:1883\"\n\
         [[listeners]]\nname = \"a_b\"\nbind = \"0.0.0.0:1884\"\n\
         [[listeners]]\nname = \"c\"\nbind = \"0.0.0.0:1883\"\n\
         [http]\nbind = \"0.0.0.0:1884\"\n",
        &[
            ":5:8: another one already has the name \"a_b\"",
            ":9:8: listeners.c.bind: 0.0.0.0:1883 is already taken by listeners.a-b.bind",
            ":11:8: http.bind: 0.0.0.0:1884 is already taken by listeners.a_b.bind",
        ],
    );
    let any_port = "[[listeners]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\n[[listeners]]\nname = \"b\"\nbind = \"127.0.0.1:0\"\n";
    assert!(read(any_port, &[], &[]).1.is_ok());
}

#[test]
fn listeners_are_named_for_labels_and_flags() {
    for name in [
        "UPPER",
        "a.b",
        "a b",
        "a__b",
        "ü",
        "a23456789012345678901234567890123",
    ] {
        let text = format!("[[listeners]]\nname = \"{name}\"\nbind = \"0.0.0.0:1\"\n");
        let ConfigErrors(errors) = read(&text, &[], &[]).1.unwrap_err();
        assert!(
            matches!(errors[0].problem, Problem::Malformed { .. }),
            "{name}"
        );
        assert_eq!(errors.len(), 1);
    }
}

#[test]
fn a_listener_speaks_websocket_or_listens_on_a_unix_socket() {
    let text = "[[listeners]]\nname = \"web\"\nbind = \"0.0.0.0:8083\"\nprotocol = \"ws\"\n\
        allow_origins = [\"https://App.example.org\", \"http://10.0.0.5:8080\"]\nwebsocket_paths = [\"/*\"]\n\
        [[listeners]]\nname = \"local\"\nbind = \"unix:run/motemq.sock\"\nunix_mode = \"0600\"\n";
    let (folder, config) = read(text, &[], &["listeners.web.websocket_paths=/a,/b"]);
    let listeners = config.unwrap().listeners;
    assert_eq!(listeners[0].protocol, Protocol::Ws);
    assert_eq!(
        listeners[0].allow_origins,
        ["https://app.example.org", "http://10.0.0.5:8080"]
    );
    assert_eq!(listeners[0].websocket_paths, ["/a", "/b"]);
    let path = folder.path().join("run/motemq.sock");
    assert_eq!(listeners[1].bind, Bind::Unix(path));
    assert_eq!(listeners[1].unix_mode, 0o600);
}

#[test]
fn mistakes_in_addresses_and_protocols_say_what_is_possible() {
    check_messages(
        "[[listeners]]\nname = \"a\"\nbind = \"localhost:1883\"\nprotocol = \"mqt\"\n",
        &[
            ":3:8: listeners.a.bind must be an IP address and port such as \"0.0.0.0:1883\" or \"[::]:1883\", \
             or a Unix socket such as \"unix:/run/motemq.sock\"; found \"localhost:1883\"",
            ":4:12: listeners.a.protocol must be one of \"mqtt\", \"ws\"; found \"mqt\"; did you mean \"mqtt\"?",
        ],
    );
    check_messages(
        "[[listeners]]\nname = \"a\"\nbind = \"unix:\"\n\
         [[listeners]]\nname = \"b\"\nbind = \"unix:/b\"\nunix_mode = \"rw\"\n\
         [[listeners]]\nname = \"c\"\nbind = \"unix:/b\"\nunix_mode = \"1777\"\n",
        &[
            ":3:8: listeners.a.bind must be unix: and the path of the socket, such as \"unix:/run/motemq.sock\"; \
             found \"unix:\"",
            ":7:13: listeners.b.unix_mode must be permissions in octal, such as \"0660\"; found \"rw\"",
            ":10:8: listeners.c.bind: unix:/b is already taken by listeners.b.bind",
            ":11:13: listeners.c.unix_mode must be permissions in octal, such as \"0660\"; found \"1777\"",
        ],
    );
}

#[test]
fn networks_are_read_and_a_wrong_one_is_named_by_its_place() {
    let text = "[[listeners]]\nname = \"a\"\nbind = \"0.0.0.0:1883\"\n\
        allow_cidrs = [\"10.0.0.0/8\", \"2001:db8::/32\"]\ndeny_cidrs = [\"10.6.6.6\"]\n";
    let variables = [("MOTEMQ_LISTENERS__A__DENY_CIDRS", "10.6.6.6, 10.7.0.0/16")];
    for (variables, denied) in [
        (&[][..], &["10.6.6.6/32"][..]),
        (&variables[..], &["10.6.6.6/32", "10.7.0.0/16"][..]),
    ] {
        let listener = read(text, variables, &[]).1.unwrap().listeners.remove(0);
        let shown = |networks: &[ipnet::IpNet]| -> Vec<String> {
            networks.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            shown(&listener.allow_cidrs),
            ["10.0.0.0/8", "2001:db8::/32"]
        );
        assert_eq!(shown(&listener.deny_cidrs), denied);
    }
    let flag = "listeners.a.deny_cidrs=[\"10.6.0.0/16\", \"::1\"]";
    let listener = read(text, &[], &[flag]).1.unwrap().listeners.remove(0);
    assert_eq!(listener.deny_cidrs.len(), 2);
    check_messages(
        "[[listeners]]\nname = \"a\"\nbind = \"0.0.0.0:1883\"\n\
         allow_cidrs = [\"10.0.0.0/8\", \"10.0.0.0/33\"]\ndeny_cidrs = [\n  \"10.1.2.3/8\",\n  7,\n]\nproxy_cidrs = \"::1\"\n",
        &[
            ":4:30: listeners.a.allow_cidrs must be networks such as \"10.0.0.0/8\" or \"2001:db8::/32\", or addresses; \
             found \"10.0.0.0/33\"",
            ":6:3: listeners.a.deny_cidrs must be networks whose bits behind the prefix are 0: \"10.0.0.0/8\", \
             or \"10.1.2.3\" alone for one address; found \"10.1.2.3/8\"",
            ":7:3: listeners.a.deny_cidrs must be an array of strings; found an integer in it",
            ":9:15: listeners.a.proxy_cidrs must be an array of strings; found a string",
            ":9:15: listeners.a.proxy_cidrs needs proxy_protocol = true and an IP address and port in bind",
        ],
    );
}

#[test]
fn origins_and_paths_have_their_form() {
    check_messages(
        "[[listeners]]\nname = \"a\"\nbind = \"0.0.0.0:8083\"\nprotocol = \"ws\"\n\
         allow_origins = [\"app.example.org\", \"https://app.example.org/\"]\nwebsocket_paths = [\"mqtt\"]\n\
         [[listeners]]\nname = \"b\"\nbind = \"0.0.0.0:8084\"\nprotocol = \"ws\"\nwebsocket_paths = []\n",
        &[
            ":5:18: listeners.a.allow_origins must be origins such as \"https://app.example.org\" or \
             \"http://10.0.0.5:8080\", without a path, or \"*\" for any; found \"app.example.org\"",
            ":5:37: listeners.a.allow_origins must be origins such as \"https://app.example.org\" or \
             \"http://10.0.0.5:8080\", without a path, or \"*\" for any; found \"https://app.example.org/\"",
            ":6:20: listeners.a.websocket_paths must be paths that start with \"/\", such as \"/mqtt\", or \
             \"/*\" for every path; found \"mqtt\"",
            ":11:19: listeners.b.websocket_paths must be paths that start with \"/\", such as \"/mqtt\", or \
             \"/*\" for every path; found \"[]\"",
        ],
    );
}

#[test]
fn settings_of_another_kind_of_listener_are_errors() {
    check_messages(
        "[[listeners]]\nname = \"a\"\nbind = \"0.0.0.0:1883\"\n\
         unix_mode = \"0660\"\nallow_origins = [\"*\"]\nwebsocket_paths = [\"/\"]\nproxy_cidrs = [\"::1\"]\n\
         [[listeners]]\nname = \"b\"\nbind = \"unix:/b\"\n\
         tcp_user_timeout_s = 5\nallow_cidrs = [\"::1\"]\n\
         [[listeners]]\nname = \"c\"\nbind = \"0.0.0.0:1884\"\nproxy_protocol = true\n\
         [[listeners]]\nname = \"d\"\nbind = \"unix:/d\"\nproxy_protocol = true\ndeny_cidrs = [\"::1\"]\n",
        &[
            ":4:13: listeners.a.unix_mode needs bind = \"unix:PATH\"",
            ":5:17: listeners.a.allow_origins needs protocol = \"ws\"",
            ":6:19: listeners.a.websocket_paths needs protocol = \"ws\"",
            ":7:15: listeners.a.proxy_cidrs needs proxy_protocol = true and an IP address and port in bind",
            ":11:22: listeners.b.tcp_user_timeout_s needs an IP address and port in bind",
            ":12:15: listeners.b.allow_cidrs needs an IP address and port in bind, or proxy_protocol = true",
            ":16:18: listeners.c.proxy_protocol needs proxy_cidrs, the networks of the proxies: \
             whoever may send a header can claim any address",
        ],
    );
}

#[test]
fn a_client_authority_makes_certificates_required_and_the_common_name_the_user() {
    let tls = |more: &str| {
        read(&format!("{TLS_LISTENER}{more}"), &[], &[])
            .1
            .unwrap()
            .listeners
            .remove(0)
            .tls
            .unwrap()
    };
    let plain = tls("");
    assert_eq!(
        (plain.client_ca, plain.client_cert, plain.identity),
        (None, ClientCert::None, Identity::None)
    );
    let mutual = tls("client_ca = \"ca.crt\"\n");
    assert_eq!(
        (mutual.client_cert, mutual.identity),
        (ClientCert::Required, Identity::Cn)
    );
    let asked = tls("client_ca = \"ca.crt\"\nclient_cert = \"optional\"\nidentity = \"san-uri\"\n");
    assert_eq!(
        (asked.client_cert, asked.identity),
        (ClientCert::Optional, Identity::SanUri)
    );
    let ignored = tls("client_ca = \"ca.crt\"\nclient_cert = \"none\"\n");
    assert_eq!(
        (ignored.client_cert, ignored.identity),
        (ClientCert::None, Identity::None)
    );
}

#[test]
fn client_certificates_need_an_authority() {
    check_messages(
        &format!("{TLS_LISTENER}client_cert = \"required\"\n"),
        &[
            ":7:15: listeners.mqtts.tls.client_cert needs client_ca, the authorities that sign client certificates",
        ],
    );
    check_messages(
        &format!("{TLS_LISTENER}identity = \"cn\"\n"),
        &[
            ":7:12: listeners.mqtts.tls.identity needs client_ca, and client_cert = \"required\" or \"optional\"",
        ],
    );
    check_messages(
        "[[listeners]]\nname = \"a\"\nbind = \"0.0.0.0:1\"\n[listeners.tls]\ncert = \"a\"\n",
        &[":4:1: [listeners.tls] needs the key \"key\""],
    );
}

#[test]
fn paths_start_from_the_folder_of_the_file_or_of_the_command() {
    let text =
        "data_dir = \"store\"\n[auth]\npassword_file = \"users\"\nscram_file = \"scram-users\"\n"
            .to_owned()
            + TLS_LISTENER;
    let (folder, config) = read(&text, &[], &["auth.password_file=here/users"]);
    let config = config.unwrap();
    assert_eq!(config.data_dir, Some(folder.path().join("store")));
    assert_eq!(config.auth.password_file, Some(PathBuf::from("here/users")));
    assert_eq!(
        config.auth.scram_file,
        Some(folder.path().join("scram-users"))
    );
    let tls = config.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls.cert, folder.path().join("server.crt"));
    assert_eq!(tls.key, PathBuf::from("/keys/server.key"));
}

#[test]
fn an_empty_text_turns_off() {
    let text = "data_dir = \"\"\n[http]\nbind = \"\"\n[auth]\npassword_file = \"\"\n";
    let config = read(text, &[], &[]).1.unwrap();
    assert_eq!(config.data_dir, None);
    assert_eq!(config.http.bind, None);
    assert_eq!(config.auth.password_file, None);
    let config = read(
        "",
        &[("MOTEMQ_DATA_DIR", "")],
        &["http.bind=\"\"", "http.metrics_bind=[::1]:9000"],
    )
    .1
    .unwrap();
    assert_eq!(config.data_dir, None);
    assert_eq!(config.http.bind, None);
    assert_eq!(
        config.http.metrics_bind,
        Some(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 9000)))
    );
}

#[test]
fn a_log_level_is_a_level_or_names_its_targets() {
    for level in [
        "info",
        "WARN",
        "off",
        "info,motemq=debug",
        "warn,motemq::session[client]=trace",
    ] {
        assert!(
            read("", &[], &[&format!("log.level={level}")]).1.is_ok(),
            "{level}"
        );
    }
    let found =
        "must be one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\"; found";
    check_messages(
        "[log]\nlevel = \"inof\"\n",
        &[&format!(
            ":2:9: log.level {found} \"inof\"; did you mean \"info\"?"
        )],
    );
    let form = "must be a level such as \"info\", or levels by target such as \"info,motemq=debug\"; found";
    check_messages(
        "[log]\nlevel = \"motemq=loud\"\n",
        &[&format!(":2:9: log.level {form} \"motemq=loud\"")],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("absent.toml");
    let sources = Sources {
        file: Some(&path),
        ..Sources::default()
    };
    let ConfigErrors(errors) = load(&sources).unwrap_err();
    assert_eq!(errors[0].place, Place::File(path.clone()));
    assert!(matches!(errors[0].problem, Problem::Unreadable(_)));
    std::fs::write(&path, b"data_dir = \"\xff\"").unwrap();
    assert!(load(&sources).is_err());
}

fn ip(address: &str) -> Bind {
    Bind::Ip(address.parse().unwrap())
}

/// Loads `text` from a file in a new folder, with variables and flags.
fn read(
    text: &str,
    variables: &[(&str, &str)],
    flags: &[&str],
) -> (TempDir, Result<Config, ConfigErrors>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("motemq.toml");
    std::fs::write(&path, text).unwrap();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let sources = Sources {
        file: Some(&path),
        environment: variables.iter().map(owned).collect(),
        set: flags.iter().map(|flag| (*flag).to_owned()).collect(),
    };
    let config = load(&sources);
    (folder, config)
}

/// The messages for `text`, each without the path of the file at its start.
fn check_messages(text: &str, expected: &[&str]) {
    let (folder, config) = read(text, &[], &[]);
    let path = folder.path().join("motemq.toml").display().to_string();
    let messages = config.unwrap_err().to_string();
    let messages: Vec<_> = messages
        .lines()
        .map(|line| line.strip_prefix(&path).unwrap_or(line))
        .collect();
    assert_eq!(messages, expected);
}

fn check_out_of_range(config: Result<Config, ConfigErrors>, key: &str, range: Range) {
    let ConfigErrors(errors) = config.unwrap_err();
    let [error] = errors.as_slice() else {
        panic!("one error expected: {errors:?}")
    };
    let message = error.to_string();
    assert!(
        matches!(&error.problem, Problem::OutOfRange { range: named, .. } if *named == range),
        "{message}"
    );
    assert!(
        message.contains(key) && message.contains(&range.to_string()),
        "{message}"
    );
}

fn line(error: &ConfigError) -> usize {
    match error.place {
        Place::Line { line, .. } => line,
        _ => 0,
    }
}

/// The keys in a document, those commented out included.
fn keys_shown(text: &str) -> Vec<String> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(header) = line
            .strip_prefix('[')
            .and_then(|line| line.split(']').next())
        {
            header.trim_start_matches('[').clone_into(&mut section);
        } else if let Some((key, _)) = line.split_once(" = ")
            && key
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            keys.push(section::join(&section, key));
        }
    }
    keys
}

#[test]
fn every_key_is_shown_with_its_value_and_origin() {
    let text = "[[listeners]]\nname = \"lan-plain\"\nbind = \"127.0.0.1:1884\"\n\
        [limits]\nqueue_bytes_max = \"1MiB\"\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("motemq.toml");
    std::fs::write(&path, text).unwrap();
    let sources = Sources {
        file: Some(&path),
        environment: vec![("MOTEMQ_LOG__LEVEL".to_owned(), "debug".to_owned())],
        set: vec!["listeners.lan-plain.qos_max=1".to_owned()],
    };
    let (_, settings) = load_with_settings(&sources).unwrap();
    let shown = |key: &str| {
        let setting = settings.iter().find(|setting| setting.key == key);
        let setting = setting.unwrap_or_else(|| panic!("{key} is not shown"));
        format!("{} from {}", setting.value, setting.origin())
    };
    let file = path.display();
    assert_eq!(
        shown("listeners.lan-plain.bind"),
        format!("\"127.0.0.1:1884\" from {file}:3")
    );
    assert_eq!(
        shown("listeners.lan-plain.qos_max"),
        "1 from --set listeners.lan-plain.qos_max=1"
    );
    assert_eq!(
        shown("limits.queue_bytes_max"),
        format!("1048576 from {file}:5")
    );
    assert_eq!(shown("limits.receive_maximum"), "100 from default");
    assert_eq!(
        shown("log.level"),
        "\"debug\" from environment MOTEMQ_LOG__LEVEL"
    );
    assert_eq!(shown("http.metrics_bind"), "\"\" from default");
    assert_eq!(shown("listeners.lan-plain.anonymous"), "false from default");
}

#[test]
fn what_is_shown_without_sources_is_the_delivered_file() {
    let (_, settings) = load_with_settings(&Sources::default()).unwrap();
    let delivered = toml::from_str::<toml::Value>(DELIVERED).unwrap();
    for setting in settings {
        let path = setting.key.replace("listeners.mqtt.", "listeners.0.");
        let value = path.split('.').try_fold(&delivered, |value, key| {
            let element = key.parse::<usize>().ok();
            match element.zip(value.as_array()) {
                Some((element, array)) => array.get(element),
                None => value.get(key),
            }
        });
        // Some keys are in its commented examples only.
        let Some(value) = value else { continue };
        assert_eq!(setting.value, value.to_string(), "{}", setting.key);
        assert_eq!(setting.place, Place::Default, "{}", setting.key);
    }
}

#[test]
fn a_profile_has_what_it_says_and_the_common_limits_for_the_rest() {
    let text = "[[listeners]]\nname = \"lan\"\nbind = \"0.0.0.0:1883\"\n\
        [limits]\npayload_bytes_max = 5000\nqueue_messages_max = 7\n\
        [[profiles]]\nname = \"meters\"\nlisteners = [\"lan\"]\nusers = [\"meter-*\"]\nqueue_messages_max = 3\n";
    let set = "profiles.meters.publish_rate_max=9";
    let profiles = read(text, &[], &[set]).1.unwrap().profiles;
    let [profile] = profiles.as_slice() else {
        panic!("{profiles:?}");
    };
    assert_eq!(profile.users, ["meter-*"]);
    assert!(profile.clients.is_empty());
    let limits = &profile.limits;
    assert_eq!(
        (
            limits.payload_bytes_max,
            limits.queue_messages_max,
            limits.publish_rate_max
        ),
        (5000, 3, 9)
    );
}

#[test]
fn a_profile_for_a_listener_that_is_not_there_is_a_mistake() {
    check_messages(
        "[[listeners]]\nname = \"lan\"\nbind = \"0.0.0.0:1883\"\n\
         [[profiles]]\nname = \"a\"\nlisteners = [\"lam\"]\nretained_bytes_max = 4096\n\
         [[profiles]]\nname = \"a\"\n",
        &[
            ":6:14: profiles.a.listeners must be one of \"lan\"; found \"lam\"; did you mean \"lan\"?",
            ":7:1: unknown key \"retained_bytes_max\" in [[profiles]]; it belongs in [limits]",
            ":9:8: another one already has the name \"a\"",
        ],
    );
}

#[test]
fn enrolment_needs_a_signer_and_privacy() {
    let listener =
        |bind: &str| format!("[[listeners]]\nname = \"a\"\nbind = \"{bind}\"\nenrolment = true\n");
    let signer = "[enrolment]\nsigner = \"enrolment\"\n";
    let said = |text: &str| match read(text, &[], &[]).1 {
        Ok(_) => String::new(),
        Err(errors) => errors.to_string(),
    };
    assert_eq!(said(&format!("{signer}{}", listener("127.0.0.1:1"))), "");
    assert!(said(&listener("127.0.0.1:1")).contains("signer in [enrolment]"));
    let open = said(&format!("{signer}{}", listener("0.0.0.0:1")));
    assert!(open.contains("tokens would cross the network"), "{open}");
}
