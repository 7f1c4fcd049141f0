//! The real binary with real clients: kill -9, mosquitto, paho, rumqttc, over TCP, mutual TLS, WebSocket and Unix sockets.
//!
//! Needs the release build of `motemq`, mosquitto-clients and a python3 with paho-mqtt; `.ci/run` provides them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests may fail by panicking"
)]

mod external {
    use motemq_certs::Authority;
    use motemq_tests::kill_ledger::broker::{Broker, binary, free_port};
    use motemq_tests::kill_ledger::{Plan, run};
    use motemq_tests::live_backup;
    use rumqttc::{
        Client, Connection, Event, MqttOptions, Packet, QoS, TlsConfiguration, Transport,
    };
    use std::io::{BufRead, BufReader};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn three_kills_lose_nothing() {
        let verdict = run(&binary(), Plan { kills: 3, seed: 7 }).unwrap();
        assert!(verdict.is_clean(), "{verdict}\n{:#?}", verdict.stories);
    }

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn a_live_backup_under_load_restores_and_loses_nothing() {
        let plan = live_backup::Plan {
            rate: 5000,
            duration: Duration::from_secs(4),
        };
        let verdict = live_backup::run(&binary(), plan).unwrap();
        assert!(verdict.is_clean(), "{verdict}\n{:#?}", verdict.stories);
    }

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
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

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn mosquitto_clients_over_tcp() {
        let site = Site::start();
        check_mosquitto(&site.plain());
    }

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn mosquitto_clients_over_mutual_tls() {
        let site = Site::start();
        check_mosquitto(&site.secure());
    }

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn a_client_without_a_certificate_gets_nowhere() {
        let site = Site::start();
        let mut arguments = site.secure();
        arguments.truncate(4); // the port and the authority
        let output = Command::new("mosquitto_pub")
            .args(&arguments)
            .args(["-q", "1", "-t", "t", "-m", "m"])
            .output()
            .unwrap();
        assert!(!output.status.success(), "{output:?}");
    }

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn paho_over_tcp() {
        let site = Site::start();
        for version in ["3.1.1", "5"] {
            check_paho(version, &[site.broker.port().to_string()]);
        }
    }

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn paho_over_mutual_tls() {
        let site = Site::start();
        for version in ["3.1.1", "5"] {
            let mut arguments = vec![site.tls_port.to_string()];
            arguments.extend(site.files());
            check_paho(version, &arguments);
        }
    }

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn paho_over_websocket() {
        let site = Site::start();
        for version in ["3.1.1", "5"] {
            check_paho(version, &[format!("ws:{}", site.ws_port)]);
        }
    }

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn paho_over_websocket_over_mutual_tls() {
        let site = Site::start();
        for version in ["3.1.1", "5"] {
            let mut arguments = vec![format!("ws:{}", site.wss_port)];
            arguments.extend(site.files());
            check_paho(version, &arguments);
        }
    }

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn paho_over_a_unix_socket() {
        let site = Site::start();
        for version in ["3.1.1", "5"] {
            check_paho(version, &[format!("unix:{}", site.socket.display())]);
        }
    }

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn mosquitto_clients_over_a_unix_socket() {
        let site = Site::start();
        check_mosquitto(&["--unix".to_owned(), site.socket.display().to_string()]);
    }

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn rumqttc_over_tcp() {
        let site = Site::start();
        check_rumqttc(site.broker.port(), &|_| ());
    }

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn rumqttc_over_mutual_tls() {
        // The error says that a provider is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let site = Site::start();
        let read = |file: &Path| std::fs::read(file).unwrap();
        check_rumqttc(site.tls_port, &|options| {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Simple {
                ca: read(&site.ca),
                alpn: None,
                client_auth: Some((read(&site.certificate), read(&site.key))),
            }));
        });
    }

    #[test]
    #[ignore = "needs mosquitto-clients / python3 with paho-mqtt: run by .ci/run"]
    fn rumqttc_5_over_tcp() {
        let site = Site::start();
        check_rumqttc_5(site.broker.port());
    }

    /// A running broker with a listener of every kind.
    struct Site {
        broker: Broker,
        tls_port: u16,
        ws_port: u16,
        wss_port: u16,
        socket: PathBuf,
        ca: PathBuf,
        certificate: PathBuf,
        key: PathBuf,
    }

    impl Site {
        fn start() -> Self {
            let mut broker = Broker::new(&binary()).unwrap();
            let folder = broker.folder().to_owned();
            let authority = Authority::create(&folder.join("ca"), "test").unwrap();
            let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
            let server = authority.issue_server(&names).unwrap();
            server
                .write(&folder.join("server.crt"), &folder.join("server.key"))
                .unwrap();
            let (certificate, key) = (folder.join("device.crt"), folder.join("device.key"));
            authority
                .issue_device("meter-7")
                .unwrap()
                .write(&certificate, &key)
                .unwrap();
            let ca = authority.certificate_path();
            let [tls_port, ws_port, wss_port] = [(); 3].map(|()| free_port().unwrap());
            let socket = folder.join("motemq.sock");
            let tls = format!(
                "[listeners.tls]\ncert = \"server.crt\"\nkey = \"server.key\"\nclient_ca = \"{}\"\n",
                ca.display()
            );
            let configuration = format!(
                "data_dir = \"data\"\n\
                 [[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:{}\"\nanonymous = true\n\
                 [[listeners]]\nname = \"mqtts\"\nbind = \"127.0.0.1:{tls_port}\"\n{tls}\
                 [[listeners]]\nname = \"ws\"\nbind = \"127.0.0.1:{ws_port}\"\nprotocol = \"ws\"\nanonymous = true\n\
                 [[listeners]]\nname = \"wss\"\nbind = \"127.0.0.1:{wss_port}\"\nprotocol = \"ws\"\n{tls}\
                 [[listeners]]\nname = \"local\"\nbind = \"unix:motemq.sock\"\nanonymous = \"loopback\"\n\
                 [http]\nbind = \"\"\n",
                broker.port(),
            );
            broker.configure(&configuration).unwrap();
            broker.start().unwrap();
            Self {
                broker,
                tls_port,
                ws_port,
                wss_port,
                socket,
                ca,
                certificate,
                key,
            }
        }

        /// Authority, certificate and key.
        fn files(&self) -> [String; 3] {
            [&self.ca, &self.certificate, &self.key].map(|file| file.display().to_string())
        }

        fn plain(&self) -> Vec<String> {
            vec!["-p".to_owned(), self.broker.port().to_string()]
        }

        fn secure(&self) -> Vec<String> {
            let mut arguments = vec!["-p".to_owned(), self.tls_port.to_string()];
            let files = [
                ("--cafile", &self.ca),
                ("--cert", &self.certificate),
                ("--key", &self.key),
            ];
            for (name, file) in files {
                arguments.extend([name.to_owned(), file.display().to_string()]);
            }
            arguments
        }
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

        /// Starts a subscriber and waits for its SUBACK. Its messages are told from its debug lines by their mark.
        fn listen(&self, arguments: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
            // In a pipe it would keep its lines to itself until it ends; stdbuf becomes the program it is given.
            let mut command = Command::new("stdbuf");
            command.args(["-oL", "mosquitto_sub", "-d"]);
            self.complete(&mut command, arguments);
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            while !line.contains("SUBACK") {
                line.clear();
                assert!(
                    lines.read_line(&mut line).unwrap() > 0,
                    "{arguments:?}: no SUBACK"
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

    fn check_paho(version: &str, arguments: &[String]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/paho_check.py");
        let output = Command::new("python3")
            .arg(script)
            .arg(version)
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "MQTT {version}:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn check_rumqttc(port: u16, transport: &dyn Fn(&mut MqttOptions)) {
        let connect = |client_id: &str| {
            let mut options = MqttOptions::new(client_id, "localhost", port);
            options.set_clean_session(false);
            transport(&mut options);
            Client::new(options, 100)
        };
        let (subscriber, mut connection) = connect("rumqttc-subscriber");
        subscriber.subscribe("rumqttc/#", QoS::ExactlyOnce).unwrap();
        until(&mut connection, |packet| {
            matches!(packet, Packet::SubAck(_))
        });
        subscriber.disconnect().unwrap();
        until_closed(&mut connection);

        let (publisher, mut publishing) = connect("rumqttc-publisher");
        let qualities = [QoS::AtLeastOnce, QoS::ExactlyOnce];
        for number in 0..20_u8 {
            let qos = qualities[usize::from(number % 2)];
            publisher
                .publish("rumqttc/t", qos, false, [number])
                .unwrap();
        }
        publisher
            .publish("rumqttc/retained", QoS::AtLeastOnce, true, *b"kept")
            .unwrap();
        let mut acknowledged = 0;
        until(&mut publishing, |packet| {
            acknowledged += usize::from(matches!(packet, Packet::PubAck(_) | Packet::PubComp(_)));
            acknowledged == 21
        });

        let (_subscriber, mut connection) = connect("rumqttc-subscriber");
        let mut numbers = Vec::new();
        let mut was_present = false;
        until(&mut connection, |packet| {
            match packet {
                Packet::ConnAck(ack) => was_present = ack.session_present,
                Packet::Publish(publish) if publish.topic == "rumqttc/t" => {
                    numbers.push(publish.payload[0])
                }
                _ => {}
            }
            numbers.len() == 20
        });
        assert!(was_present);
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..20));

        let (late, mut connection) = connect("rumqttc-late");
        late.subscribe("rumqttc/retained", QoS::AtMostOnce).unwrap();
        until(
            &mut connection,
            |packet| matches!(packet, Packet::Publish(publish) if publish.retain && &*publish.payload == b"kept"),
        );
    }

    fn until(connection: &mut Connection, mut is_done: impl FnMut(&Packet) -> bool) {
        loop {
            let event = connection.recv_timeout(PATIENCE).expect("an event in time");
            if let Event::Incoming(packet) = event.expect("a connection")
                && is_done(&packet)
            {
                return;
            }
        }
    }

    fn until_closed(connection: &mut Connection) {
        while let Ok(Ok(_)) = connection.recv_timeout(PATIENCE) {}
    }

    fn check_rumqttc_5(port: u16) {
        use rumqttc::v5::mqttbytes::QoS;
        use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
        use rumqttc::v5::{Client, Connection, Event, MqttOptions};

        fn until(connection: &mut Connection, mut is_done: impl FnMut(&Packet) -> bool) {
            loop {
                let event = connection.recv_timeout(PATIENCE).expect("an event in time");
                if let Event::Incoming(packet) = event.expect("a connection")
                    && is_done(&packet)
                {
                    return;
                }
            }
        }

        let (subscriber, mut connection) =
            Client::new(MqttOptions::new("five-subscriber", "localhost", port), 100);
        subscriber.subscribe("five/#", QoS::ExactlyOnce).unwrap();
        until(&mut connection, |packet| {
            matches!(packet, Packet::SubAck(_))
        });

        let (publisher, mut publishing) =
            Client::new(MqttOptions::new("five-publisher", "localhost", port), 100);
        let properties = PublishProperties {
            payload_format_indicator: Some(1),
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("answers/7".to_owned()),
            correlation_data: Some("question-7".into()),
            user_properties: vec![
                ("unit".to_owned(), "kWh".to_owned()),
                ("unit".to_owned(), "again".to_owned()),
            ],
            ..PublishProperties::default()
        };
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            publisher
                .publish_with_properties("five/t", qos, false, "payload", properties.clone())
                .unwrap();
        }
        until(&mut publishing, |packet| {
            matches!(packet, Packet::PubComp(_))
        });
        let mut received = Vec::new();
        until(&mut connection, |packet| {
            if let Packet::Publish(publish) = packet {
                received.push(publish.clone());
            }
            received.len() == 3
        });
        for publish in &received {
            assert_eq!(publish.properties.as_ref(), Some(&properties));
            assert_eq!(&*publish.payload, b"payload");
        }
    }

    const PATIENCE: Duration = Duration::from_secs(10);
}
