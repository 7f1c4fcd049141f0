//! The arguments of a load: `name=value`, each with a default.

use std::collections::HashMap;
use std::io;

/// What was given.
#[derive(Debug)]
pub struct Options(HashMap<String, String>);

impl Options {
    /// Reads arguments.
    ///
    /// # Errors
    /// When one is not `name=value`.
    pub fn parse(arguments: impl Iterator<Item = String>) -> io::Result<Self> {
        let pairs = arguments.map(|argument| match argument.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(io::Error::other(format!("{argument} is not name=value"))),
        });
        pairs.collect::<io::Result<_>>().map(Self)
    }

    /// A number.
    ///
    /// # Errors
    /// When what was given is none.
    pub fn number(&self, name: &str, default: usize) -> io::Result<usize> {
        let wrong = || io::Error::other(format!("{name} must be a number"));
        let given = self.0.get(name);
        given.map_or(Ok(default), |value| value.parse().map_err(|_| wrong()))
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn text(&self, name: &str) -> io::Result<&str> {
        let missing = || io::Error::other(format!("{name}=… is missing"));
        self.0.get(name).map(String::as_str).ok_or_else(missing)
    }

    /// Where the broker is.
    ///
    /// # Errors
    /// When `port` is missing or no port.
    pub fn port(&self) -> io::Result<u16> {
        let port = self.text("port")?;
        port.parse()
            .map_err(|_| io::Error::other("port must be a port"))
    }
}
