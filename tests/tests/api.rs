//! The API over real sockets: who may ask, and what comes back.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::api::{BanItem, Client, Door, Page};
use motemq::config::Config;
use motemq_tests::in_process::InProcess;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

#[test]
fn the_http_port_asks_for_the_token_that_the_first_start_made() {
    let dir = tempfile::tempdir().unwrap();
    let start = || InProcess::start(config(dir.path()));
    let broker = start();
    let file = dir.path().join("api.token");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let made = std::fs::read_to_string(&file).unwrap();
    let ask = |broker: &InProcess, token: &str| {
        let door = Door::Http {
            authority: broker.running().http().unwrap().to_string(),
            token: token.to_owned(),
        };
        Client::new(door).unwrap().get::<Page<BanItem>>("/bans")
    };
    assert_eq!(ask(&broker, made.trim()).unwrap().items, []);
    for wrong in ["", "a", &made.trim()[1..], &format!("{}a", made.trim())] {
        let refused = ask(&broker, wrong).unwrap_err();
        assert_eq!(refused.code(), Some("unauthorized"), "{wrong}");
    }
    broker.stop();
    let broker = start();
    assert!(ask(&broker, made.trim()).is_ok());
    broker.stop();
}

#[test]
fn a_token_file_that_others_may_read_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("api.token");
    std::fs::write(&file, "0123456789012345678901234567890123456789012").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let runtime = motemq::runtime::build().unwrap();
    let started = runtime.block_on(motemq::server::start(config(dir.path())));
    let error = started.unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn what_is_not_there_is_said_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let broker = InProcess::start(config(dir.path()));
    let operator = Client::new(Door::Socket(dir.path().join("admin.sock"))).unwrap();
    let no_path = operator.get::<()>("/no/such").unwrap_err();
    assert_eq!(no_path.code(), Some("not_found"));
    let no_method = operator.delete("/bans").unwrap_err();
    assert_eq!(no_method.code(), Some("method_not_allowed"));
    let bad_query = operator.get::<Page<BanItem>>("/bans?knd=user").unwrap_err();
    assert!(bad_query.to_string().contains("knd"), "{bad_query}");
    broker.stop();
}

/// No listeners but the HTTP port's and the admin socket.
fn config(data_dir: &Path) -> Config {
    let mut config = Config {
        data_dir: Some(data_dir.to_owned()),
        listeners: Vec::new(),
        ..Config::default()
    };
    config.http.bind = Some("127.0.0.1:0".parse().unwrap());
    config
}
