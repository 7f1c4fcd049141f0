//! The broker as a process of its own, on a loopback port and in a folder of its own.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// Why there is no broker.
#[derive(Debug)]
pub enum BrokerError {
    /// The system refused.
    Io(io::Error),
    /// It ended by itself; the last lines of its log.
    Ended(ExitStatus, String),
    /// It runs, but does not answer; the last lines of its log.
    Silent(String),
}

impl From<io::Error> for BrokerError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A broker that can be killed and started again.
#[derive(Debug)]
pub struct Broker {
    binary: PathBuf,
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Broker {
    /// A broker that is not started yet, with a fresh folder and a free port.
    ///
    /// # Errors
    /// When the system has no folder or port.
    pub fn new(binary: &Path) -> Result<Self, BrokerError> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let configuration = format!(
            "data_dir = \"data\"\n\
             [[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:{port}\"\nanonymous = true\n\
             [limits]\nqueue_messages_max = 1000000\nqueue_bytes_max = \"2GiB\"\n\
             [persistence]\njournal_bytes_max = \"1MiB\"\n\
             [http]\nbind = \"\"\n\
             [log]\nlevel = \"info\"\n"
        );
        let this = Self {
            binary: binary.to_owned(),
            folder,
            port,
            child: None,
        };
        this.configure(&configuration)?;
        Ok(this)
    }

    /// Replaces the configuration, for the next start.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, configuration: &str) -> Result<(), BrokerError> {
        Ok(std::fs::write(
            self.folder.path().join("motemq.toml"),
            configuration,
        )?)
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder: configuration, log, data.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it and waits until it takes connections.
    ///
    /// # Errors
    /// When it cannot be started, or does not listen in time.
    pub fn start(&mut self) -> Result<(), BrokerError> {
        self.spawn()?;
        self.await_listener(self.port)
    }

    /// Waits until it takes connections on a port; the listeners open one after the other.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn await_listener(&mut self, port: u16) -> Result<(), BrokerError> {
        for _ in 0..START_ATTEMPTS {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(());
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                self.child = None;
                return Err(BrokerError::Ended(status, self.log()));
            }
            std::thread::sleep(START_INTERVAL);
        }
        Err(BrokerError::Silent(self.log()))
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self) -> Result<(), BrokerError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))?;
        let child = Command::new(&self.binary)
            .arg("run")
            .arg("-c")
            .arg(self.folder.path().join("motemq.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// kill -9.
    ///
    /// # Errors
    /// When it had already ended by itself.
    pub fn kill(&mut self) -> Result<(), BrokerError> {
        if let Some(mut child) = self.child.take() {
            if let Some(status) = child.try_wait()? {
                return Err(BrokerError::Ended(status, self.log()));
            }
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// The end.
    ///
    /// # Errors
    /// When it had already ended by itself.
    pub fn stop(&mut self) -> Result<(), BrokerError> {
        self.kill()
    }

    /// How it ended, if it has ended by itself.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, BrokerError> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A child that is already gone is as good.
        let _ = self.kill();
    }
}

/// The binary named by `MOTEMQ_BIN`, or the workspace's release build.
#[must_use]
pub fn binary() -> PathBuf {
    std::env::var_os("MOTEMQ_BIN").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let target = std::env::var_os("CARGO_TARGET_DIR")
                .map_or_else(|| workspace.join("target"), PathBuf::from);
            target.join("release/motemq")
        },
        PathBuf::from,
    )
}

/// A port that was free a moment ago, and that no other test of this process was given.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> io::Result<u16> {
    loop {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = socket.local_addr()?.port();
        let mut given = GIVEN_PORTS.lock().unwrap_or_else(PoisonError::into_inner);
        if given.insert(port) {
            return Ok(port);
        }
    }
}

static GIVEN_PORTS: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
const START_ATTEMPTS: u32 = 6000;
const START_INTERVAL: Duration = Duration::from_millis(5);
/// Lines of the log that an error quotes.
const LOG_LINES: usize = 20;
