use super::options::OPTIONS;
use super::*;
use crate::config::{AnonymousAccess, Bind, Config, Protocol, Sources, load};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;

const PAGE: &str = include_str!("../../../../deploy/FROM-MOSQUITTO.md");
/// Of "secret", as mosquitto_passwd 2.0.11 writes it.
const USER: &str = "alice:$7$101$zyCcUFfglRT50qz4$GtKJ4lt1fnqw5IifX+P8pwdRcCGuDYr16qKKXHzgDtwXvX41K24tpd8DLzj3FjteokwatqKyVrCAC7uFVaxYCw==\n";

#[test]
fn the_page_has_the_table_of_options_and_nothing_else() {
    let shown: Vec<&str> = PAGE
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter(|line| line.matches(" | ").count() == 2)
        .filter(|line| !line.contains("$SYS"))
        .collect();
    assert_eq!(shown, table());
}

#[test]
fn every_option_has_a_fate_and_it_is_that_of_the_table() {
    let values = |name: &str| match name {
        "listener" => "1884",
        "port" => "1885",
        "bind_address" => "127.0.0.1",
        "protocol" => "mqtt",
        "socket_domain" => "ipv4",
        "max_qos" => "1",
        "log_type" => "error",
        "log_dest" => "none",
        "include_dir" => "conf.d",
        "persistent_client_expiration" => "1d",
        "password_file" => "pw",
        "acl_file" => "acl",
        "certfile" | "keyfile" | "cafile" | "crlfile" => "file.pem",
        "allow_duplicate_messages" | "queue_qos0_messages" | "upgrade_outgoing_qos" => "true",
        "retain_available" | "allow_zero_length_clientid" => "false",
        name if name.starts_with("use_") || name.starts_with("require_") => "true",
        "persistence"
        | "allow_anonymous"
        | "listener_allow_anonymous"
        | "connection_messages"
        | "per_listener_settings" => "true",
        name if name.starts_with("max_topic_alias") => "100",
        _ => "50000000",
    };
    for option in OPTIONS {
        let folder = folder();
        let name = option.name.replace('*', "x");
        // What an option needs to say anything.
        let tls = "listener 8883\ncertfile c\nkeyfile k\ncafile ca\nrequire_certificate true\n";
        let is_of_tls = listener::TLS_ONLY.contains(&option.name)
            || matches!(option.name, "certfile" | "keyfile");
        let before = match option.name {
            "websockets_origin" => "listener 8083\nprotocol websockets\n",
            _ if is_of_tls => tls,
            _ => "",
        };
        let text = format!("listener 1883\n{before}{name} {}\n", values(&name));
        let text = match option.name {
            "port" | "bind_address" => format!("{name} {}\n", values(&name)),
            _ => text,
        };
        let lines = match put(&folder, &text) {
            Ok(import) => import.lines,
            Err(ImportError::NoListener(lines)) => lines,
            Err(error) => panic!("{text}: {error}"),
        };
        let line = lines.last().unwrap();
        let expected: &[Status] = match option.fate {
            options::Fate::Translated => &[Status::Translated, Status::Differs],
            options::Fate::Unneeded => &[Status::Unneeded],
            options::Fate::Left => &[Status::Left],
        };
        assert!(expected.contains(&line.status), "{text}: {line:?}");
        let key = option.key.trim_start_matches("auth.");
        assert!(
            line.status == Status::Left || line.key.ends_with(key),
            "{line:?}"
        );
    }
}

#[test]
fn a_listener_that_would_let_in_or_show_more_is_left_out() {
    let tls = "certfile c\nkeyfile k\n";
    for line in [
        "psk_hint x",
        "mount_point a/",
        "bind_interface eth0",
        "enable_proxy_protocol 2",
        "protocol http_api",
        "certfile c",
        &format!("{tls}require_certificate true"),
        &format!("{tls}require_certificate true\ncapath /x"),
        &format!("{tls}cafile ca\nrequire_certificate true\nuse_subject_as_username true"),
        &format!("{tls}tls_keyform engine"),
    ] {
        let folder = folder();
        let import = put(&folder, &format!("listener 1883\nlistener 1884\n{line}\n")).unwrap();
        assert_eq!(import.listeners, 1, "{line}");
        let of_second = import.lines.iter().skip(1);
        for report in of_second {
            assert_eq!(report.status, Status::Left, "{report:?}");
        }
        let alone = put(&folder, &format!("listener 1884\n{line}\n"));
        assert!(matches!(alone, Err(ImportError::NoListener(_))), "{line}");
    }
    let name = put(&folder(), "listener 1883 broker.example\n");
    assert!(matches!(name, Err(ImportError::NoListener(_))));
}

