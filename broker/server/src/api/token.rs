//! The token that the HTTP port asks for: 256 random bits in a file that only the broker's user may read.
//!
//! Promises: made at the first start; never logged, never shown; compared without regard to where it differs.

use super::error::ApiError;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rand::RngExt as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a request must show.
#[derive(Clone)]
pub(crate) struct Token(Arc<str>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// The token cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file.
    #[error("the token of the API, {path} (http.token_file): {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("the token of the API, {0} (http.token_file), may be read by others: chmod 600 {0}")]
    Open(PathBuf),
    /// It is no token.
    #[error(
        "{path} (http.token_file) holds no token: at least {TOKEN_CHARS_MIN} letters, digits, - and _ are asked for; remove the file and a new one is made"
    )]
    Weak {
        /// Which.
        path: PathBuf,
    },
}

impl Token {
    /// Reads the token in `path`, or makes one there.
    pub(crate) fn open(path: &Path) -> Result<Self, TokenError> {
        match Self::read(path) {
            Err(TokenError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Self::make(path).map_err(|source| TokenError::File {
                    path: path.to_owned(),
                    source,
                })
            }
            read => read,
        }
    }

    fn read(path: &Path) -> Result<Self, TokenError> {
        let error = |source| TokenError::File {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(error)?;
        if file.metadata().map_err(error)?.permissions().mode() & 0o077 != 0 {
            return Err(TokenError::Open(path.to_owned()));
        }
        let mut text = String::new();
        file.take(TOKEN_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(error)?;
        let token = text.trim();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        match token.len() >= TOKEN_CHARS_MIN && token.bytes().all(is_plain) {
            true => Ok(Self(token.into())),
            false => Err(TokenError::Weak {
                path: path.to_owned(),
            }),
        }
    }

    fn make(path: &Path) -> std::io::Result<Self> {
        let token = BASE64_URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 32]>());
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        Ok(Self(token.into()))
    }

    /// Whether this is the token.
    pub(crate) fn is(&self, shown: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(shown.as_bytes(), self.0.as_bytes())
            .is_ok()
    }
}

/// Lets pass who shows the token.
pub(crate) async fn ask(
    State(token): State<Option<Token>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = token else {
        return ApiError::new(
            StatusCode::FORBIDDEN,
            "no_token",
            "this broker has no token for its API: it has no data_dir, or http.token_file is \"\"",
        )
        .with_hint("set http.token_file to an absolute path, or use the admin socket")
        .into_response();
    };
    let shown = request.headers().get(header::AUTHORIZATION);
    let shown = shown.and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.split_once(' '));
    match shown {
        Some((scheme, shown))
            if scheme.eq_ignore_ascii_case("bearer") && token.is(shown.trim()) =>
        {
            next.run(request).await
        }
        _ => {
            let refused = ApiError::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "the API asks for its token",
            )
            .with_hint("send \"Authorization: Bearer TOKEN\" with what is in http.token_file (data_dir/api.token)");
            ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response()
        }
    }
}

/// A token has at least this many characters: 128 bits of our alphabet.
const TOKEN_CHARS_MIN: usize = 22;
/// A token file is not longer.
const TOKEN_BYTES_MAX: u64 = 4096;
