//! What the client of a connection may do, asked once per topic.
//!
//! Invariants: what is answered follows from the ACL in force when [`Access::refresh`] was called last. At most [`TOPICS_MAX`]
//! answers about deliveries are kept; beyond, all are asked anew.
//!
//! Does not know: rules. Answers about publishes are kept with the routes (`routes.rs`).

use super::Active;
use crate::acl::Rights;
use crate::broker::Broker;
use crate::enrolment::{REQUEST, is_issued};
use crate::message::TopicName;
use crate::session::Session;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// What the client may do.
#[derive(Debug, Default)]
pub(super) struct Access {
    /// Of the ACL that the rest follows from; 0 before any.
    generation: u64,
    /// `None`: everything.
    limited: Option<Box<Limited>>,
    /// Requests for certificates are for it.
    is_signer: bool,
}

#[derive(Debug)]
struct Limited {
    rights: Rights,
    /// The last topic of a delivery.
    last: Option<(TopicName, bool)>,
    known: HashMap<TopicName, bool, RandomState>,
}

/// What a client was not allowed to do, for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// What it wanted.
    pub action: DeniedAction,
    /// The topic or filter, or the beginning of it.
    pub topic: Box<str>,
    /// The rule that denied it, or one that would allow it.
    pub why: Box<str>,
}

/// What can be denied.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum DeniedAction {
    /// A PUBLISH.
    Publish,
    /// A filter of a SUBSCRIBE.
    Subscribe,
    /// The will of a CONNECT.
    Will,
    /// A request for a certificate.
    Enrol,
}

impl DeniedAction {
    /// The value of the metric's `action` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Will => "will",
            Self::Enrol => "enrol",
        }
    }
}

impl Denial {
    pub(super) fn new(action: DeniedAction, topic: &str, why: &str) -> Box<Self> {
        let shown = |text: &str| text.chars().take(TOPIC_SHOWN_MAX).collect();
        Box::new(Self {
            action,
            topic: shown(topic),
            why: shown(why),
        })
    }
}

impl Active {
    /// Has everything follow the ACL in force: what it says of publishes, of deliveries, and which groups were left.
    #[inline]
    pub(super) fn refresh_access(&mut self, broker: &Broker) {
        if self.access.refresh(&self.session, broker) {
            self.routes.forget();
            self.groups.clone_from(&self.session.lock().groups);
        }
    }
}

impl Access {
    /// Asks anew if the ACL or the login has changed since; `true` if so.
    #[inline]
    fn refresh(&mut self, session: &Session, broker: &Broker) -> bool {
        let generation = broker.acl_generation();
        let is_stale = generation != self.generation;
        if is_stale {
            self.ask(generation, session, broker);
        }
        is_stale
    }

    #[cold]
    fn ask(&mut self, generation: u64, session: &Session, broker: &Broker) {
        self.generation = generation;
        self.is_signer = broker.is_signer(session);
        self.limited = broker.rights_of(session).map(|rights| {
            Box::new(Limited {
                rights,
                last: None,
                known: HashMap::default(),
            })
        });
    }

    /// Has the next [`refresh`](Self::refresh) ask anew.
    pub(super) fn forget(&mut self) {
        self.generation = 0;
    }

    /// What the client may do; `None` when everything.
    pub(super) fn rights(&self) -> Option<&Rights> {
        self.limited.as_ref().map(|limited| &limited.rights)
    }

    /// Whether messages of `topic` may be delivered.
    #[inline]
    pub(super) fn may_receive(&mut self, topic: &TopicName) -> bool {
        let is_request = topic.as_str() == REQUEST;
        match &mut self.limited {
            _ if is_request => self.is_signer,
            None => true,
            Some(limited) => limited.may_receive(topic),
        }
    }
}

impl Limited {
    fn may_receive(&mut self, topic: &TopicName) -> bool {
        if let Some((last, verdict)) = &self.last
            && last.is_same(topic)
        {
            return *verdict;
        }
        let verdict = match self.known.get(topic) {
            Some(verdict) => *verdict,
            None => {
                if self.known.len() >= TOPICS_MAX {
                    self.known.clear();
                }
                // What goes there is for this client alone, whatever the rules.
                let verdict = is_issued(topic.as_str()) || self.rights.receive(topic.as_str());
                self.known.insert(topic.clone(), verdict);
                verdict
            }
        };
        self.last = Some((topic.clone(), verdict));
        verdict
    }
}

/// Topics whose deliveries are known to be allowed or not, per connection.
const TOPICS_MAX: usize = 256;
/// Characters of a topic, and of a reason, in the log.
const TOPIC_SHOWN_MAX: usize = 400;
