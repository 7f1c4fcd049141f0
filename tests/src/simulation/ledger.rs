//! What the clients know: what they sent, what was promised to them, what they received. The judge of the run.
//!
//! Nothing here comes from inside the broker. A tick is a moment of the simulation: every packet that a client sends or
//! reads has one of its own, so "before" is exact; virtual time, in milliseconds, is beside it.

use super::shares::group_of_topic;
use motemq_codec::{QoS, TopicFilter};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A published message, by its place in the ledger.
pub type PublishId = usize;

/// One message that a client published, or a will.
#[derive(Clone, Debug)]
pub struct Published {
    /// The publisher, by number.
    pub client: usize,
    /// The topic.
    pub topic: String,
    /// Quality of service.
    pub qos: QoS,
    /// To be retained.
    pub retain: bool,
    /// Its place among the messages of this publisher, topic and QoS.
    pub sequence: u64,
    /// What the message says; empty when it clears a retained message.
    pub payload: String,
    /// Message Expiry Interval.
    pub expiry_s: Option<u32>,
    /// Sent for the first time.
    pub sent: u64,
    /// Sent again so often.
    pub resends: u32,
    /// Acknowledged with success: tick and time.
    pub acknowledged: Option<(u64, u64)>,
    /// Acknowledged with an error.
    pub is_refused: bool,
    /// After this tick the broker cannot receive it any more, if that is known.
    pub over: Option<u64>,
}

/// A subscription that was acknowledged.
#[derive(Clone, Debug)]
pub struct Subscribed {
    /// The subscriber.
    pub client: usize,
    /// Which of its sessions.
    pub incarnation: u32,
    /// The filter.
    pub filter: String,
    /// The granted QoS.
    pub qos: QoS,
    /// SUBACK was read.
    pub from: u64,
    /// UNSUBSCRIBE, or a replacing SUBSCRIBE, was sent.
    pub until: Option<u64>,
}

/// A message that reached an application.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// What arrived.
    pub publish: PublishId,
    /// The receiver.
    pub client: usize,
    /// Which of its sessions.
    pub incarnation: u32,
    /// QoS of the PUBLISH packet.
    pub qos: QoS,
    /// Its DUP flag.
    pub dup: bool,
    /// Its RETAIN flag.
    pub retain: bool,
    /// When the broker wrote it, in milliseconds.
    pub written_ms: u64,
    /// Message Expiry Interval that it carried.
    pub expiry_s: Option<u32>,
    /// The receiver answered with an error: it may get the message again.
    pub is_refused: bool,
}

/// A will that a connection brought along.
#[derive(Clone, Debug)]
pub struct WillLife {
    /// The message.
    pub publish: PublishId,
    /// Whose.
    pub client: usize,
    /// May it be published, and must it?
    pub fate: WillFate,
    /// Not before this time, in milliseconds, once its connection has ended.
    pub due_ms: Option<u64>,
    /// At this time it must have been published, if it must.
    pub owed_ms: Option<u64>,
    /// Its delay, in seconds.
    pub delay_s: u32,
    /// The session expiry of its CONNECT, in seconds.
    pub expiry_s: u32,
    /// It is stored with a durable session whose CONNACK was read.
    pub is_kept: bool,
    /// The tick at which its connection ended.
    pub ended: Option<u64>,
}

/// What must become of a will.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum WillFate {
    /// Its connection lives.
    Waiting,
    /// It must not be published.
    Forbidden,
    /// It must be published once due.
    Required,
    /// Either is right.
    Open,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which rule.
    pub rule: Rule,
    /// The story in a line.
    pub what: String,
}

