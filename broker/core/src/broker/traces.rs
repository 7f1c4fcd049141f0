//! Opening and closing traces. Does not know: what they show.

use super::Broker;
use crate::trace::{TooManyTraces, Trace, TraceFilter, TraceLimits, Traces};
use std::sync::Arc;

impl Broker {
    /// Opens a trace: what is decoded and encoded from now on is in it. Whoever opened it [closes](Self::close_trace) it.
    ///
    /// # Errors
    /// When `traces_max` are open.
    pub fn open_trace(
        &self,
        filter: TraceFilter,
        limits: TraceLimits,
        traces_max: usize,
    ) -> Result<Arc<Trace>, TooManyTraces> {
        self.traces.open(filter, limits, traces_max)
    }

    /// Ends a trace.
    pub fn close_trace(&self, trace: &Arc<Trace>) {
        self.traces.close(trace);
    }

    #[inline]
    pub(crate) fn traces(&self) -> &Traces {
        &self.traces
    }
}
