//! A broker with a listener of each kind, and how clients reach it.

use motemq_certs::Authority;
use motemq_tests::kill_ledger::broker::{Broker, binary, free_port};
use std::path::PathBuf;

/// A broker with a listener of every kind.
pub(super) struct Site {
    pub(super) broker: Broker,
    pub(super) tls_port: u16,
    ws_port: u16,
    wss_port: u16,
    socket: PathBuf,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Site {
    /// A broker that runs.
    pub(super) fn start() -> Self {
        let mut this = Self::configured();
        this.broker.start().unwrap();
        for port in [this.tls_port, this.ws_port, this.wss_port] {
            this.broker.await_listener(port).unwrap();
        }
        this
    }

    /// A broker that is not started yet.
    pub(super) fn configured() -> Self {
        let broker = Broker::new(&binary()).unwrap();
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
        // The Unix socket opens before the port that `Broker::start` waits for.
        let configuration = format!(
            "data_dir = \"data\"\n\
             [[listeners]]\nname = \"local\"\nbind = \"unix:motemq.sock\"\nanonymous = \"loopback\"\n\
             [[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:{}\"\nanonymous = true\n\
             [[listeners]]\nname = \"mqtts\"\nbind = \"127.0.0.1:{tls_port}\"\n{tls}\
             [[listeners]]\nname = \"ws\"\nprotocol = \"ws\"\nbind = \"127.0.0.1:{ws_port}\"\nanonymous = true\n\
             [[listeners]]\nname = \"wss\"\nprotocol = \"ws\"\nbind = \"127.0.0.1:{wss_port}\"\n{tls}\
             [http]\nbind = \"\"\n",
            broker.port(),
        );
        broker.configure(&configuration).unwrap();
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

    /// What a script is told after the transport.
    pub(super) fn reach(&self, over: &str) -> Vec<String> {
        let place = match over {
            "tls" => self.tls_port.to_string(),
            "ws" => self.ws_port.to_string(),
            "wss" => self.wss_port.to_string(),
            "unix" => self.socket(),
            _ => self.broker.port().to_string(),
        };
        let mut arguments = vec![place];
        if over == "tls" || over == "wss" {
            arguments.extend(self.files());
        }
        arguments
    }

    /// The path of the Unix socket.
    pub(super) fn socket(&self) -> String {
        self.socket.display().to_string()
    }

    /// The authority, and a client's certificate and key.
    pub(super) fn files(&self) -> [String; 3] {
        [&self.ca, &self.certificate, &self.key].map(|file| file.display().to_string())
    }
}
