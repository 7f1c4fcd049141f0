//! A tool's end of the API: over the admin socket, or over HTTP with the token.
//!
//! Calls block until the answer is there. Does not know: what the paths mean.

use super::error::ErrorBody;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Where the broker is asked.
#[derive(Clone)]
pub enum Door {
    /// Its admin socket, on this machine.
    Socket(PathBuf),
    /// Its HTTP port.
    Http {
        /// Host and port.
        authority: String,
        /// The token of the API.
        token: String,
    },
}

impl std::fmt::Display for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Http { authority, .. } => write!(f, "http://{authority}"),
        }
    }
}

/// The broker could not be asked, or did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no broker answers at {0}")]
    Nobody(String),
    /// Only the broker's user and root may.
    #[error("{0}: only the user that runs the broker, and root, may use the admin socket")]
    Denied(String),
    /// The connection broke.
    #[error("the broker went away before it had finished: {0}")]
    Broken(String),
    /// Somebody listens, and says nothing.
    #[error("{0} does not answer within {1} s")]
    Silent(String, u64),
    /// It answered something else.
    #[error("what answers at {0} is no MoteMQ, or of another release: {1}")]
    Stranger(String, String),
    /// It said no.
    #[error("{}", said(.0))]
    Refused(ErrorBody),
    /// This machine does not let us ask.
    #[error("cannot ask the broker: {0}")]
    Local(io::Error),
}

fn said(body: &ErrorBody) -> String {
    let mut text = body.message.clone();
    if let Some(hint) = &body.hint {
        text.push_str(": ");
        text.push_str(hint);
    }
    text
}

impl ClientError {
    /// What the broker said, when it said no: a word in snake case.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(body) => Some(&body.code),
            _ => None,
        }
    }
}

/// Asks one broker.
pub struct Client {
    door: Door,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Will ask at `door`.
    ///
    /// # Errors
    /// When the system is out of descriptors.
    pub fn new(door: Door) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ClientError::Local)?;
        Ok(Self { door, runtime })
    }

    /// Where it asks.
    #[must_use]
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Reads `path`, below `/api/v1`.
    ///
    /// # Errors
    /// When there is no broker, it goes away, says no, or says something else.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, None)
    }

    /// Has `path` done.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(Method::POST, path, Some(self.json(body)?))
    }

    /// Sets `path`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(Method::PUT, path, Some(self.json(body)?))
    }

    /// Removes `path`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.ask(Method::DELETE, path, None)
    }

    /// Follows the server-sent events of `path` until `take` breaks off or the broker ends them.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn follow(
        &self,
        path: &str,
        mut take: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let path = format!("{V1}{path}");
            let response = self.request(Method::GET, &path, None).await?;
            let mut body = self.expect_success(response).await?;
            let mut text = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| ClientError::Broken(error.to_string()))?;
                text.extend_from_slice(frame.data_ref().map_or(&[], |bytes| &bytes[..]));
                let mut start = 0;
                while let Some(length) = text[start..].iter().position(|byte| *byte == b'\n') {
                    let line = String::from_utf8_lossy(&text[start..start + length]);
                    start += length + 1;
                    if let Some(data) = line.strip_prefix("data:")
                        && take(data.trim()).is_break()
                    {
                        return Ok(());
                    }
                }
                text.drain(..start);
            }
            Ok(())
        })
    }

    /// Reads the whole path `path`, as `/readyz`, within `time`: the status of the answer, and its text.
    ///
    /// # Errors
    /// When there is no broker, it goes away or does not answer in time.
    pub fn probe(&self, path: &str, time: Duration) -> Result<(u16, String), ClientError> {
        let answer = async {
            let response = self.request(Method::GET, path, None).await?;
            let status = response.status().as_u16();
            let body = self.whole(response.into_body()).await?;
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        let answered = self
            .runtime
            .block_on(async { tokio::time::timeout(time, answer).await });
        answered.unwrap_or_else(|_| Err(ClientError::Silent(self.door.to_string(), time.as_secs())))
    }

    fn json(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        let json = serde_json::to_vec(body).map_err(|error| self.stranger(&error))?;
        Ok(json.into())
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<T, ClientError> {
        self.runtime.block_on(async {
            let path = format!("{V1}{path}");
            let response = self.request(method, &path, body).await?;
            let body = self.expect_success(response).await?;
            let body = self.whole(body).await?;
            // Where there is nothing to say, what says nothing.
            let body = if body.is_empty() { b"null" } else { &body[..] };
            serde_json::from_slice(body).map_err(|error| self.stranger(&error))
        })
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder().method(method).uri(path);
        request = match &self.door {
            Door::Socket(_) => request.header(HOST, "localhost"),
            Door::Http { authority, token } => request
                .header(HOST, authority)
                .header(AUTHORIZATION, format!("Bearer {token}")),
        };
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| self.stranger(&error))?;
        match &self.door {
            Door::Socket(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|error| self.unreached(&error))?;
                send(stream, request).await
            }
            Door::Http { authority, .. } => {
                let connected =
                    tokio::time::timeout(CONNECT_TIME, TcpStream::connect(authority)).await;
                let stream = connected
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                    .map_err(|error| self.unreached(&error))?;
                send(stream, request).await
            }
        }
    }

    async fn expect_success(&self, response: Response<Incoming>) -> Result<Incoming, ClientError> {
        let status = response.status();
        let body = response.into_body();
        if status.is_success() {
            return Ok(body);
        }
        let body = self.whole(body).await?;
        match serde_json::from_slice(&body) {
            Ok(body) => Err(ClientError::Refused(body)),
            Err(_) => Err(self.stranger(&status)),
        }
    }

    async fn whole(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| ClientError::Broken(error.to_string()))?;
        Ok(body.to_bytes())
    }

    fn unreached(&self, error: &io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Denied(self.door.to_string()),
            _ => ClientError::Nobody(self.door.to_string()),
        }
    }

    fn stranger(&self, error: &impl ToString) -> ClientError {
        ClientError::Stranger(self.door.to_string(), error.to_string())
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, ClientError> {
    let broken = |error: hyper::Error| ClientError::Broken(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with the answer; what goes wrong the answer says.
    tokio::spawn(async move { drop(connection.await) });
    sender.send_request(request).await.map_err(broken)
}

/// `path` with what stands behind the `?`: the fields of `params` that are not `None`.
pub fn with_params(path: &str, params: &impl Serialize) -> String {
    match serde_urlencoded::to_string(params) {
        Ok(params) if !params.is_empty() => format!("{path}?{params}"),
        _ => path.to_owned(),
    }
}

/// `text` as one segment of a path.
#[must_use]
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// What needs no escape in a segment (RFC 3986 section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Where the paths of the API start.
const V1: &str = "/api/v1";
/// How long a connection to the HTTP port may take.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Longest answer that is taken, streams apart.
const ANSWER_BYTES_MAX: usize = 256 << 20;
