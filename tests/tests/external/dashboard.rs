//! The dashboard in headless Chromium: each view clicked through at two widths, light and dark; no error in the console, no breach of the
//! page's policy, nothing wider than the window. `tests/clients/dashboard.cjs` says how. Pictures are left in `target/dashboard`.

use motemq::config::Config;
use motemq_tests::in_process::InProcess;
use std::path::Path;
use std::process::Command;

/// Page, policy and MQTT are the broker's; the API's answers are the script's own, with names that would like to be markup.
#[test]
#[ignore = "needs programs that .ci/run installs"]
fn each_view_shows_hostile_names_as_text_and_fits_a_phone() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: Some(dir.path().to_owned()),
        listeners: Vec::new(),
        ..Config::default()
    };
    config.http.bind = Some("127.0.0.1:0".parse().unwrap());
    let broker = InProcess::start(config);
    let url = format!("http://{}/", broker.running().http().unwrap());
    let token = std::fs::read_to_string(dir.path().join("api.token")).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../dashboard");
    std::fs::create_dir_all(&pictures).unwrap();
    let output = Command::new("node")
        .arg(tests.join("clients/dashboard.cjs"))
        .args([url.as_str(), token.trim()])
        .arg(&pictures)
        .arg("fake")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    broker.stop();
}
