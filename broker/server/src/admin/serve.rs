//! The broker's end of the admin socket.
//!
//! A job has a thread of its own: it reads a view of the store while the writer goes on. One job at a time, because each
//! keeps the pages of its view from being used again.

use super::protocol::{Answer, Failure, REQUEST_BYTES_MAX, Request};
use crate::ban::Ban;
use crate::clock;
use crate::reload::{Mistakes, Reloaded};
use crate::server::{Server, StartError};
use crate::store::StoreError;
use crate::store::tools::{self, ToolError};
use rustix::fs::{Mode, fchmod};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

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

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes a socket that nobody listens to.
fn remove_stale(path: &Path) -> std::io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(std::io::Error::new(
            std::io::ErrorKind::AlreadyExists,
            "something else than a socket is there",
        )),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(std::io::ErrorKind::AddrInUse.into()),
            Err(_) => std::fs::remove_file(path),
        },
    }
}

fn listen(path: &Path) -> std::io::Result<UnixListener> {
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

/// Serves until it is dropped.
pub(crate) async fn serve(server: Arc<Server>, socket: AdminSocket) {
    let is_busy = Arc::new(AtomicBool::new(false));
    let mut conversations = JoinSet::new();
    loop {
        let Ok((stream, _)) = socket.listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        while conversations.try_join_next().is_some() {}
        if conversations.len() < CONVERSATIONS_MAX && is_allowed(&stream) {
            conversations.spawn(converse(server.clone(), stream, is_busy.clone()));
        }
    }
}

/// The file's mode says the same; this also holds where the path's folder was opened to others.
fn is_allowed(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn converse(server: Arc<Server>, stream: UnixStream, is_busy: Arc<AtomicBool>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(REQUEST_BYTES_MAX));
    let mut line = String::new();
    let read = tokio::time::timeout(REQUEST_TIME, reader.read_line(&mut line)).await;
    if !matches!(read, Ok(Ok(1..))) {
        return;
    }
    let answer = match serde_json::from_str(&line) {
        Ok(request) => {
            let mut more = [0];
            tokio::select! {
                answer = answer(server, request, is_busy) => answer,
                // The tool has gone: dropping the job ends it.
                _ = reader.read(&mut more) => return,
            }
        }
        Err(error) => Answer::failed(
            Failure::Request,
            format!("this broker does not understand the request: {error}"),
        ),
    };
    if let Ok(mut line) = serde_json::to_string(&answer) {
        line.push('\n');
        // A tool that does not read its answer has gone.
        let _ = tokio::time::timeout(REQUEST_TIME, writer.write_all(line.as_bytes())).await;
    }
}

async fn answer(server: Arc<Server>, request: Request, is_busy: Arc<AtomicBool>) -> Answer {
    match request {
        Request::Check | Request::Backup(_) if server.journal().is_none() => Answer::failed(
            Failure::Request,
            "this broker has no store: data_dir is \"\"",
        ),
        Request::Check | Request::Backup(_) => run(server, request, is_busy).await,
        Request::Reload => reload(&server).await,
        Request::Ban {
            subject,
            for_s,
            reason,
        } => {
            let banned = server.bans().add(subject, for_s, reason);
            server.note_change();
            done(banned)
        }
        Request::Unban(subject) => match server.bans().remove(&subject) {
            Ok(false) => Answer::failed(Failure::Request, format!("{subject} is not banned")),
            other => done(other.map(drop)),
        },
        Request::Bans => {
            let now_s = clock::now().as_ms() / 1000;
            let left = |until_s: u64| until_s.saturating_sub(now_s);
            let bans = server.bans().list().into_iter();
            let with_left = |ban: Ban| (ban.until_s.map(left), ban);
            Answer::Bans(bans.map(with_left).map(|(left, ban)| (ban, left)).collect())
        }
    }
}

fn done(result: Result<(), String>) -> Answer {
    match result {
        Ok(()) => Answer::Banned,
        Err(message) => Answer::failed(Failure::Other, message),
    }
}

/// Whoever has the configuration's sources reads them again.
async fn reload(server: &Server) -> Answer {
    match server.ask_for_reload().await {
        Some(Ok(Reloaded { changed, waiting })) => Answer::Reloaded { changed, waiting },
        Some(Err(Mistakes(mistakes))) => Answer::NotReloaded { mistakes },
        None => Answer::failed(
            Failure::Request,
            "this broker cannot be reloaded: what --dev makes up cannot be read again",
        ),
    }
}

async fn run(server: Arc<Server>, request: Request, is_busy: Arc<AtomicBool>) -> Answer {
    let Some(busy) = Busy::claim(is_busy) else {
        let message = "another backup or check is running: try again when it has finished";
        return Answer::failed(Failure::Busy, message);
    };
    let is_ended = EndOnDrop::default();
    let (done, answer) = oneshot::channel();
    let job = {
        let is_ended = is_ended.0.clone();
        move || {
            let answer = work(&server, &request, is_ended);
            drop(busy);
            // Nobody waits any more when the tool has gone.
            let _ = done.send(answer.unwrap_or_else(|error| Answer::from_error(&error)));
        }
    };
    let thread = std::thread::Builder::new().name("store-tool".to_owned());
    if let Err(error) = thread.spawn(job) {
        return Answer::failed(Failure::Other, error.to_string());
    }
    answer.await.unwrap_or_else(|_| {
        let message = "the job ended with a bug of the broker; its log has more";
        Answer::failed(Failure::Other, message)
    })
}

fn work(
    server: &Server,
    request: &Request,
    is_ended: Arc<AtomicBool>,
) -> Result<Answer, ToolError> {
    let journal = server.journal().ok_or(StoreError::Interrupted)?;
    let mut snapshot = journal.snapshot()?.until(is_ended);
    match request {
        Request::Check => {
            let report = tools::check(&mut snapshot)?;
            tracing::info!(findings = report.damage_count, "store checked");
            Ok(Answer::Checked(report))
        }
        Request::Backup(file) => match tools::backup(&snapshot, file) {
            Ok(copied) => {
                tracing::info!(file = %file.display(), bytes = copied.bytes, "store backed up");
                Ok(Answer::BackedUp {
                    rows: copied.rows,
                    bytes: copied.bytes,
                })
            }
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "store not backed up");
                Err(error)
            }
        },
        // They are no jobs.
        Request::Reload | Request::Ban { .. } | Request::Unban(_) | Request::Bans => {
            Err(StoreError::Interrupted.into())
        }
    }
}

/// The one job at a time.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn claim(is_busy: Arc<AtomicBool>) -> Option<Self> {
        (!is_busy.swap(true, Ordering::AcqRel)).then(|| Self(is_busy))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Ends a job that nobody waits for.
#[derive(Default)]
struct EndOnDrop(Arc<AtomicBool>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Tools that the kernel may hold before they are accepted.
const BACKLOG: i32 = 16;
/// Tools served at a time; more are hung up on.
const CONVERSATIONS_MAX: usize = 8;
/// A request must be complete, and an answer taken, within this.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
