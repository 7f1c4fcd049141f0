//! A file system of a few MiB in a mount namespace of its own, which the broker is started in.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// The file system; it lives as long as this.
pub(super) struct SmallDisk {
    folder: tempfile::TempDir,
    /// A shell in the namespace.
    shell: Child,
    lines: BufReader<ChildStdout>,
}

impl SmallDisk {
    /// A tmpfs of so many MiB; says why there is none where the system allows no namespace.
    pub(super) fn new(mebibytes: u32) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("unshare")
            .args(["-rm", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| format!("no unshare: {error}"))?;
        let lines = BufReader::new(shell.stdout.take().unwrap());
        let mut this = Self {
            folder,
            shell,
            lines,
        };
        let path = this.folder.path().display().to_string();
        let is_mounted = this.run(&format!("mount -t tmpfs -o size={mebibytes}m none {path}"));
        if is_mounted {
            Ok(this)
        } else {
            Err("the system allows no mount in a namespace of its own".to_owned())
        }
    }

    /// Runs a command in the namespace; whether it succeeded.
    pub(super) fn run(&mut self, command: &str) -> bool {
        let stdin = self.shell.stdin.as_mut().unwrap();
        if writeln!(stdin, "{command} && echo yes || echo no").is_err() {
            return false;
        }
        let mut line = String::new();
        let is_read = self.lines.read_line(&mut line).is_ok();
        is_read && line.trim() == "yes"
    }

    /// Where the store goes.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What a program is started by to be in the namespace.
    pub(super) fn entrance(&self) -> String {
        let process = self.shell.id();
        format!("nsenter --preserve-credentials -U -m -t {process}")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The file system goes with the last process in its namespace.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
