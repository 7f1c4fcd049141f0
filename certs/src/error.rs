//! What can go wrong, each with what to change.

use crate::{Kind, RequestError};
use std::io;
use std::path::PathBuf;

/// Why a certificate could not be issued, read or written.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file that would be written is there already; nothing was changed.
    #[error(
        "{} exists and is never overwritten: move it away or choose another directory",
        .0.display()
    )]
    AlreadyExists(PathBuf),
    /// There is no authority in this directory.
    #[error(
        "{} has no ca.crt and ca.key: create them with `motemq-certs init`, or name their directory",
        .0.display()
    )]
    NoAuthority(PathBuf),
    /// Only one of the authority's two files is there.
    #[error(
        "{} is missing beside {}: restore it from a backup, or move the other away and start anew",
        .missing.display(), .present.display()
    )]
    Incomplete {
        /// The file that is there.
        present: PathBuf,
        /// The file that should be beside it.
        missing: PathBuf,
    },
    /// The file in the place of the authority's key is none.
    #[error(
        "{} is no private key in PEM, or is encrypted: restore it, or decrypt it with `openssl pkcs8 -in FILE -out NEW`",
        .0.display()
    )]
    NotAKey(PathBuf),
    /// The authority's key does not belong to its certificate.
    #[error("{} is not the key of {}: restore the pair from one backup", .key.display(), .certificate.display())]
    KeyMismatch {
        /// The private key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The certificate in the authority's place may not sign others.
    #[error("{} is not the certificate of an authority: use one made with `motemq-certs init`", .0.display())]
    NotAnAuthority(PathBuf),
    /// The authority's own validity has ended.
    #[error("{} has expired: create a new authority in another directory", .0.display())]
    AuthorityExpired(PathBuf),
    /// A device id that cannot be a common name and a client id.
    #[error("id {id:?} {problem}: choose another id")]
    DeviceId {
        /// The id as given.
        id: String,
        /// Which rule it breaks.
        problem: &'static str,
    },
    /// A kind of key that is not made here.
    #[error("key type {0:?} is unknown: choose p256, p384, ed25519 or rsa2048")]
    KeyType(String),
    /// A public key that no certificate is issued for.
    #[error("not a usable public key: {0}")]
    PublicKey(String),
    /// A certificate signing request that is not signed.
    #[error("request refused: {0}")]
    Request(#[from] RequestError),
    /// A validity that is neither a number of days nor without end.
    #[error("{0:?} is no validity: give a number of days from 1 to 36524, or `forever`")]
    Validity(String),
    /// A validity that is neither a number of years nor without end.
    #[error("{0:?} is no validity: give a number of years from 1 to 100, or `forever`")]
    Years(String),
    /// What an authority is to be held to is no DNS name.
    #[error("{0:?} is no DNS name: give one like acme.example, which includes every name below it")]
    PermittedName(String),
    /// What an authority is to be held to is no network.
    #[error("{0:?} is no network: give one like 10.0.0.0/8, or an address")]
    PermittedNetwork(String),
    /// A field that a subject does not get.
    #[error("subject field {0:?} is unknown: O and OU can be given")]
    SubjectField(String),
    /// Rows of a list of devices that cannot be used; nothing was issued.
    #[error("{}: nothing was issued, correct these first:{faults}", .path.display())]
    Rows {
        /// The list.
        path: PathBuf,
        /// What is wrong, each on a line of its own.
        faults: String,
    },
    /// Files that a batch can neither take for its own nor write; nothing was issued.
    #[error("{}: nothing was issued, move these away first:{files}", .directory.display())]
    InTheWay {
        /// Where they lie.
        directory: PathBuf,
        /// Which they are, each on a line of its own.
        files: String,
    },
    /// Another batch works in the directory.
    #[error("{}: another batch is writing to this directory: wait until it is done", .0.display())]
    BatchRuns(PathBuf),
    /// The file in the manifest's place is another one.
    #[error("{} is no manifest, or one that tells of devices that this batch is not about: name another file", .0.display())]
    OtherManifest(PathBuf),
    /// A form that has no place for an intermediate.
    #[error("--chain needs --format pem or p12: the others hold one certificate")]
    ChainFormat,
    /// A PKCS #12 file needs a password.
    #[error(
        "--format p12 needs a password: name a file with --p12-password-file, or set MOTEMQ_P12_PASSWORD"
    )]
    P12Password,
    /// A PKCS #12 file could not be made.
    #[error("the PKCS #12 file cannot be made: {0}")]
    Pkcs12(String),
    /// A thread that issued certificates ended early.
    #[error("a thread that issued certificates ended early: run the same command again")]
    Worker,
    /// Attributes that the inventory does not keep.
    #[error("attributes: {0}: give fewer or shorter ones")]
    Attributes(&'static str),
    /// A value that cannot stand in a subject.
    #[error("subject value {value:?} {problem}: choose another value")]
    SubjectValue {
        /// The value as given.
        value: String,
        /// Which rule it breaks.
        problem: &'static str,
    },
    /// The authority is held to names, and this is none of them.
    #[error("{name} is outside of what {} is permitted to issue ({permitted}): choose another name or another authority", .authority.display())]
    NotPermitted {
        /// The name that is not permitted.
        name: String,
        /// The authority's certificate.
        authority: PathBuf,
        /// What it is permitted.
        permitted: String,
    },
    /// The intermediate was not signed by the root beside it.
    #[error("{} was not signed by {}: restore the pair from one backup", .certificate.display(), .root.display())]
    NotItsRoot {
        /// The intermediate's certificate.
        certificate: PathBuf,
        /// The root's certificate.
        root: PathBuf,
    },
    /// A name that is neither a DNS name nor an IP address.
    #[error(
        "{name:?} is neither a DNS name nor an IP address: give names like broker.example or 10.0.0.5"
    )]
    ServerName {
        /// The name as given.
        name: String,
    },
    /// A server certificate needs a name.
    #[error("a server certificate needs at least one DNS name or IP address")]
    NoServerName,
    /// A name for the authority that cannot be a common name.
    #[error("authority name {name:?} {problem}: choose another name")]
    AuthorityName {
        /// The name as given.
        name: String,
        /// Which rule it breaks.
        problem: &'static str,
    },
    /// Text that should be a PEM certificate is not.
    #[error("not a PEM certificate: {0}")]
    NotACertificate(String),
    /// A file or directory could not be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The authority's inventory is gone.
    #[error(
        "{} is gone: restore it from a backup; if it is lost for good, an empty file in its place lets you go on, but brokers with allow_list = that file \
         then admit only what is issued from now on",
        .0.display()
    )]
    InventoryLost(PathBuf),
    /// A private key that others may read.
    #[error("{} is open to others (mode {mode:04o}); run: chmod 600 {}", .path.display(), .path.display())]
    OpenKey {
        /// The key's file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A folder that is not made for the user: it may be a disk that is not mounted.
    #[error("the folder {} does not exist: make or mount it first", .0.display())]
    NoFolder(PathBuf),
    /// Another process keeps the inventory or the tokens to itself.
    #[error("{} has been locked by another process for 20 seconds: see which one with `fuser {}`, and end it if it hangs", .0.display(), .0.display())]
    Locked(PathBuf),
    /// A line of the inventory or of the tokens cannot be read.
    #[error("{} line {line} cannot be read: {problem}; restore the file from a backup, or correct the line", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// Nobody to make tokens for.
    #[error("no device is named: give ids, --from FILE, or --count N with --prefix P")]
    NoIds,
    /// A line of the inventory could not be encoded.
    #[error("the inventory entry cannot be encoded: {0}")]
    Inventory(#[from] serde_json::Error),
    /// The same, from a file.
    #[error("{}: request refused: {source}", .path.display())]
    RequestFile {
        /// Which file.
        path: PathBuf,
        /// The rule that it breaks.
        source: RequestError,
    },
    /// The device has this certificate already.
    #[error("{} is for this key already: to renew it before it ends, add --replace", .0.display())]
    HasCertificate(PathBuf),
    /// The device has a certificate for another key.
    #[error(
        "{} is for another key: to put one for the request's key in its place, sign that request alone with --replace",
        .0.display()
    )]
    HasOtherCertificate(PathBuf),
    /// A private key lies where a certificate for another key would go.
    #[error("{} is the key of the certificate that is there, and not of the request: move it away, or choose another id", .0.display())]
    KeyBeside(PathBuf),
    /// An id for a folder of requests.
    #[error("{} is a folder: --id is for one request", .0.display())]
    OneIdForMany(PathBuf),
    /// A folder without requests.
    #[error("{} holds no file that ends in .csr", .0.display())]
    NoRequests(PathBuf),
    /// Two requests of one id.
    #[error("{}: another request here is for {id:?} too: keep one of them", .path.display())]
    SecondRequest {
        /// The second one's file.
        path: PathBuf,
        /// Whom both name.
        id: String,
    },
    /// Some of several were not done; each was named.
    #[error("{0} could not be {1}: see above")]
    NotAll(usize, &'static str),
    /// A certificate that cannot be renewed, since it was not issued here.
    #[error("{}: not a certificate that can be renewed here: {problem}", .path.display())]
    NotOurs {
        /// Which file.
        path: PathBuf,
        /// What speaks against it.
        problem: String,
    },
    /// There is no certificate of this name in the directory.
    #[error(
        "{id:?} has no certificate in {}: see `motemq-certs ls`; a device that enrolled by itself renews by itself",
        .dir.display()
    )]
    NothingToRenew {
        /// What was to be renewed.
        id: String,
        /// The authority's directory.
        dir: PathBuf,
    },
    /// What is to be renewed was revoked.
    #[error(
        "{} was revoked: to trust it again, move it and its key away and issue a new one",
        .0.display()
    )]
    RenewRevoked(PathBuf),
    /// A key of a kind that is not made here.
    #[error("{}: no new {kind} key can be made here: add --reuse-key", .path.display())]
    NoNewKey {
        /// The certificate.
        path: PathBuf,
        /// The kind of its key.
        kind: String,
    },
    /// A file in which nothing is known.
    #[error("it {0}")]
    NothingKnown(&'static str),
    /// A file that is of no use here.
    #[error("{}: {problem}", .path.display())]
    InFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A broker that cannot be asked.
    #[error("{peer}: {problem}")]
    Probe {
        /// The address as given.
        peer: String,
        /// What went wrong.
        problem: String,
    },
    /// A serial number that is none.
    #[error(
        "{0:?} is no serial number: give 1 to 20 bytes in hexadecimal, as `motemq-certs ls` shows them"
    )]
    Serial(String),
    /// A reason for a revocation that is not known.
    #[error("reason {0:?} is unknown: choose one of those in `motemq-certs revoke --help`")]
    Reason(String),
    /// Ids or serials that the inventory does not know.
    #[error(
        "nothing was revoked, the inventory does not know {}: look for it with `motemq-certs ls`; if the inventory was lost, give --serial with --force",
        listed(.0)
    )]
    NotIssued(Vec<String>),
    /// An id that has certificates of several kinds.
    #[error(
        "nothing was revoked, {id:?} is a {one} and a {other}: say which with --kind, or give --serial"
    )]
    SeveralKinds {
        /// The id.
        id: String,
        /// One kind.
        one: Kind,
        /// Another.
        other: Kind,
    },
    /// The inventory says that they are revoked, the list does not yet.
    #[error(
        "{0} certificates are revoked in the inventory, but the list could not be written: {1}; then run `motemq-certs crl`"
    )]
    RevokedButNotListed(usize, Box<Self>),
    /// Something that should be a list of revoked certificates is not.
    #[error("not a list of revoked certificates: {0}")]
    NotARevocationList(String),
    /// The authority's list cannot be read.
    #[error(
        "{}: {problem}; move it away, the next one is made from the inventory alone",
        .path.display()
    )]
    UnreadableList {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is no list yet.
    #[error("{} is not there: write it with `motemq-certs crl`", .0.display())]
    NoList(PathBuf),
    /// A table in CSV that cannot be used.
    #[error("{} line {line} {problem}", .path.display())]
    Table {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The list in the authority's place was signed by another.
    #[error("{} was signed by another authority: move it away, the next one is made from the inventory alone", .0.display())]
    ForeignList(PathBuf),
    /// Key generation or signing failed.
    #[error("key generation or signing failed: {0}")]
    Crypto(#[from] rcgen::Error),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

/// The first few, and how many more.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl CertsError {
    pub(crate) fn file(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        Self::File { path, source }
    }
}
