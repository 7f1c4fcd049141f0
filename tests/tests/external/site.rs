//! A broker with a listener of each kind, and how clients reach it.

use motemq_certs::Authority;
use motemq_tests::kill_ledger::broker::{Broker, binary, free_port};
use std::path::PathBuf;

/// A broker with a plain and a TLS listener.
pub(super) struct Site {
    pub(super) broker: Broker,
    pub(super) tls_port: u16,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Site {
    /// A broker that runs.
    pub(super) fn start() -> Self {
        let mut this = Self::configured();
        this.broker.start().unwrap();
        this.broker.await_listener(this.tls_port).unwrap();
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
        let tls_port = free_port().unwrap();
        let configuration = format!(
            "data_dir = \"data\"\n\
             [[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:{}\"\nanonymous = true\n\
             [[listeners]]\nname = \"mqtts\"\nbind = \"127.0.0.1:{tls_port}\"\n\
             [listeners.tls]\ncert = \"server.crt\"\nkey = \"server.key\"\nclient_ca = \"{}\"\n\
             [http]\nbind = \"\"\n",
            broker.port(),
            ca.display()
        );
        broker.configure(&configuration).unwrap();
        Self {
            broker,
            tls_port,
            ca,
            certificate,
            key,
        }
    }

    /// What a script is told after the transport.
    pub(super) fn reach(&self, over: &str) -> Vec<String> {
        let port = match over {
            "tls" => self.tls_port,
            _ => self.broker.port(),
        };
        let mut arguments = vec![port.to_string()];
        if over == "tls" {
            arguments.extend(self.files());
        }
        arguments
    }

    /// The authority, and a client's certificate and key.
    pub(super) fn files(&self) -> [String; 3] {
        [&self.ca, &self.certificate, &self.key].map(|file| file.display().to_string())
    }
}
