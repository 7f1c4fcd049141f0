//! Load from outside for what `bench/` measures: many cheap clients, in one thread, at one broker.
//!
//! Each file is one load: messages for sessions that are not there (`offline`), a store with much in it (`fill`), a fleet of TLS
//! devices that comes back after a crash (`fleet`), TLS clients with a little traffic (`chatter`). The scripts start the broker and
//! look at its process; a load talks to its port and prints one line of JSON.
//!
//! Does not know: configurations, how the broker is started, what is a good figure.

mod chatter;
mod client;
mod fill;
mod fleet;
mod offline;
mod options;
mod tls;

pub use chatter::chatter;
pub use fill::fill;
pub use fleet::fleet;
pub use offline::offline;
pub use options::Options;

use std::io;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::Instant;

/// The time of all loads.
fn now() -> Instant {
    Instant::now()
}

/// Runs tasks on this thread until all are done, or one has failed.
async fn at_once<F>(tasks: impl Iterator<Item = F>) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let local = LocalSet::new();
    let tasks: Vec<_> = tasks.map(|task| local.spawn_local(task)).collect();
    let done = async {
        for task in tasks {
            task.await.map_err(io::Error::other)??;
        }
        Ok(())
    };
    local.run_until(done).await
}

/// The value below which `percent` of the sorted `samples` are.
fn percentile(samples: &[u32], percent: f64) -> u32 {
    let place = (samples.len() as f64 * percent / 100.0) as usize;
    let last = samples.len().saturating_sub(1);
    samples.get(place.min(last)).copied().unwrap_or_default()
}

/// Microseconds, as much as fits.
fn us(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
