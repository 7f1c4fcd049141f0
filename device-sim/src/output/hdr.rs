//! The latencies of every second as an HdrHistogram interval log, version 1.3, in microseconds.
//!
//! A tag for each cohort and figure: `meters.ack`, `meters.delivery`, and at the end of the run
//! `meters.connect`, `meters.reconnect`, `meters.lag` over the whole of it. HdrHistogram's own tools read it.

use super::{OutputFile, failed};
use crate::SimError;
use crate::ledger::Interval;
use crate::world::World;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use std::io::{self, Write};
use std::time::Duration;

/// The log writes its largest values in milliseconds, for people.
const MICROS_PER_UNIT: f64 = 1_000.0;

/// A log in the making.
pub(super) struct HdrLog {
    file: OutputFile,
    serializer: V2DeflateSerializer,
    written_until: Duration,
}

impl HdrLog {
    pub(super) fn begin(mut file: OutputFile, world: &World) -> Result<Self, SimError> {
        let started_s = world.clock.started_at().as_secs_f64();
        let plan = &world.plan;
        let head = format!(
            "#[motemq-sim {}: run {}, seed {}; values in microseconds, maxima in milliseconds]\n\
             #[Histogram log format version 1.3]\n\
             #[StartTime: {started_s:.3} (seconds since epoch)]\n\
             #[BaseTime: {started_s:.3} (seconds since epoch)]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
            env!("CARGO_PKG_VERSION"),
            plan.run,
            plan.seed,
        );
        let written = file.write_all(head.as_bytes());
        written.map_err(|source| failed(file.path(), source))?;
        Ok(Self {
            file,
            serializer: V2DeflateSerializer::new(),
            written_until: Duration::ZERO,
        })
    }

    /// Writes the latencies since the last call, one [`Interval`] for each cohort.
    pub(super) fn write(
        &mut self,
        world: &World,
        now: Duration,
        intervals: &[Interval],
    ) -> Result<(), SimError> {
        let begin = self.written_until;
        self.written_until = now;
        for (troop, interval) in world.troops.iter().zip(intervals) {
            let name = &troop.cohort.name;
            self.write_histogram(name, "ack", begin, now, &interval.ack_latency)?;
            self.write_histogram(name, "delivery", begin, now, &interval.delivery_latency)?;
        }
        Ok(())
    }

    /// Writes what was measured over the whole run.
    pub(super) fn finish(mut self, world: &World) -> Result<(), SimError> {
        let (begin, end) = (Duration::ZERO, self.written_until);
        for troop in &world.troops {
            let name = &troop.cohort.name;
            let lag = troop.ledger().generator_lag.clone();
            let (first, away) = {
                let connects = troop.connects();
                (connects.first.clone(), connects.away.clone())
            };
            self.write_histogram(name, "connect", begin, end, &first)?;
            self.write_histogram(name, "reconnect", begin, end, &away)?;
            self.write_histogram(name, "lag", begin, end, &lag)?;
        }
        let path = self.file.path().to_owned();
        self.file.commit().map_err(|source| failed(&path, source))
    }

    fn write_histogram(
        &mut self,
        cohort: &str,
        figure: &str,
        begin: Duration,
        end: Duration,
        histogram: &Histogram<u64>,
    ) -> Result<(), SimError> {
        if histogram.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let serialized = self.serializer.serialize(histogram, &mut bytes);
        let written = match serialized {
            Ok(_) => writeln!(
                self.file,
                "Tag={}.{figure},{:.3},{:.3},{:.3},{}",
                tag(cohort),
                begin.as_secs_f64(),
                end.saturating_sub(begin).as_secs_f64(),
                histogram.max() as f64 / MICROS_PER_UNIT,
                BASE64_STANDARD.encode(&bytes),
            ),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        written.map_err(|source| failed(self.file.path(), source))
    }
}

/// A name as a tag, which would end at a comma or at white space: these are written as in URLs, so that tags differ
/// where names do.
fn tag(name: &str) -> String {
    let mut tag = String::with_capacity(name.len());
    for letter in name.chars() {
        if letter == ',' || letter == '%' || letter.is_whitespace() {
            for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
                tag += &format!("%{byte:02X}");
            }
        } else {
            tag.push(letter);
        }
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::record::Recorder;
    use crate::report::sample::{HOSTILE, world};
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn names_that_differ_have_tags_that_differ() {
        for (name, expected) in [("a,b", "a%2Cb"), ("a b", "a%20b"), ("a%20b", "a%2520b")] {
            assert_eq!(tag(name), expected);
        }
    }

    #[test]
    fn the_log_is_one_that_hdrhistogram_reads() {
        let world = world(HOSTILE);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.hlog");
        let mut log = HdrLog::begin(OutputFile::create(&path).unwrap(), &world).unwrap();
        let mut recorder = Recorder::new();
        for second in [1, 2] {
            let now = Duration::from_secs(second);
            let intervals = recorder.record(&world, now);
            log.write(&world, now, &intervals).unwrap();
        }
        log.finish(&world).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let entries: Vec<_> = IntervalLogIterator::new(&bytes)
            .collect::<Result<_, _>>()
            .unwrap();
        let mut tags = Vec::new();
        for entry in &entries {
            if let LogEntry::Interval(interval) = entry {
                let tag = interval.tag().unwrap().as_str().to_owned();
                let encoded = BASE64_STANDARD
                    .decode(interval.encoded_histogram())
                    .unwrap();
                let histogram: Histogram<u64> = Deserializer::new()
                    .deserialize(&mut encoded.as_slice())
                    .unwrap();
                if tag == "meters.ack" {
                    assert_eq!(histogram.len(), 50);
                    assert_eq!(interval.duration(), Duration::from_secs(1));
                    assert!((interval.max() * 1_000.0 - histogram.max() as f64).abs() < 1.0);
                }
                tags.push(tag);
            }
        }
        let second = tag(HOSTILE);
        let mut expected = vec!["meters.ack".to_owned(), "meters.delivery".to_owned()];
        expected.extend([format!("{second}.ack"), format!("{second}.delivery")]);
        for cohort in ["meters", &second] {
            expected
                .extend(["connect", "reconnect", "lag"].map(|figure| format!("{cohort}.{figure}")));
        }
        assert_eq!(tags, expected);
        let times = entries
            .iter()
            .filter(|entry| matches!(entry, LogEntry::StartTime(_) | LogEntry::BaseTime(_)));
        assert_eq!(times.count(), 2);
    }
}
