//! kill -9: our own ledger, a backup under load, paho-mqtt, and a second broker on the same data.

use super::scripts;
use super::site::Site;
use motemq_tests::kill_ledger::broker::{binary, free_port};
use motemq_tests::kill_ledger::{Plan, run};
use motemq_tests::live_backup;
use std::process::Command;
use std::time::Duration;

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn three_kills_lose_nothing() {
    let verdict = run(&binary(), Plan { kills: 3, seed: 7 }).unwrap();
    assert!(verdict.is_clean(), "{verdict}\n{:#?}", verdict.stories);
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_live_backup_under_load_restores_and_loses_nothing() {
    let plan = live_backup::Plan {
        rate: 5000,
        duration: Duration::from_secs(4),
    };
    let verdict = live_backup::run(&binary(), plan).unwrap();
    assert!(verdict.is_clean(), "{verdict}\n{:#?}", verdict.stories);
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn paho_at_qos_2_over_mutual_tls_loses_and_repeats_nothing_by_the_brokers_fault() {
    for (version, seed) in [("3.1.1", "1"), ("5", "2")] {
        for client in ["mended", "stock"] {
            check_kills(&Site::configured(), client, version, seed, true);
        }
    }
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn paho_at_qos_2_over_tcp_loses_and_repeats_nothing_by_the_brokers_fault() {
    for (version, seed) in [("3.1.1", "3"), ("5", "4")] {
        for client in ["mended", "stock"] {
            check_kills(&Site::configured(), client, version, seed, false);
        }
    }
}

/// The script starts, kills and judges the broker; `client` says which paho (see there).
fn check_kills(site: &Site, client: &str, version: &str, seed: &str, over_tls: bool) {
    let port = if over_tls {
        site.tls_port
    } else {
        site.broker.port()
    };
    let mut command = scripts::python("paho_kills.py");
    command
        .args([client, version, "4", seed, &port.to_string(), "--"])
        .arg(binary())
        .arg("run")
        .arg("-c")
        .arg(site.broker.folder().join("motemq.toml"));
    if over_tls {
        command.arg("--").args(site.files());
    }
    scripts::succeed(&mut command);
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_second_process_on_the_same_data_is_refused() {
    let site = Site::start();
    let configuration = format!(
        "data_dir = \"data\"\n[[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:{}\"\n[http]\nbind = \"\"\n",
        free_port().unwrap()
    );
    let file = site.broker.folder().join("second.toml");
    std::fs::write(&file, configuration).unwrap();
    let second = Command::new(binary())
        .arg("run")
        .arg("-c")
        .arg(file)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{told}");
    assert!(told.contains("another motemq"), "{told}");
}
