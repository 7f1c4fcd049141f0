//! Topic patterns: one line that gives each device its topic, and the verifier the filter that hears them all.

use std::fmt;
use std::str::FromStr;

/// A topic with places for what differs between devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Place),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Run,
    Cohort,
    Site,
    Index,
    Id,
    Leaf,
}

const PLACES: [(&str, Place); 6] = [
    ("run", Place::Run),
    ("cohort", Place::Cohort),
    ("site", Place::Site),
    ("index", Place::Index),
    ("id", Place::Id),
    ("leaf", Place::Leaf),
];
/// Devices of one site.
const SITE_DEVICES: u32 = 100;

/// What stands in the places.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The run.
    pub run: &'a str,
    /// The device's cohort.
    pub cohort: &'a str,
    /// The device's number.
    pub device: u32,
    /// The device's client id.
    pub client_id: &'a str,
    /// Which of a gateway's leaves a message is of; 0 for other devices.
    pub leaf: u8,
}

/// A topic pattern that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A place that does not exist.
    #[error(
        "{{{0}}} in a topic is unknown: known are {{run}}, {{cohort}}, {{site}}, {{index}}, {{id}} and {{leaf}}"
    )]
    Place(String),
    /// Something that no topic name may have.
    #[error("a topic has 1 to 1000 bytes and neither + nor # nor an unmatched brace: {0:?}")]
    Topic(String),
}

impl TopicPattern {
    /// `sim/{run}/{index}/MEASURE`, where the measure may say `{leaf}`.
    #[must_use]
    pub fn of_measure(measure: &str) -> Self {
        let text = |text: &str| Piece::Text(text.to_owned());
        let mut pieces = vec![
            text("sim/"),
            Piece::Place(Place::Run),
            text("/"),
            Piece::Place(Place::Index),
        ];
        match measure.split_once("{leaf}") {
            Some((before, after)) => pieces.extend([
                Piece::Text(format!("/{before}")),
                Piece::Place(Place::Leaf),
                text(after),
            ]),
            None => pieces.push(Piece::Text(format!("/{measure}"))),
        }
        Self(pieces)
    }

    /// The topic of one device.
    #[must_use]
    pub fn topic(&self, names: &Names<'_>) -> String {
        let mut topic = String::with_capacity(64);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => topic += text,
                Piece::Place(Place::Run) => topic += names.run,
                Piece::Place(Place::Cohort) => topic += names.cohort,
                Piece::Place(Place::Site) => {
                    topic += &format!("{:04}", names.device / SITE_DEVICES);
                }
                Piece::Place(Place::Index) => topic += &format!("{:06}", names.device),
                Piece::Place(Place::Id) => topic += names.client_id,
                Piece::Place(Place::Leaf) => topic += &format!("{:03}", names.leaf),
            }
        }
        topic
    }

    /// Whether no two devices have the same topic.
    #[must_use]
    pub fn is_of_one_device(&self) -> bool {
        let names_one = |piece: &Piece| matches!(piece, Piece::Place(Place::Index | Place::Id));
        self.0.iter().any(names_one)
    }

    /// The filter that matches the topics of all devices of a cohort; only `run` and `cohort` of `names` count.
    #[must_use]
    pub fn filter(&self, run: &str, cohort: &str) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text += piece,
                Piece::Place(Place::Run) => text += run,
                Piece::Place(Place::Cohort) => text += cohort,
                Piece::Place(Place::Site | Place::Index | Place::Id | Place::Leaf) => {
                    text.push('+')
                }
            }
        }
        // A + must be a level of its own.
        let level = |level: &str| if level.contains('+') { "+" } else { level }.to_owned();
        text.split('/').map(level).collect::<Vec<_>>().join("/")
    }
}

impl FromStr for TopicPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let wrong = || PatternError::Topic(text.to_owned());
        if text.is_empty() || text.len() > 1_000 || text.contains(['+', '#', '\0']) {
            return Err(wrong());
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(wrong)?;
            let place = PLACES.iter().find(|(known, _)| *known == name);
            let (_, place) = place.ok_or_else(|| PatternError::Place(name.to_owned()))?;
            if before.contains('}') {
                return Err(wrong());
            }
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Place(*place));
            rest = after;
        }
        if rest.contains('}') {
            return Err(wrong());
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => formatter.write_str(text)?,
                Piece::Place(place) => {
                    let name = PLACES.iter().find(|(_, known)| known == place);
                    write!(formatter, "{{{}}}", name.map_or("", |(name, _)| name))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_its_topic_and_the_verifier_hears_it() {
        let pattern: TopicPattern = "fleet/{run}/{cohort}-{site}/{id}/e".parse().unwrap();
        let names = Names {
            run: "r1",
            cohort: "meters",
            device: 1_234,
            client_id: "meter-1234",
            leaf: 0,
        };
        assert_eq!(pattern.topic(&names), "fleet/r1/meters-0012/meter-1234/e");
        assert_eq!(pattern.filter("r1", "meters"), "fleet/r1/+/+/e");
        assert_eq!(pattern.to_string(), "fleet/{run}/{cohort}-{site}/{id}/e");
    }

    #[test]
    fn each_leaf_of_a_gateway_has_a_topic_of_its_own() {
        let pattern = TopicPattern::of_measure("leaf/{leaf}/temperature");
        let names = Names {
            run: "r1",
            cohort: "gateways",
            device: 7,
            client_id: "gateway-7",
            leaf: 42,
        };
        assert_eq!(pattern.topic(&names), "sim/r1/000007/leaf/042/temperature");
        assert_eq!(
            pattern.filter("r1", "gateways"),
            "sim/r1/+/leaf/+/temperature"
        );
        assert_eq!(pattern.to_string().parse(), Ok(pattern));
        assert_eq!(
            TopicPattern::of_measure("power").to_string(),
            "sim/{run}/{index}/power"
        );
    }

    #[test]
    fn what_is_no_topic_is_refused() {
        for wrong in ["", "a/+", "a/#", "a{", "a}", "}{run}", "{run", "a\0"] {
            let error = wrong.parse::<TopicPattern>().unwrap_err();
            assert_eq!(error, PatternError::Topic(wrong.to_owned()));
        }
        let error = "a/{device}".parse::<TopicPattern>().unwrap_err();
        assert_eq!(error, PatternError::Place("device".to_owned()));
    }
}