/// The rules of the delivery contract.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Rule {
    /// An acknowledged message did not arrive.
    AcknowledgedLost,
    /// QoS 2 arrived twice, or QoS 0 did.
    Duplicate,
    /// A shared message reached a second member while the first had it, or had acknowledged it.
    Redispatch,
    /// A shared message reached a session that is no member.
    Outsider,
    /// Out of order for one publisher, topic and QoS.
    Order,
    /// Session Present was wrong.
    SessionPresent,
    /// A new subscriber saw the wrong retained message.
    Retained,
    /// A will was published wrongly, early, twice or not at all.
    Will,
    /// An expired message was delivered, or the interval did not count down.
    Expiry,
    /// Receive Maximum, packet ids, order of acknowledgements, CONNACK first, bytes that do not decode.
    Protocol,
    /// Something was never answered.
    Stalled,
    /// Traffic that needs no disk reached it.
    NeedlessRecord,
    /// The broker panicked.
    Panic,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// Everything that was promised and everything that came.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By [`PublishId`].
    pub published: Vec<Published>,
    by_payload: BTreeMap<String, PublishId>,
    /// Acknowledged subscriptions.
    pub subscribed: Vec<Subscribed>,
    /// Deliveries in the order of arrival.
    pub delivered: Vec<Delivered>,
    /// Client, session, message of every delivery.
    reached: BTreeSet<(usize, u32, PublishId)>,
    /// Client and message of every delivery.
    reached_client: BTreeSet<(usize, PublishId)>,
    /// Wills.
    pub wills: Vec<WillLife>,
}

/// What the run was like, as far as it excuses a loss.
#[derive(Clone, Debug)]
pub struct Excuses {
    /// Power losses.
    pub crashes: usize,
    /// Queues may drop messages by policy.
    pub drops_by_policy: bool,
    /// Wills and retained messages may have been refused for lack of room.
    pub refusals: bool,
}

/// The state of a client at the end.
#[derive(Copy, Clone, Debug)]
pub struct Final {
    /// Its session number.
    pub incarnation: u32,
    /// Connected, and drained.
    pub is_drained: bool,
}

impl Ledger {
    /// Notes a message that is about to be sent.
    pub fn publish(&mut self, published: Published) -> PublishId {
        let id = self.published.len();
        if !published.payload.is_empty() {
            self.by_payload.insert(published.payload.clone(), id);
        }
        self.published.push(published);
        id
    }

    /// The message with this payload.
    #[must_use]
    pub fn find(&self, payload: &[u8]) -> Option<PublishId> {
        let payload = std::str::from_utf8(payload).ok()?;
        self.by_payload.get(payload.trim_end_matches('~')).copied()
    }

    /// Notes a delivery and checks what can be checked at once.
    ///
    /// # Errors
    /// The rule that the delivery breaks.
    pub fn deliver(&mut self, delivered: Delivered) -> Result<(), Broken> {
        self.check_expiry(&delivered)?;
        if group_of_topic(&self.published[delivered.publish].topic).is_some() {
            // Its members are judged together.
            self.delivered.push(delivered);
            return Ok(());
        }
        self.check_repetition(&delivered)?;
        self.reached
            .insert((delivered.client, delivered.incarnation, delivered.publish));
        if !delivered.is_refused {
            self.reached_client
                .insert((delivered.client, delivered.publish));
        }
        self.delivered.push(delivered);
        Ok(())
    }

    fn check_expiry(&self, delivered: &Delivered) -> Result<(), Broken> {
        let message = &self.published[delivered.publish];
        let (Some(expiry_s), Some((_, acknowledged_ms))) = (message.expiry_s, message.acknowledged)
        else {
            return Ok(());
        };
        // Once sent, an exchange is finished even if the message has expired since [MQTT5-4.3.3-7] [MQTT5-4.3.3-13].
        if delivered.dup {
            return Ok(());
        }
        let age_ms = delivered.written_ms.saturating_sub(acknowledged_ms);
        let expiry_ms = u64::from(expiry_s) * 1000;
        if age_ms >= expiry_ms {
            return broken(
                Rule::Expiry,
                format!("{delivered:?} is {age_ms} ms old: {message:?}"),
            );
        }
        let left_s = (expiry_ms - age_ms).div_ceil(1000);
        match delivered.expiry_s {
            Some(told_s) if u64::from(told_s) > left_s => broken(
                Rule::Expiry,
                format!("told {told_s} s, {left_s} s are left: {message:?}"),
            ),
            _ => Ok(()),
        }
    }