/// As mosquitto 2.0.11 opens them.
#[test]
fn the_default_listener_is_there_when_something_is_said_about_it() {
    let binds = |text: &str| {
        let config = read(&put(&folder(), text).unwrap());
        let binds = config
            .listeners
            .iter()
            .map(|listener| listener.bind.to_string());
        binds.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(binds(""), "127.0.0.1:1883");
    assert_eq!(binds("port 1885\n"), "[::]:1885");
    assert_eq!(binds("bind_address 127.0.0.1\n"), "127.0.0.1:1883");
    assert_eq!(
        binds("max_connections 5\nlistener 1884\n"),
        "[::]:1883 [::]:1884"
    );
    assert_eq!(binds("allow_anonymous true\nlistener 1884\n"), "[::]:1884");
    assert_eq!(binds("listener 1884 localhost\n"), "127.0.0.1:1884");
    assert_eq!(binds("listener 1884\nsocket_domain ipv4\n"), "0.0.0.0:1884");
    assert!(binds("listener 0 /run/x.sock\n").ends_with("unix:/run/x.sock"));
}

#[test]
fn without_any_word_about_it_clients_of_this_machine_get_in_and_others_need_a_user() {
    let anonymous = |text: &str| {
        let config = read(&put(&folder(), text).unwrap());
        let anonymous = config.listeners.iter().map(|listener| listener.anonymous);
        anonymous.collect::<Vec<_>>()
    };
    use AnonymousAccess::{Allowed, Refused};
    assert_eq!(anonymous(""), [Allowed]);
    assert_eq!(anonymous("listener 1884\n"), [Refused]);
    assert_eq!(
        anonymous("listener 1884\nallow_anonymous true\nlistener 1885\n"),
        [Allowed; 2]
    );
    let text = "per_listener_settings true\nlistener 1884\nallow_anonymous true\nlistener 1885\nallow_anonymous false\n";
    assert_eq!(anonymous(text), [Allowed, Refused]);
}

#[test]
fn users_and_rules_of_one_listener_are_not_those_of_another() {
    let folder = folder();
    let text = "per_listener_settings true\nlistener 1\npassword_file pw\nacl_file acl\nlistener 2\npassword_file other\nacl_file acl\nlistener 3\npassword_file pw\nacl_file other\nlistener 4\nlistener 5\nallow_anonymous true\nlistener 6\npassword_file pw\nacl_file acl\n";
    let import = put(&folder, text).unwrap();
    let config = read(&import);
    let ports: Vec<_> = config
        .listeners
        .iter()
        .map(|listener| listener.name.as_str())
        .collect();
    assert_eq!(ports, ["mqtt-1", "mqtt-5", "mqtt-6"]);
    let status = |line: usize| {
        import
            .lines
            .iter()
            .find(|report| report.line == line)
            .unwrap()
            .status
    };
    assert_eq!(
        [6, 10, 11, 16].map(status),
        [Status::Left, Status::Left, Status::Left, Status::Differs]
    );
    // Clients of listener 5 have the rules, too, which are stricter than none.
    assert_eq!(status(4), Status::Differs);
}

#[test]
fn rules_that_cannot_be_read_or_that_a_plugin_had_deny_everything() {
    for text in [
        "listener 1\nallow_anonymous true\nacl_file missing\n",
        "listener 1\nallow_anonymous true\nacl_file pw\n",
        "listener 1\nallow_anonymous true\nplugin /x.so\n",
        "auth_plugin /x.so\nauth_opt_x 1\nport 1\n",
    ] {
        let import = put(&folder(), text).unwrap();
        let rules = import
            .files
            .iter()
            .find(|file| file.name == "acl.conf")
            .unwrap();
        assert!(rules.text.contains("deny all #"), "{text}");
        assert!(import.lines.iter().any(|line| line.status == Status::Left));
        assert!(read(&import).auth.acl_file.is_some());
    }
}

#[test]
fn rules_come_as_they_are_or_in_our_format() {
    let folder = folder();
    fs::write(
        folder.path().join("mosquitto.conf"),
        "listener 1\nacl_file acl\n",
    )
    .unwrap();
    let conf = folder.path().join("mosquitto.conf");
    let theirs = import(&conf, AclForm::Mosquitto).unwrap();
    let ours = import(&conf, AclForm::Own).unwrap();
    assert_eq!(theirs.files[1].text, "user alice\ntopic a/#\n");
    assert!(ours.files[1].text.contains("[user alice]\nallow all a/#\n"));
    assert!(read(&theirs).auth.mosquitto_acl_file.is_some());
    assert!(read(&ours).auth.acl_file.is_some());
}

#[test]
fn secrets_are_not_shown() {
    let text = "listener 1\nconnection x\nremote_password hunter2\npassword hunter2\nbridge_psk hunter2\nauth_opt_db hunter2\nplugin_opt_db hunter2\ntls_engine_kpass_sha1 hunter2\n";
    let import = put(&folder(), text).unwrap();
    assert_eq!(import.lines.len(), 8);
    for line in &import.lines {
        assert!(!line.to_string().contains("hunter2"), "{line}");
    }
    for file in &import.files {
        assert!(!file.text.contains("hunter2"));
    }
}

#[test]
fn limits_mean_what_they_meant() {
    let text = "listener 1\nmax_connections -1\nmax_inflight_messages 0\nmax_queued_messages 0\nmax_queued_bytes 5\nmax_packet_size 0\nmessage_size_limit 10\nmax_keepalive 60\nmemory_limit 100000000\npersistent_client_expiration 2m\nsys_interval 0\nmax_topic_alias 7\nwebsockets_headers_size 0\n";
    let config = read(&put(&folder(), text).unwrap());
    let limits = &config.limits;
    assert_eq!(config.listeners[0].max_connections, 100_000);
    assert_eq!(
        (limits.inflight_messages_max, limits.queue_messages_max),
        (65_535, 1_000_000_000)
    );
    assert_eq!(
        (limits.queue_bytes_max, limits.packet_bytes_max),
        (1_024, 268_435_460)
    );
    assert_eq!(
        (limits.payload_bytes_max, limits.keep_alive_max_s),
        (10, 60)
    );
    assert_eq!(
        (limits.memory_bytes_max, limits.session_expiry_max_s),
        (100_000_000, 60 * 86_400)
    );
    assert_eq!((config.sys.interval_s, limits.topic_alias_max), (0, 7));
    assert_eq!(limits.websocket_head_bytes_max, 8_192);
    let bare = read(&put(&folder(), "listener 1\n").unwrap()).limits;
    assert_eq!(
        (bare.inflight_messages_max, bare.queue_messages_max),
        (20, 1_000)
    );
    assert_eq!(
        (bare.packet_bytes_max, bare.session_expiry_max_s),
        (2_000_000, u32::MAX)
    );
    assert_eq!(bare.queue_full, crate::config::QueueFull::DropNewest);
}

#[test]
fn included_files_come_in_the_order_of_mosquitto() {
    let folder = folder();
    let included = folder.path().join("conf.d");
    for name in [
        "b.conf", "A.conf", "01.conf", "a.conf", "B.conf", "00.conf", "c.txt",
    ] {
        fs::write(included.join(name), format!("auto_id_prefix {name}\n")).unwrap();
    }
    let import = put(&folder, "listener 1\ninclude_dir conf.d\n").unwrap();
    let files: Vec<_> = import.lines[2..]
        .iter()
        .map(|line| line.file.as_str())
        .collect();
    assert_eq!(
        files,
        ["00.conf", "01.conf", "A.conf", "a.conf", "B.conf", "b.conf"]
    );
}

#[test]
fn a_listener_for_browsers_takes_every_path_and_every_origin_that_has_a_password() {
    let config = read(&put(&folder(), "listener 1\nprotocol websockets\n").unwrap());
    let listener = &config.listeners[0];
    assert_eq!(
        (listener.protocol, listener.websocket_paths.join(" ")),
        (Protocol::Ws, "/*".to_owned())
    );
    assert_eq!(listener.allow_origins, ["*"]);
    let open = "allow_anonymous true\nlistener 1\nprotocol websockets\n";
    let config = read(&put(&folder(), open).unwrap());
    assert!(config.listeners[0].allow_origins.is_empty());
}

#[test]
fn what_is_no_text_is_no_configuration() {
    let folder = folder();
    let conf = folder.path().join("x");
    fs::write(&conf, [0xFF, 0xFE]).unwrap();
    let error = import(&conf, AclForm::Own).unwrap_err();
    assert!(matches!(
        error,
        ImportError::Unusable {
            why: Unusable::NotText,
            ..
        }
    ));
    let missing = import(&folder.path().join("missing"), AclForm::Own);
    assert!(matches!(missing, Err(ImportError::Unreadable { .. })));
}

#[test]
fn nothing_is_replaced_unless_wished_and_files_are_their_owners_alone() {
    let folder = folder();
    let import = put(&folder, "listener 1\npassword_file pw\nacl_file acl\n").unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("users"), "mine").unwrap();
    let refused = write(&out, &import.files, Present::Refused);
    assert!(matches!(refused, Err(WriteError::Present(paths)) if paths == [out.join("users")]));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    let paths = write(&out, &import.files, Present::Replaced).unwrap();
    assert_eq!(paths.len(), 3);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 3);
    for path in paths {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    assert_eq!(fs::read_to_string(out.join("users")).unwrap(), USER);
}

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    fs::write(folder.path().join("pw"), USER).unwrap();
    fs::write(folder.path().join("acl"), "user alice\ntopic a/#\n").unwrap();
    folder
}

fn put(folder: &TempDir, text: &str) -> Result<Import, ImportError> {
    let conf = folder.path().join("mosquitto.conf");
    fs::write(&conf, text).unwrap();
    import(&conf, AclForm::Mosquitto)
}

/// What the broker reads of it.
fn read(import: &Import) -> Config {
    let folder = TempDir::new().unwrap();
    let paths = write(folder.path(), &import.files, Present::Refused).unwrap();
    let sources = Sources {
        file: Some(&paths[0]),
        ..Sources::default()
    };
    let config =
        load(&sources).unwrap_or_else(|errors| panic!("{errors}\n{}", import.files[0].text));
    let is_place = |bind: &Bind| !bind.to_string().is_empty();
    assert!(
        config
            .listeners
            .iter()
            .all(|listener| is_place(&listener.bind))
    );
    config
}
