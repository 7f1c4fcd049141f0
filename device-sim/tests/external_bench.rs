//! `motemq-sim bench` against Debian's mosquitto.
//!
//! Needs mosquitto and openssl; `.ci/run` provides them.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod external {
    use serde_json::Value;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Output, Stdio};

    #[test]
    #[ignore = "needs programs that .ci/run installs"]
    fn every_flow_arrives_whole_in_both_versions() {
        let broker = Mosquitto::start("");
        for version in ["4", "5"] {
            for (flow, deliveries) in [
                ("fanin -c 20", 1),
                ("fanout -c 20", 20),
                ("roundtrip -c 20", 1),
                ("roundtrip --pairs -c 20", 1),
            ] {
                for qos in 0..=2 {
                    let options = format!("{flow} -V {version} -q {qos} -I 1 -s 64 -L 1000");
                    let report = broker.bench(&options, 0);
                    let outcome = &report["outcome"];
                    assert_eq!(outcome["sent"], 1_000, "{options}");
                    assert_eq!(
                        outcome["received"],
                        1_000 * deliveries,
                        "{options}: {outcome}"
                    );
                    assert_eq!(outcome["violations"], serde_json::json!([]), "{options}");
                    let acknowledged = if qos == 0 { 0 } else { 1_000 };
                    assert_eq!(outcome["acknowledged"], acknowledged, "{options}");
                }
            }
        }
    }

    #[test]
    #[ignore = "needs programs that .ci/run installs"]
    fn connections_are_held_over_tls_too_and_the_broker_is_watched() {
        let broker = Mosquitto::start("");
        let pid = broker.process.id();
        let options = format!("conn -c 500 -R 2000 --duration 200ms --broker-pid {pid}");
        let report = broker.bench(&options, 0);
        assert_eq!(report["outcome"]["connected"], 500);
        assert!(
            report["measured"]["broker"]["rss_end_kib"]
                .as_u64()
                .unwrap()
                > 1_000
        );
        let secure = Mosquitto::start("certfile DIR/server.crt\nkeyfile DIR/server.key\n");
        let authority = secure.file("server.crt");
        let report = secure.bench(
            &format!("roundtrip -h localhost -S --cacertfile {authority} -c 20 -q 1 -I 1 -L 500"),
            0,
        );
        assert_eq!(report["outcome"]["received"], 500);
    }

    #[test]
    #[ignore = "needs programs that .ci/run installs"]
    fn a_publisher_and_a_subscriber_find_each_other_across_processes() {
        let broker = Mosquitto::start("");
        let json = broker.file("sub.json");
        let mut subscriber = broker
            .command(&format!(
                "sub -c 1 -t bench/# -q 1 --duration 30s --json {json}"
            ))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Its first line says that it is connected.
        let mut lines = BufReader::new(subscriber.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("up 1/1")));
        let published = broker.bench("pub -c 5 -q 1 -I 1 -L 500", 0);
        assert_eq!(published["outcome"]["acknowledged"], 500);
        assert!(lines.any(|line| line.unwrap().contains("received 500 ")));
        // An interrupt ends the run with a report.
        let id = subscriber.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &id])
                .status()
                .unwrap()
                .success()
        );
        assert!(subscriber.wait().unwrap().success());
        let heard = read(Path::new(&json));
        assert_eq!(heard["outcome"]["received"], 500);
        assert_eq!(
            (&heard["outcome"]["streams"], &heard["outcome"]["lost"]),
            (&5.into(), &0.into())
        );
    }

    #[test]
    #[ignore = "needs programs that .ci/run installs"]
    fn what_ended_a_bench_is_in_its_exit_code_and_its_words() {
        let broker = Mosquitto::start("allow_anonymous false\n");
        let refused = broker.bench("conn -c 5", 1);
        assert_eq!(refused["outcome"]["connections_failed"], 5);
        let none = broker.command("fanin -c 5").output().unwrap();
        check(&none, 1, "-u and -P");
        check(
            &broker.command("fanin -s 5").output().unwrap(),
            2,
            "-s must be at least 28",
        );
        check(&broker.command("fanin -Z").output().unwrap(), 2, "-Z");
        let pid = broker
            .command("conn --broker-pid 4000000")
            .output()
            .unwrap();
        check(&pid, 1, "--broker-pid");
    }

    fn check(output: &Output, code: i32, word: &str) {
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(word), "{text:?} should name {word}");
    }

    struct Mosquitto {
        process: Child,
        port: u16,
        folder: PathBuf,
    }

    impl Mosquitto {
        /// A broker for anybody with these lines in its configuration.
        fn start(lines: &str) -> Self {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let folder = std::env::temp_dir().join(format!("motemq-sim-bench-{port}"));
            std::fs::create_dir_all(&folder).unwrap();
            if lines.contains("certfile") {
                certificate(&folder);
            }
            let lines = lines.replace("DIR", folder.to_str().unwrap());
            let anonymous = if lines.contains("allow_anonymous") {
                ""
            } else {
                "allow_anonymous true\n"
            };
            let text = format!(
                "user root\n{anonymous}max_queued_messages 0\nlog_dest stderr\nlistener {port} 127.0.0.1\n{lines}"
            );
            let file = folder.join("mosquitto.conf");
            std::fs::write(&file, text).unwrap();
            let mut process = Command::new("mosquitto")
                .arg("-c")
                .arg(&file)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
            let mut said = Vec::new();
            let mut is_running = |line: String| {
                said.push(line);
                said.last().is_some_and(|line| line.ends_with("running"))
            };
            assert!(log.any(|line| is_running(line.unwrap())), "{said:?}");
            // Its log is read on, so that it never waits for us.
            std::thread::spawn(move || log.for_each(drop));
            Self {
                process,
                port,
                folder,
            }
        }

        fn file(&self, name: &str) -> String {
            self.folder.join(name).to_str().unwrap().to_owned()
        }

        fn command(&self, options: &str) -> Command {
            let mut command = Command::new(env!("CARGO_BIN_EXE_motemq-sim"));
            command.arg("bench").args(options.split(' '));
            command.args(["-p", &self.port.to_string()]);
            if !options.contains("-h ") {
                command.args(["-h", "127.0.0.1"]);
            }
            command
        }

        /// Runs a bench that ends with this code; its JSON.
        fn bench(&self, options: &str, code: i32) -> Value {
            let json = self.file("bench.json");
            let output = self
                .command(options)
                .args(["--json", &json])
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(code), "{options}: {output:?}");
            read(Path::new(&json))
        }
    }

    impl Drop for Mosquitto {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    fn read(path: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// A certificate for localhost that is its own authority.
    fn certificate(folder: &Path) {
        let made = Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split(' '))
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(folder.join("server.key"))
            .arg("-out")
            .arg(folder.join("server.crt"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }
}
