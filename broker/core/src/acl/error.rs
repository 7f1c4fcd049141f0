//! What is wrong with an ACL, and what to write instead.

use super::{LINE_BYTES_MAX, RULES_MAX};
use motemq_codec::TopicFilterError;
use std::error::Error;
use std::fmt;

/// A mistake in an ACL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AclError {
    /// The line, from 1; 0 for a mistake of the whole text.
    pub line: usize,
    /// What is wrong there.
    pub fault: AclFault,
}

impl fmt::Display for AclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => self.fault.fmt(f),
            line => write!(f, "line {line}: {}", self.fault),
        }
    }
}

impl Error for AclError {}

/// A rule of the format that a line breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AclFault {
    /// There is no rule at all.
    NoRules,
    /// There are too many.
    TooManyRules,
    /// The line is too long.
    LineTooLong,
    /// The line has a control character in it.
    ControlCharacter,
    /// A quote is not closed.
    OpenQuote,
    /// A backslash inside of quotes stands before something else than a quote or backslash.
    Escape,
    /// The line starts with none of the words that a line may start with.
    LineStart(Unknown),
    /// The line is one of mosquitto's format.
    OfMosquitto(&'static str),
    /// The line is one of our own format, in a file of mosquitto's.
    NotOfMosquitto,
    /// The line starts with none of the words that a line of mosquitto's may start with.
    MosquittoStart(Unknown),
    /// Neither `publish` nor `subscribe` nor `all` follows.
    Action(Unknown),
    /// There is no filter.
    FilterMissing,
    /// The filter is none.
    Filter(TopicFilterError),
    /// The filter names a share group.
    SharedFilter,
    /// A percent sign is not one of a substitution.
    Substitution,
    /// A condition that does not exist.
    Condition(Unknown),
    /// A condition with a value that it cannot have; which values it can have.
    ConditionValue(&'static str),
    /// A condition that is of the other action: the condition, the action that it is of.
    ConditionElsewhere(&'static str, &'static str),
    /// A condition is there twice.
    ConditionTwice(&'static str),
    /// No quality of service meets the conditions.
    ConditionNever,
    /// A rule stands before the first section.
    NoSection,
    /// A header does not end with `]`.
    HeaderOpen,
    /// A header says nothing.
    HeaderEmpty,
    /// A word in a header that says nothing.
    HeaderWord(Unknown),
    /// A word in a header that needs a name behind it.
    HeaderName(&'static str),
    /// A header says the same kind of thing twice.
    HeaderTwice(&'static str),
    /// `everyone` or `anonymous` with something that contradicts it.
    HeaderNobody(&'static str),
    /// A group that is not defined.
    Group(Unknown),
    /// A definition of a group that cannot be read.
    GroupDefinition,
    /// A definition of a group behind the first section.
    GroupAfterSection,
    /// A login brings a denial.
    LoginDenies,
    /// A mosquitto line without a topic.
    MosquittoTopicMissing,
    /// An access that mosquitto does not know.
    MosquittoAccess(Unknown),
    /// A user line without a name.
    MosquittoUserMissing,
}

impl fmt::Display for AclFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRules => f.write_str(
                "there are no rules, so nobody could do anything; to allow everything, write [everyone] and below it: allow all #",
            ),
            Self::TooManyRules => write!(f, "more than {RULES_MAX} rules"),
            Self::LineTooLong => write!(f, "longer than {LINE_BYTES_MAX} bytes"),
            Self::ControlCharacter => f.write_str("there is a control character in it"),
            Self::OpenQuote => f.write_str("a double quote is not closed"),
            Self::Escape => f.write_str(
                "inside of double quotes a backslash stands before \" or \\ only; write \\\\ for a backslash",
            ),
            Self::LineStart(unknown) => write!(
                f,
                "{unknown}; a line starts with allow, deny, group, [ or (a comment) #"
            ),
            Self::OfMosquitto(instead) => write!(
                f,
                "this is mosquitto's format: write {instead}, or name the file in auth.mosquitto_acl_file instead, or let motemq acl import translate it"
            ),
            Self::NotOfMosquitto => f.write_str(
                "this is MoteMQ's format and not mosquitto's: name the file in auth.acl_file instead",
            ),
            Self::MosquittoStart(unknown) => write!(
                f,
                "{unknown}; a line starts with topic, pattern, user or (a comment) #"
            ),
            Self::Action(unknown) => {
                write!(f, "{unknown}; write publish, subscribe or all (both)")
            }
            Self::FilterMissing => f.write_str("the filter is missing, for example: allow publish a/#"),
            Self::Filter(error) => error.fmt(f),
            Self::SharedFilter => f.write_str(
                "write the filter without $share/NAME/, and behind it share=NAME (share=* for every group)",
            ),
            Self::Substitution => f.write_str(
                "% is followed by c (client id), u (user) or {field}; write %% for a percent sign",
            ),
            Self::Condition(unknown) => write!(
                f,
                "{unknown}; conditions are qos<=1, qos>=1, qos=1, retain=yes, retain=no, share=NAME, share=no; put a filter with blanks in double quotes"
            ),
            Self::ConditionValue(values) => write!(f, "write {values}"),
            Self::ConditionElsewhere(condition, action) => {
                write!(f, "{condition} is a condition of {action} only: write one line for publish and one for subscribe")
            }
            Self::ConditionTwice(condition) => write!(f, "{condition} is there twice"),
            Self::ConditionNever => f.write_str("no quality of service meets both conditions"),
            Self::NoSection => f.write_str(
                "whom is this rule about? Write a section above it, such as [everyone] or [user alice]",
            ),
            Self::HeaderOpen => f.write_str("a section is written in brackets, such as [user alice]"),
            Self::HeaderEmpty => f.write_str("write [everyone] for a section about everybody"),
            Self::HeaderWord(unknown) => write!(
                f,
                "{unknown}; write everyone, anonymous, user NAME, group NAME, client ID, certificate NAME or login NAME; put a name with blanks in double quotes"
            ),
            Self::HeaderName(word) => write!(f, "a name is missing behind {word}; * stands for any"),
            Self::HeaderTwice(word) => write!(
                f,
                "{word} is there twice, and nobody is both; write two sections, or one pattern with * for both"
            ),
            Self::HeaderNobody(word) => {
                write!(f, "{word} does not go with the other words of this section")
            }
            Self::Group(unknown) => write!(
                f,
                "{unknown}; define it above the first section: group NAME = alice, bob (with nobody behind = when only logins name it)"
            ),
            Self::GroupDefinition => f.write_str("write: group NAME = alice, bob, ops-*"),
            Self::GroupAfterSection => f.write_str("groups are defined above the first section"),
            Self::LoginDenies => f.write_str("the rules of a login can only allow"),
            Self::MosquittoTopicMissing => {
                f.write_str("a topic is missing, for example: topic read a/#")
            }
            Self::MosquittoAccess(unknown) => write!(
                f,
                "{unknown}; write read, write, readwrite or deny, and one of them too where the topic has blanks in it"
            ),
            Self::MosquittoUserMissing => f.write_str("a name is missing: user NAME"),
        }
    }
}

/// A word that is none of those expected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unknown {
    word: Box<str>,
    meant: Option<Box<str>>,
}

impl Unknown {
    pub(super) fn new<'a>(word: &str, expected: impl IntoIterator<Item = &'a str>) -> Self {
        let likeness =
            |known: &str| strsim::normalized_damerau_levenshtein(&word.to_ascii_lowercase(), known);
        let meant = expected
            .into_iter()
            .map(|known| (likeness(known), known))
            .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
            .max_by(|(one, _), (other, _)| one.total_cmp(other));
        Self {
            word: word.chars().take(WORD_LETTERS_MAX).collect(),
            meant: meant.map(|(_, known)| known.into()),
        }
    }

    /// When what was meant is known.
    pub(super) fn meaning(word: &str, meant: &str) -> Self {
        Self {
            word: word.into(),
            meant: Some(meant.into()),
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown: {:?}", self.word)?;
        match &self.meant {
            Some(meant) => write!(f, "; did you mean {meant:?}?"),
            None => Ok(()),
        }
    }
}

/// Less alike than this (1 is equal) is not worth suggesting.
const LIKENESS_MIN: f64 = 0.6;
/// What of a wrong word is shown.
const WORD_LETTERS_MAX: usize = 60;
