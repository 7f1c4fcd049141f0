//! A password file made by mosquitto_passwd: mosquitto and we, with the file as it is and imported, admit the same clients.

use motemq_tests::kill_ledger::broker::{Broker, binary, free_port};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_mosquitto_password_file_admits_the_same_clients() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("passwords");
    let users = [
        ("plain", "secret", "sha512-pbkdf2"),
        ("old", "secret", "sha512"),
        ("with blank", "two words", "sha512-pbkdf2"),
        ("schlüssel", "pässwörd$:#", "sha512-pbkdf2"),
        ("empty", "", "sha512-pbkdf2"),
        ("empty-old", "", "sha512"),
    ];
    for (index, (user, password, hash)) in users.into_iter().enumerate() {
        let create: &[&str] = if index == 0 { &["-c"] } else { &[] };
        let made = Command::new("mosquitto_passwd")
            .args(create)
            .args(["-H", hash, "-b"])
            .arg(&theirs)
            .args([user, password])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    std::fs::set_permissions(&theirs, std::fs::Permissions::from_mode(0o600)).unwrap();
    let ours = folder.path().join("users");
    let imported = Command::new(binary())
        .args(["passwd", "import"])
        .arg(&theirs)
        .arg("-f")
        .arg(&ours)
        .output()
        .unwrap();
    assert!(imported.status.success(), "{imported:?}");
    let listed = Command::new(binary())
        .args(["passwd", "ls", "-f"])
        .arg(&ours)
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.lines().count(), users.len(), "{listed}");
    assert!(listed.lines().all(|line| line.contains("passwd add")));

    let mosquitto = Mosquitto::start(folder.path(), &theirs);
    let as_it_is = motemq(&format!("mosquitto_password_file = {theirs:?}"));
    let after_import = motemq(&format!("password_file = {ours:?}"));
    let mut admitted = 0;
    let names = users.map(|(user, ..)| user);
    let passwords = [
        "secret",
        "two words",
        "pässwörd$:#",
        "wrong",
        "Secret",
        "secret ",
        "",
    ];
    for user in names
        .into_iter()
        .chain(["nobody", "PLAIN", "plai", "plain "])
    {
        for password in passwords {
            for version in ["mqttv311", "mqttv5"] {
                let ask = |port| admits(port, user, password, version);
                let expected = ask(mosquitto.port);
                assert_eq!(
                    ask(as_it_is.port()),
                    expected,
                    "{user:?} {password:?} {version}"
                );
                assert_eq!(
                    ask(after_import.port()),
                    expected,
                    "{user:?} {password:?} {version}"
                );
                admitted += u32::from(expected);
            }
        }
    }
    assert_eq!(admitted, 8, "four users with their own passwords, twice");
}

fn admits(port: u16, user: &str, password: &str, version: &str) -> bool {
    let output = Command::new("mosquitto_pub")
        .args(["-V", version, "-p", &port.to_string(), "-u", user])
        .args(["-P", password, "-q", "1", "-t", "t", "-m", "m"])
        .output()
        .unwrap();
    output.status.success()
}

fn motemq(auth: &str) -> Broker {
    let mut broker = Broker::new(&binary()).unwrap();
    let port = broker.port();
    let configuration = format!(
        "data_dir = \"\"\n[[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:{port}\"\n\
         [http]\nbind = \"\"\n[auth]\n{auth}\n"
    );
    broker.configure(&configuration).unwrap();
    broker.start().unwrap();
    broker
}

struct Mosquitto {
    child: Child,
    port: u16,
}

impl Mosquitto {
    fn start(folder: &Path, passwords: &Path) -> Self {
        let port = free_port().unwrap();
        let configuration = folder.join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\nuser root\npassword_file {}\n",
            passwords.display()
        );
        std::fs::write(&configuration, text).unwrap();
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(&configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self { child, port };
        let is_up = (0..200).any(|_| {
            let is_up = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            if !is_up {
                std::thread::sleep(Duration::from_millis(20));
            }
            is_up
        });
        assert!(is_up, "mosquitto does not listen");
        this
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // A child that is already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
