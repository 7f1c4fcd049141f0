//! What goes wrong before anybody has asked for anything: a line every ten seconds, so that scanners do not fill the log.

/// When there was a line, and how many have none since.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said_at_s: Option<i64>,
    unsaid: u64,
}

impl Complaints {
    /// The line for `why`, or `None` when it is only counted.
    pub(super) fn line(&mut self, why: &str, now_s: i64) -> Option<String> {
        let since_s = self.said_at_s.map(|said_at_s| now_s.abs_diff(said_at_s));
        if since_s.is_some_and(|since_s| since_s < INTERVAL_S) {
            self.unsaid += 1;
            return None;
        }
        self.said_at_s = Some(now_s);
        let line = match std::mem::take(&mut self.unsaid) {
            0 => format!("EST: {why}"),
            more => format!("EST: {why}; {more} more like this before"),
        };
        Some(line)
    }
}

const INTERVAL_S: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_there_is_one_line() {
        let mut complaints = Complaints::default();
        let lines = (100..105).filter_map(|now_s| complaints.line("why", now_s));
        assert_eq!(lines.count(), 1);
        let line = complaints.line("why", 110).unwrap();
        assert!(line.contains("4 more"), "{line}");
    }
}
