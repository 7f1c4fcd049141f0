//! How a run went, second by second.
//!
//! Invariant: there are at most [`SAMPLES_MAX`] samples. When there would be more, two become one and the
//! samples that follow cover twice the time: a run of any length has a timeline of bounded size.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// Twenty minutes at full resolution.
const SAMPLES_MAX: usize = 1_200;

/// Rates over less than this say nothing.
const SHORT_S: f64 = 0.3;

/// How a run went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    samples: Vec<Sample>,
    /// Samples handed in that one kept covers.
    merged: u32,
    /// What has been handed in and is no full sample yet.
    open: Option<(u32, Sample)>,
}

/// What happened since the sample before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Its end, since the start of the run.
    pub at_s: f64,
    /// Devices connected at its end.
    pub up: u64,
    /// Readings taken.
    pub published: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Connections after a device's first.
    pub reconnects: u64,
    /// Connections that failed or broke.
    pub connection_failures: u64,
    /// Bytes from devices.
    pub up_bytes: u64,
    /// Bytes to devices.
    pub down_bytes: u64,
    /// The median from a due reading to its acknowledgement, seconds.
    pub ack_p50_s: Option<f64>,
    /// Its 99th percentile.
    pub ack_p99_s: Option<f64>,
    /// The median from a due reading to its delivery, seconds.
    pub delivery_p50_s: Option<f64>,
    /// Its 99th percentile.
    pub delivery_p99_s: Option<f64>,
}

impl Timeline {
    /// Appends a sample of about a second; a much shorter one, such as the last, joins the one before.
    pub(crate) fn push(&mut self, sample: Sample) {
        if self.open.is_none()
            && let Some(last) = self.samples.last_mut()
            && sample.at_s - last.at_s < SHORT_S
        {
            *last = std::mem::take(last).joined(sample);
            return;
        }
        let per_sample = self.merged.max(1);
        let (parts, sample) = match self.open.take() {
            Some((parts, open)) => (parts + 1, open.joined(sample)),
            None => (1, sample),
        };
        if parts < per_sample {
            self.open = Some((parts, sample));
            return;
        }
        self.samples.push(sample);
        if self.samples.len() > SAMPLES_MAX {
            let mut rest = std::mem::take(&mut self.samples).into_iter();
            while let Some(first) = rest.next() {
                match rest.next() {
                    Some(second) => self.samples.push(first.joined(second)),
                    None => self.open = Some((per_sample, first)),
                }
            }
            self.merged = per_sample * 2;
        }
    }

    /// The samples, in the order of time.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> + Clone {
        let open = self.open.as_ref().map(|(_, sample)| sample);
        self.samples.iter().chain(open)
    }

    /// About how many seconds a sample covers.
    #[must_use]
    pub fn interval_s(&self) -> u32 {
        self.merged.max(1)
    }

    /// The samples with the seconds that each covers.
    pub fn spans(&self) -> impl Iterator<Item = (f64, &Sample)> {
        let ends = std::iter::once(0.0).chain(self.samples().map(|sample| sample.at_s));
        ends.zip(self.samples())
            .map(|(begin, sample)| ((sample.at_s - begin).max(0.001), sample))
    }
}

impl Sample {
    /// Both; of a percentile the larger, of a median the mean.
    fn joined(self, later: Self) -> Self {
        let either = |first: Option<f64>, second: Option<f64>, both: fn(f64, f64) -> f64| match (
            first, second,
        ) {
            (Some(first), Some(second)) => Some(both(first, second)),
            (first, second) => first.or(second),
        };
        let mean = |first, second| f64::midpoint(first, second);
        Self {
            at_s: later.at_s,
            up: later.up,
            published: self.published + later.published,
            acknowledged: self.acknowledged + later.acknowledged,
            delivered: self.delivered + later.delivered,
            reconnects: self.reconnects + later.reconnects,
            connection_failures: self.connection_failures + later.connection_failures,
            up_bytes: self.up_bytes + later.up_bytes,
            down_bytes: self.down_bytes + later.down_bytes,
            ack_p50_s: either(self.ack_p50_s, later.ack_p50_s, mean),
            ack_p99_s: either(self.ack_p99_s, later.ack_p99_s, f64::max),
            delivery_p50_s: either(self.delivery_p50_s, later.delivery_p50_s, mean),
            delivery_p99_s: either(self.delivery_p99_s, later.delivery_p99_s, f64::max),
        }
    }
}

