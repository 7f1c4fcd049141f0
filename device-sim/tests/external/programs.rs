//! Programs that run as long as a test: mosquitto, which is Debian's.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// mosquitto with a listener for TCP and one for WebSocket.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    pub(crate) websocket_port: u16,
    log: Arc<Mutex<Vec<String>>>,
    _process: Running,
    _folder: TempDir,
}

impl Mosquitto {
    pub(crate) fn start() -> Self {
        // It cannot be asked to choose its ports, and those that were free may be taken by another test.
        (0..10).find_map(|_| Self::start_unless_taken()).unwrap()
    }

    /// How many clients with a device's id have connected, in this version as mosquitto writes it: `p2` is 3.1.1.
    pub(crate) fn connected_devices(&self, version: &str) -> usize {
        let log = self.log.lock().unwrap();
        let of_devices = log
            .iter()
            .filter(|line| line.contains(" New client connected ") && line.contains("-0000"));
        of_devices
            .filter(|line| line.contains(&format!("({version}, ")))
            .count()
    }

    fn start_unless_taken() -> Option<Self> {
        // Both at once, or the second would be the first.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, websocket_port] = free.map(|free| free.local_addr().unwrap().port());
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("mosquitto.conf");
        let text = format!(
            "user root\nallow_anonymous true\nlistener {port} 127.0.0.1\nlistener {websocket_port} 127.0.0.1\nprotocol websockets\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(&file).stderr(Stdio::piped());
        // Debian's is outside an ordinary user's path.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
        let mut process = Running(command.spawn().unwrap());
        let errors = BufReader::new(process.0.stderr.take().unwrap());
        let mut lines = errors.lines().map_while(Result::ok);
        let mut said = String::new();
        while !said.ends_with(" running\n") {
            let Some(line) = lines.next() else {
                assert!(is_taken(&said), "mosquitto does not start: {said}");
                return None;
            };
            said += &line;
            said.push('\n');
        }
        let log = Arc::new(Mutex::new(Vec::new()));
        let grows = log.clone();
        // Who writes to a closed pipe is killed: keep reading.
        std::thread::spawn(move || lines.for_each(|line| grows.lock().unwrap().push(line)));
        Some(Self {
            port,
            websocket_port,
            log,
            _process: process,
            _folder: folder,
        })
    }
}

/// Whether that is what mosquitto says of a port that it cannot have, first for TCP, then for WebSocket.
fn is_taken(said: &str) -> bool {
    said.contains("Address already in use") || said.contains("Unable to create websockets listener")
}

/// Ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
