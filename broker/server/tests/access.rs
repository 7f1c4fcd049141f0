//! `motemq acl` and `motemq check` as an operator meets them: what they print and how they end.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

const RULES: &str = "\
group ops = bob

[everyone]
allow publish d/%c/# qos<=1
allow all own/%{cn}

[group ops]
allow all #
deny subscribe d/secret
";

#[test]
fn a_test_names_the_line_and_ends_with_the_verdict() {
    let site = Site::new();
    for (arguments, code, expected) in [
        ("--client c1 publish d/c1/x", 0, "allowed: {} line 4: "),
        (
            "--client c1 publish d/c1/x --qos 2",
            1,
            "denied: no rule allows it",
        ),
        (
            "--client c1 --anonymous publish d/c2/x",
            1,
            "denied: no rule allows it; under [anonymous]",
        ),
        (
            "--client c1 --field cn=m publish own/m",
            0,
            "allowed: {} line 5: ",
        ),
        (
            "--client x --user bob subscribe d/#",
            0,
            "allowed: {} line 8: ",
        ),
        (
            "--client x --user bob receive d/secret",
            1,
            "denied: {} line 9: ",
        ),
        (
            "--client x --user eve --group ops receive d/x",
            0,
            "allowed: {} line 8: ",
        ),
        (
            "--client x --user bob subscribe $share/g/d/#",
            1,
            "denied: {} line 9: ",
        ),
        (
            "--client x --user bob publish $SYS/x",
            1,
            "denied: no client publishes",
        ),
        (
            "--client x --user bob --retain publish a",
            0,
            "allowed: {} line 8: ",
        ),
    ] {
        let expected = expected.replace("{}", site.path("acl.conf").to_str().unwrap());
        let own = site.path("acl.conf").display().to_string();
        let mut all = vec!["acl", "test", "-f", &own];
        all.extend(arguments.split(' '));
        let (found, output, _) = motemq(&all);
        assert_eq!(found, code, "{arguments}: {output}");
        assert!(output.starts_with(&expected), "{arguments}: {output}");
        assert_eq!(output.lines().count(), 1, "{output}");
        // The same from a configuration.
        let config = site.path("motemq.toml").display().to_string();
        all.splice(2..4, ["-c", &config]);
        assert_eq!(motemq(&all).0, code, "{arguments}");
    }
    let (code, output, _) = motemq(&["acl", "test", "--client", "x", "publish", "a"]);
    assert_eq!(code, 0, "{output}");
    for wrong in [
        "publish a/+",
        "publsh a",
        "subscribe a+",
        "publish a --qos 3",
    ] {
        let mut all = vec!["acl", "test", "--client", "x"];
        all.extend(wrong.split(' '));
        assert_eq!(motemq(&all).0, 2, "{wrong}");
    }
}

#[test]
fn a_wrong_file_is_reported_by_line_and_stops_the_start() {
    let site = Site::new();
    std::fs::write(
        site.path("acl.conf"),
        "[everyone]\nalow all #\nallow al #\n",
    )
    .unwrap();
    let [own, config] =
        ["acl.conf", "motemq.toml"].map(|name| site.path(name).display().to_string());
    let commands: [&[&str]; 4] = [
        &["acl", "check", &own],
        &["acl", "test", "-f", &own, "--client", "x", "publish", "a"],
        &["check", "-c", &config],
        &["run", "-c", &config],
    ];
    for command in commands {
        let (code, output, errors) = motemq(command);
        assert_eq!(code, 78, "{command:?}: {output} {errors}");
        for line in [
            "acl.conf:2: ",
            "did you mean \"allow\"?",
            "acl.conf:3: ",
            "did you mean \"all\"?",
        ] {
            assert!(errors.contains(line), "{command:?}: {errors}");
        }
    }
}

#[test]
fn a_mosquitto_file_is_checked_tested_and_imported() {
    let site = Site::new();
    let theirs = "user alice\ntopic read a/#\npattern write d/%c\n";
    std::fs::write(site.path("theirs"), theirs).unwrap();
    let [own, imported] = ["theirs", "new.conf"].map(|name| site.path(name).display().to_string());
    assert_eq!(motemq(&["acl", "check", "--mosquitto", &own]).0, 0);
    let (code, _, errors) = motemq(&["acl", "check", &own]);
    assert_eq!(code, 78);
    assert!(errors.contains("mosquitto_acl_file"), "{errors}");
    assert_eq!(motemq(&["acl", "import", &own, "-o", &imported]).0, 0);
    for (arguments, code) in [
        ("--user alice --client c receive a/x", 0),
        ("--user bob --client c receive a/x", 1),
        ("--user bob --client c publish d/c", 0),
    ] {
        for file in [["-f", &imported], ["--mosquitto", &own]] {
            let mut all = vec!["acl", "test"];
            all.extend(file);
            all.extend(arguments.split(' '));
            assert_eq!(motemq(&all).0, code, "{all:?}");
        }
    }
    // Nothing is overwritten.
    assert_eq!(motemq(&["acl", "import", &own, "-o", &imported]).0, 1);
    let (code, output, _) = motemq(&["acl", "import", &own]);
    assert_eq!(
        (code, output),
        (0, std::fs::read_to_string(imported).unwrap())
    );
}

/// Exit code, standard output, standard error.
fn motemq(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_motemq"))
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        std::fs::write(site.path("acl.conf"), RULES).unwrap();
        let configuration = "[[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:0\"\nanonymous = true\n\
            [auth]\nacl_file = \"acl.conf\"\n[http]\nbind = \"\"\n";
        std::fs::write(site.path("motemq.toml"), configuration).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
