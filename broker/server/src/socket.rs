//! Listening sockets: TCP with room for a fleet, Unix sockets with an owner and an end.
//!
//! Promises:
//! - A Unix socket has its permissions before anybody can connect. The file of one that nobody listens on any more is
//!   replaced; any other file is left alone, and so is a socket that answers. At the end the file goes, if it is still ours.
//! - What is set on a TCP listener holds for every connection of it without a further system call (Linux hands the options
//!   down): no delay, and the time after which data that nobody acknowledges ends the connection.

use crate::config::{Bind, ListenerConfig};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

/// A listening socket.
#[derive(Debug)]
pub(crate) enum ListeningSocket {
    Tcp(TcpListener),
    Unix {
        socket: UnixListener,
        #[expect(dead_code, reason = "removes the file when it is dropped")]
        file: SocketFile,
    },
}

impl ListeningSocket {
    /// Listens where the configuration says.
    pub(crate) fn bind(config: &ListenerConfig) -> io::Result<Self> {
        match &config.bind {
            Bind::Ip(address) => {
                let timeout = Duration::from_secs(config.tcp_user_timeout_s.into());
                Ok(Self::Tcp(listen(*address, timeout)?))
            }
            Bind::Unix(path) => {
                let (socket, file) = listen_unix(path, config.unix_mode)?;
                Ok(Self::Unix { socket, file })
            }
        }
    }

    /// Takes over what can be changed while it listens, for connections made from now on.
    pub(crate) fn change(&self, config: &ListenerConfig) -> io::Result<()> {
        match (self, &config.bind) {
            (Self::Tcp(socket), _) => {
                let timeout = Duration::from_secs(config.tcp_user_timeout_s.into());
                set_user_timeout(&SockRef::from(socket), timeout)
            }
            (Self::Unix { .. }, Bind::Unix(path)) => {
                fs::set_permissions(path, fs::Permissions::from_mode(config.unix_mode))
            }
            (Self::Unix { .. }, Bind::Ip(_)) => Ok(()),
        }
    }

    /// The address it really has.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Unix { .. } => None,
        }
    }
}

/// A listening TCP socket; a `user_timeout` of zero is the system's own.
pub(crate) fn listen(address: SocketAddr, user_timeout: Duration) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Latency matters more than segment count for packets of this size.
    socket.set_tcp_nodelay(true)?;
    set_user_timeout(&SockRef::from(&socket), user_timeout)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// How long data may wait for its acknowledgement; zero leaves it to the system.
fn set_user_timeout(socket: &SockRef<'_>, timeout: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout((!timeout.is_zero()).then_some(timeout))?;
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, timeout);
    Ok(())
}

fn listen_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::new(path)?;
    // Until it listens nobody can connect, so the permissions are in time.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((UnixListener::from_std(socket.into())?, file))
}

/// Removes the file of a socket that nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        ));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens on it",
        )),
        Err(error) => Err(error),
    }
}

/// The file of a Unix socket; it goes with this, unless another has taken its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Connections that the kernel may hold before they are accepted.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn in_runtime<T>(body: impl FnOnce() -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        body()
    }

    #[test]
    fn a_unix_socket_has_its_permissions_and_goes_at_the_end() {
        in_runtime(|| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("socket");
            let (socket, file) = listen_unix(&path, 0o600).unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            drop((socket, file));
            assert!(!path.exists());
        });
    }

    #[test]
    fn only_the_file_of_a_dead_socket_is_replaced() {
        in_runtime(|| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("socket");
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            assert!(path.exists(), "a crash leaves it behind");
            let (_socket, first) = listen_unix(&path, 0o660).unwrap();
            let taken = listen_unix(&path, 0o660).unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
            // Whoever takes the name later keeps it.
            fs::remove_file(&path).unwrap();
            fs::write(&path, "precious").unwrap();
            drop(first);
            assert!(path.exists());
            let refused = listen_unix(&path, 0o660).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&path).unwrap(), b"precious");
        });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn connections_inherit_what_is_set_on_the_listener() {
        in_runtime(|| {
            let listener = listen(([127, 0, 0, 1], 0).into(), Duration::from_secs(77)).unwrap();
            let listener = listener.into_std().unwrap();
            listener.set_nonblocking(false).unwrap();
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let accepted = SockRef::from(&accepted);
            let timeout = accepted.tcp_user_timeout().unwrap();
            assert_eq!(timeout, Some(Duration::from_secs(77)));
            assert!(accepted.tcp_nodelay().unwrap());
        });
    }
}