    fn check_repetition(&self, delivered: &Delivered) -> Result<(), Broken> {
        let message = &self.published[delivered.publish];
        // A replay of a retained message is a delivery of its own.
        if delivered.retain || message.retain {
            return Ok(());
        }
        let exactly_once = matches!(
            (message.qos, delivered.qos),
            (QoS::AtMostOnce, _) | (QoS::ExactlyOnce, QoS::ExactlyOnce | QoS::AtMostOnce)
        );
        let before = self
            .reached_client
            .contains(&(delivered.client, delivered.publish));
        if exactly_once && before {
            return broken(
                Rule::Duplicate,
                format!(
                    "client {} got {} again: {delivered:?}",
                    delivered.client, message.payload
                ),
            );
        }
        Ok(())
    }

    /// Everything that can only be judged at the end.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn judge(&self, finals: &[Final], excuses: &Excuses) -> Result<(), Broken> {
        self.judge_order(excuses)?;
        if !excuses.drops_by_policy {
            self.judge_losses(finals)?;
        }
        Ok(())
    }

    fn judge_losses(&self, finals: &[Final]) -> Result<(), Broken> {
        for subscription in &self.subscribed {
            let end = finals[subscription.client];
            let lives = end.is_drained && end.incarnation == subscription.incarnation;
            if !lives || subscription.qos == QoS::AtMostOnce {
                continue;
            }
            let Ok(filter) = TopicFilter::parse(&subscription.filter) else {
                continue;
            };
            for (id, message) in self.published.iter().enumerate() {
                let Some((acknowledged, _)) = message.acknowledged else {
                    continue;
                };
                let is_owed = message.qos != QoS::AtMostOnce
                    && message.expiry_s.is_none()
                    && !message.payload.is_empty()
                    && subscription.from < message.sent
                    && subscription.until.is_none_or(|until| acknowledged < until)
                    && filter.matches(&message.topic);
                if is_owed && !self.has(subscription.client, subscription.incarnation, id) {
                    return broken(
                        Rule::AcknowledgedLost,
                        format!("{message:?} never reached {subscription:?}"),
                    );
                }
            }
        }
        Ok(())
    }

    fn has(&self, client: usize, incarnation: u32, publish: PublishId) -> bool {
        self.reached.contains(&(client, incarnation, publish))
    }

    /// First occurrences are in order per publisher, topic and QoS [MQTT5-4.6.0-5] [MQTT5-4.6.0-6]. A message that its
    /// publisher sent again may come late: an earlier copy may have gone to others only, or been dropped by policy.
    fn judge_order(&self, excuses: &Excuses) -> Result<(), Broken> {
        let mut newest: BTreeMap<(usize, u32, usize, &str, QoS, QoS), u64> = BTreeMap::new();
        let mut seen: BTreeSet<(usize, u32, PublishId)> = BTreeSet::new();
        for delivered in &self.delivered {
            let message = &self.published[delivered.publish];
            let is_shared = group_of_topic(&message.topic).is_some();
            if message.retain || delivered.retain || message.topic.starts_with("will/") || is_shared
            {
                continue;
            }
            if !seen.insert((delivered.client, delivered.incarnation, delivered.publish)) {
                continue;
            }
            let key = (
                delivered.client,
                delivered.incarnation,
                message.client,
                message.topic.as_str(),
                message.qos,
                delivered.qos,
            );
            let last = newest.entry(key).or_insert(0);
            if message.sequence < *last {
                // A refusal that never reached the publisher makes it send the message again, behind later ones.
                let was_resent =
                    message.resends > 0 && (message.qos != QoS::ExactlyOnce || excuses.refusals);
                // A crash may bring back what had expired or been dropped by policy.
                let may_return =
                    excuses.crashes > 0 && (message.expiry_s.is_some() || excuses.drops_by_policy);
                let excused = was_resent || may_return;
                if !excused {
                    return broken(
                        Rule::Order,
                        format!(
                            "{} came after number {last} at client {}",
                            message.payload, delivered.client
                        ),
                    );
                }
            }
            *last = (*last).max(message.sequence);
        }
        Ok(())
    }

    /// What a new subscriber sees for `topic`: the payload of the retained message, `None` if there is none.
    ///
    /// # Errors
    /// When it is not the last acknowledged one, nor one that may have come later.
    pub fn judge_retained(&self, topic: &str, seen: Option<&str>) -> Result<(), Broken> {
        let changes: Vec<_> = self
            .published
            .iter()
            .filter(|message| message.topic == topic && message.retain)
            // A message that was refused when sent again may have been accepted at first.
            .filter(|message| !message.is_refused || message.resends > 0)
            .collect();
        let is_overwritten_since = |tick: u64| {
            changes
                .iter()
                .any(|change| change.acknowledged.is_some() && change.sent > tick)
        };
        let value = seen.unwrap_or_default();
        let is_possible = value.is_empty() && !is_overwritten_since(0)
            || changes
                .iter()
                .filter(|change| change.payload == value)
                .any(|change| {
                    let over = change.acknowledged.map(|(tick, _)| tick).or(change.over);
                    !is_overwritten_since(over.unwrap_or(u64::MAX))
                });
        if is_possible {
            return Ok(());
        }
        let tail: Vec<_> = changes.iter().rev().take(6).collect();
        broken(
            Rule::Retained,
            format!("{topic} has {seen:?}; the last changes were {tail:#?}"),
        )
    }

    /// Whether each will was published when it had to and only then. `watcher` has subscribed to all wills.
    ///
    /// # Errors
    /// The will that went wrong.
    pub fn judge_wills(
        &self,
        watcher: usize,
        finals: &[Final],
        now_ms: u64,
        excuses: &Excuses,
    ) -> Result<(), Broken> {
        let watch = self
            .subscribed
            .iter()
            .rev()
            .find(|subscribed| subscribed.client == watcher && subscribed.filter == "will/#");
        for will in &self.wills {
            let message = &self.published[will.publish];
            let copies: Vec<_> = self
                .delivered
                .iter()
                .filter(|d| d.publish == will.publish)
                .collect();
            if will.fate == WillFate::Forbidden && !copies.is_empty() {
                return broken(
                    Rule::Will,
                    format!("published, but must not: {will:?} {copies:?}"),
                );
            }
            if will.fate == WillFate::Waiting && !copies.is_empty() {
                return broken(
                    Rule::Will,
                    format!("published while connected: {will:?} {copies:?}"),
                );
            }
            let early = copies
                .iter()
                .find(|copy| will.due_ms.is_none_or(|due| copy.written_ms < due));
            if let (Some(copy), true) = (early, will.due_ms.is_some()) {
                return broken(Rule::Will, format!("too early: {will:?} {copy:?}"));
            }
            let Some(watch) = watch else { continue };
            let end = finals[watcher];
            let is_watched = end.is_drained
                && end.incarnation == watch.incarnation
                && will.ended.is_some_and(|ended| watch.from < ended)
                && message.qos != QoS::AtMostOnce;
            let is_owed = will.fate == WillFate::Required
                && will.owed_ms.is_some_and(|owed| owed <= now_ms)
                && !excuses.refusals
                && !excuses.drops_by_policy;
            if is_watched && is_owed && copies.is_empty() {
                return broken(
                    Rule::Will,
                    format!("never published: {will:?} {}", message.payload),
                );
            }
        }
        Ok(())
    }
}

/// A broken promise as an error.
///
/// # Errors
/// Always.
pub fn broken<T>(rule: Rule, what: String) -> Result<T, Broken> {
    Err(Broken { rule, what })
}