impl Serialize for Timeline {
    /// By column, which is a third of the size.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn column<T>(timeline: &Timeline, of: impl Fn(&Sample) -> T) -> Vec<T> {
            timeline.samples().map(of).collect()
        }
        let micros = |seconds: f64| (seconds * 1e6).round() / 1e6;
        let mut columns = serializer.serialize_struct("Timeline", 14)?;
        columns.serialize_field("interval_s", &self.interval_s())?;
        columns.serialize_field("at_s", &column(self, |sample| micros(sample.at_s)))?;
        columns.serialize_field("up", &column(self, |sample| sample.up))?;
        columns.serialize_field("published", &column(self, |sample| sample.published))?;
        columns.serialize_field("acknowledged", &column(self, |sample| sample.acknowledged))?;
        columns.serialize_field("delivered", &column(self, |sample| sample.delivered))?;
        columns.serialize_field("reconnects", &column(self, |sample| sample.reconnects))?;
        let failures = column(self, |sample| sample.connection_failures);
        columns.serialize_field("connection_failures", &failures)?;
        columns.serialize_field("up_bytes", &column(self, |sample| sample.up_bytes))?;
        columns.serialize_field("down_bytes", &column(self, |sample| sample.down_bytes))?;
        columns.serialize_field("ack_p50_s", &column(self, |sample| sample.ack_p50_s))?;
        columns.serialize_field("ack_p99_s", &column(self, |sample| sample.ack_p99_s))?;
        let medians = column(self, |sample| sample.delivery_p50_s);
        columns.serialize_field("delivery_p50_s", &medians)?;
        let percentiles = column(self, |sample| sample.delivery_p99_s);
        columns.serialize_field("delivery_p99_s", &percentiles)?;
        columns.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_a_timeline_of_bounded_size_that_forgets_nothing() {
        let mut timeline = Timeline::default();
        let day_s = 86_400_u32;
        for second in 1..=day_s {
            timeline.push(Sample {
                at_s: f64::from(second),
                up: second.into(),
                published: 2,
                delivery_p99_s: Some(f64::from(second)),
                ..Sample::default()
            });
            assert!(timeline.samples().count() <= SAMPLES_MAX + 1);
        }
        assert!(timeline.samples().count() > SAMPLES_MAX / 2);
        assert_eq!(timeline.interval_s(), 128);
        let published: u64 = timeline.samples().map(|sample| sample.published).sum();
        assert_eq!(published, 2 * u64::from(day_s));
        let last = timeline.samples().last().unwrap();
        assert_eq!((last.at_s, last.up), (86_400.0, 86_400));
        assert_eq!(last.delivery_p99_s, Some(86_400.0));
        let covered: f64 = timeline.spans().map(|(span_s, _)| span_s).sum();
        assert_eq!(covered, 86_400.0);
    }

    #[test]
    fn a_short_run_keeps_every_second() {
        let mut timeline = Timeline::default();
        for second in 1..=10 {
            timeline.push(Sample {
                at_s: f64::from(second),
                ..Sample::default()
            });
        }
        assert_eq!((timeline.samples().count(), timeline.interval_s()), (10, 1));
        let json = serde_json::to_value(&timeline).unwrap();
        assert_eq!(json["at_s"][9], 10.0);
        assert!(json["ack_p50_s"][0].is_null());
    }
}
