//! The admin socket: a Unix socket that only the broker's user (and root) may open, with mode 0600 from the moment it exists.

use crate::auth::PeerAddress;
use crate::server::StartError;
use axum::serve::Listener;
use rustix::fs::{Mode, fchmod};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};

/// A socket that is there as long as the broker.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Makes the socket at `path`; one that a broker before has left is replaced.
    ///
    /// # Errors
    /// When something else is at the path, or the system refuses.
    pub(crate) fn bind(path: &Path) -> Result<Self, StartError> {
        let error = |source| StartError::AdminSocket {
            path: path.to_owned(),
            source,
        };
        remove_stale(path).map_err(error)?;
        let listener = listen(path).map_err(error)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }
}

impl Listener for AdminSocket {
    type Io = UnixStream;
    type Addr = PeerAddress;

    async fn accept(&mut self) -> (UnixStream, PeerAddress) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if is_allowed(&stream) => {
                    let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                    return (stream, PeerAddress::Unix { uid });
                }
                Ok(_) => {}
                // Out of descriptors, most likely.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<PeerAddress> {
        Ok(PeerAddress::Unix { uid: None })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes a socket that nobody listens to.
fn remove_stale(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something else than a socket is there",
        )),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => std::fs::remove_file(path),
        },
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    use socket2::{Domain, SockAddr, Socket, Type};
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux gives the mode of the socket to the file that `bind` makes, so that there is no moment in which others may
    // connect. (The umask is the process's, and other threads make files.)
    let mode = Mode::RUSR | Mode::WUSR;
    fchmod(&socket, mode)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(mode.as_raw_mode());
    std::fs::set_permissions(path, private)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

/// The file's mode says the same; this also holds where the path's folder was opened to others.
fn is_allowed(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// Tools that the kernel may hold before they are accepted.
const BACKLOG: i32 = 16;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
