//! The tool's end of the admin socket.

use super::protocol::{Answer, Request};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The broker could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no broker answers at {0}")]
    Nobody(PathBuf),
    /// Only the broker's user and root may.
    #[error("{0}: only the user that runs the broker, and root, may use the admin socket")]
    Denied(PathBuf),
    /// The connection broke.
    #[error("the broker went away before it had finished: {0}")]
    Broken(String),
    /// It answered something else.
    #[error("the broker at {0} is of another release: {1}")]
    Stranger(PathBuf, String),
}

/// Asks the broker that listens at `socket`, and waits for its last answer.
///
/// # Errors
/// When there is none, or it goes away meanwhile.
pub fn ask(socket: &Path, request: &Request) -> Result<Answer, ClientError> {
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => ClientError::Denied(socket.to_owned()),
        _ => ClientError::Nobody(socket.to_owned()),
    })?;
    let broken = |error: std::io::Error| ClientError::Broken(error.to_string());
    let stranger =
        |error: serde_json::Error| ClientError::Stranger(socket.to_owned(), error.to_string());
    let mut line = serde_json::to_string(request).map_err(stranger)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(broken)?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream);
    if reader.read_line(&mut answer).map_err(broken)? == 0 {
        return Err(ClientError::Broken("no answer".to_owned()));
    }
    serde_json::from_str(&answer).map_err(stranger)
}
