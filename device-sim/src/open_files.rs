//! How many files this process may open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets the process open `needed` files if the system allows it at all; else returns how many it may open.
///
/// # Errors
/// The limit.
pub(crate) fn allow_open_files(needed: u64) -> Result<(), u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Where it cannot be raised, the limit is what it was.
    let _ = setrlimit(Resource::Nofile, raised);
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => Err(limit),
        _ => Ok(()),
    }
}
