//! mosquitto_pub and mosquitto_sub.

use super::site::Site;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn mosquitto_clients_over_tcp() {
    let site = Site::start();
    check_mosquitto(&plain(&site));
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn mosquitto_clients_over_mutual_tls() {
    let site = Site::start();
    check_mosquitto(&secure(&site));
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn mosquitto_clients_over_a_unix_socket() {
    let site = Site::start();
    check_mosquitto(&["--unix".to_owned(), site.socket()]);
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_client_without_a_certificate_gets_nowhere() {
    let site = Site::start();
    let mut arguments = secure(&site);
    arguments.truncate(4); // the port and the authority
    let output = Command::new("mosquitto_pub")
        .args(&arguments)
        .args(["-q", "1", "-t", "t", "-m", "m"])
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
}

fn plain(site: &Site) -> Vec<String> {
    vec!["-p".to_owned(), site.broker.port().to_string()]
}

fn secure(site: &Site) -> Vec<String> {
    let mut arguments = vec!["-p".to_owned(), site.tls_port.to_string()];
    for (name, file) in ["--cafile", "--cert", "--key"]
        .into_iter()
        .zip(site.files())
    {
        arguments.extend([name.to_owned(), file]);
    }
    arguments
}

fn check_mosquitto(reach: &[String]) {
    for version in ["mqttv311", "mqttv5"] {
        check_mosquitto_version(&Mosquitto { reach, version });
    }
    check_mosquitto_properties(&Mosquitto {
        reach,
        version: "mqttv5",
    });
}

struct Mosquitto<'a> {
    reach: &'a [String],
    version: &'a str,
}

impl Mosquitto<'_> {
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        self.complete(&mut command, arguments);
        command
    }

    fn complete(&self, command: &mut Command, arguments: &[&str]) {
        command
            .args(self.reach)
            .args(["-V", self.version])
            .args(arguments);
    }

    fn publish(&self, arguments: &[&str]) {
        let output = self.command("mosquitto_pub", arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// Runs a subscriber to its end.
    fn subscribe(&self, arguments: &[&str]) -> String {
        let output = self.command("mosquitto_sub", arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a subscriber and waits for its SUBACK.
    fn listen(&self, arguments: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
        self.listen_from(" SUBACK", arguments)
    }

    /// Starts a subscriber and waits for a line. Its messages are told from its debug lines by their mark.
    fn listen_from(
        &self,
        start: &str,
        arguments: &[&str],
    ) -> (Child, BufReader<std::process::ChildStdout>) {
        // In a pipe it would keep its lines to itself until it ends; stdbuf becomes the program it is given.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub", "-d"]);
        self.complete(&mut command, arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(start) {
            line.clear();
            assert!(
                lines.read_line(&mut line).unwrap() > 0,
                "{arguments:?}: no{start}"
            );
        }
        (child, lines)
    }
}

fn marked(lines: BufReader<std::process::ChildStdout>) -> Vec<String> {
    lines
        .lines()
        .map(Result::unwrap)
        .filter_map(|line| line.strip_prefix("> ").map(str::to_owned))
        .collect()
}

fn check_mosquitto_version(clients: &Mosquitto<'_>) {
    let version = clients.version;
    let topic = |name: &str| format!("{version}/{name}");
    // Live, at every QoS.
    let live = topic("live");
    let (mut child, lines) = clients.listen(&[
        "-q",
        "2",
        "-t",
        &live,
        "-C",
        "3",
        "-W",
        "10",
        "-F",
        "> %q %r %p",
    ]);
    for qos in ["0", "1", "2"] {
        clients.publish(&["-q", qos, "-t", &live, "-m", &format!("at {qos}")]);
    }
    assert_eq!(
        marked(lines),
        ["0 0 at 0", "1 0 at 1", "2 0 at 2"],
        "{version}"
    );
    child.wait().unwrap();
    // Retained, then cleared.
    let retained = topic("retained");
    clients.publish(&["-q", "1", "-r", "-t", &retained, "-m", "kept"]);
    let got = clients.subscribe(&["-t", &retained, "-C", "1", "-W", "10", "-F", "%r %p"]);
    assert_eq!(got, "1 kept\n", "{version}");
    clients.publish(&["-q", "1", "-r", "-t", &retained, "-n"]);
    let output = clients
        .command("mosquitto_sub", &["-t", &retained, "-C", "1", "-W", "1"])
        .output()
        .unwrap();
    assert!(output.stdout.is_empty(), "{version}: {output:?}");
    // A wildcard, and a filter given up again.
    let [wild, off] = ["tree/+/c", "tree/off"].map(topic);
    let (mut child, lines) = clients.listen_from(
        " UNSUBACK",
        &[
            "-q", "2", "-t", &wild, "-t", &off, "-U", &off, "-C", "2", "-W", "10", "-F", "> %t %p",
        ],
    );
    for (number, name) in ["tree/off", "tree/a/b", "tree/a/c", "tree/z/c"]
        .map(topic)
        .iter()
        .enumerate()
    {
        clients.publish(&["-q", "2", "-t", name, "-m", &number.to_string()]);
    }
    assert_eq!(
        marked(lines),
        [
            format!("{version}/tree/a/c 2"),
            format!("{version}/tree/z/c 3")
        ]
    );
    child.wait().unwrap();
    // A will, when its client is killed.
    let will = topic("will");
    let (mut watcher, lines) =
        clients.listen(&["-q", "1", "-t", &will, "-C", "1", "-W", "10", "-F", "> %p"]);
    let (mut victim, _) = clients.listen(&[
        "-t",
        "nothing",
        "--will-topic",
        &will,
        "--will-payload",
        "gone",
        "--will-qos",
        "1",
    ]);
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(marked(lines), ["gone"], "{version}");
    watcher.wait().unwrap();
    // A durable session with queued messages.
    let (queue, session) = (topic("queue"), format!("session-{version}"));
    let durable: &[&str] = match version {
        "mqttv5" => &["-c", "-x", "3600"],
        _ => &["-c"],
    };
    let with = |more: &'static [&'static str]| {
        [durable, &["-i", &session, "-q", "2", "-t", &queue], more].concat()
    };
    clients.subscribe(&with(&["-E"]));
    for number in 0..20 {
        let qos = if number % 2 == 0 { "1" } else { "2" };
        clients.publish(&["-q", qos, "-t", &queue, "-m", &number.to_string()]);
    }
    let got = clients.subscribe(&with(&["-C", "20", "-W", "10"]));
    let numbers: Vec<usize> = got.lines().map(|line| line.parse().unwrap()).collect();
    for parity in 0..2 {
        let of_one_qos: Vec<_> = numbers
            .iter()
            .filter(|number| *number % 2 == parity)
            .collect();
        assert!(of_one_qos.is_sorted(), "{version}: {numbers:?}");
    }
    let mut sorted = numbers;
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..20), "{version}: {got}");
}

fn check_mosquitto_properties(clients: &Mosquitto<'_>) {
    let (mut child, lines) = clients.listen(&[
        "-q",
        "1",
        "-t",
        "properties",
        "-C",
        "1",
        "-W",
        "10",
        "-F",
        "> %j",
    ]);
    let mut arguments = vec!["-q", "1", "-t", "properties", "-m", "payload"];
    let properties: [&[&str]; 6] = [
        &["payload-format-indicator", "1"],
        &["content-type", "text/plain"],
        &["response-topic", "answers/7"],
        &["correlation-data", "question-7"],
        &["user-property", "unit", "kWh"],
        &["user-property", "unit", "again"],
    ];
    for property in properties {
        arguments.extend(["-D", "publish"]);
        arguments.extend(property);
    }
    clients.publish(&arguments);
    let told = marked(lines).join("\n");
    child.wait().unwrap();
    for expected in ["text/plain", "answers/7", "question-7", "kWh", "again"] {
        assert!(told.contains(expected), "{expected} is missing in {told}");
    }
}
