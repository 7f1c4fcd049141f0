//! kill -9 under our own ledger, and a second broker on the same data.

use super::site::Site;
use motemq_tests::kill_ledger::broker::{binary, free_port};
use motemq_tests::kill_ledger::{Plan, run};
use std::process::Command;

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn three_kills_lose_nothing() {
    let verdict = run(&binary(), Plan { kills: 3, seed: 7 }).unwrap();
    assert!(verdict.is_clean(), "{verdict}\n{:#?}", verdict.stories);
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
