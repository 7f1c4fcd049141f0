//! The judge of shared subscriptions: what members were promised together.
//!
//! As in the [`ledger`](super::ledger), nothing here comes from inside the broker. Each group has topics of its own, to
//! which nobody subscribes otherwise. A departure is anything that may make the broker give a member's deliveries to
//! another: the end of a connection, UNSUBSCRIBE, a power loss.

use super::ledger::{Broken, PublishId, Published, Rule, broken};
use motemq_codec::QoS;
use motemq_core::ShareRedispatch;
use std::collections::BTreeMap;

/// The groups.
pub const SHARED_FILTERS: [&str; 2] = ["$share/g/s0/#", "$share/h/s1/+"];
/// Their topics.
pub const SHARED_TOPICS: [&str; 4] = ["s0/m", "s0/n", "s1/m", "s0/m/o"];

/// The group that receives `topic`.
#[must_use]
pub fn group_of_topic(topic: &str) -> Option<usize> {
    match topic.get(..2) {
        Some("s0") => Some(0),
        Some("s1") => Some(1),
        _ => None,
    }
}

/// The group with this filter.
#[must_use]
pub fn group_of_filter(filter: &str) -> Option<usize> {
    SHARED_FILTERS.iter().position(|known| *known == filter)
}

/// The time that one session was a member of one group.
#[derive(Clone, Debug)]
pub struct Spell {
    /// The member.
    pub client: usize,
    /// Which of its sessions.
    pub incarnation: u32,
    /// Which group.
    pub group: usize,
    /// SUBSCRIBE was sent.
    pub asked: u64,
    /// The packet id of the SUBSCRIBE under way.
    pub packet_id: u16,
    /// SUBACK was read.
    pub from: Option<u64>,
    /// UNSUBSCRIBE was sent.
    pub left: Option<u64>,
    /// The packet id of that UNSUBSCRIBE.
    pub left_id: u16,
    /// UNSUBACK was read.
    pub over: Option<u64>,
}

/// A message that reached a member.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// What arrived.
    pub publish: PublishId,
    /// The member.
    pub client: usize,
    /// Which of its sessions.
    pub incarnation: u32,
    /// On which connection.
    pub link: usize,
    /// The session ends with that connection.
    pub is_clean: bool,
    /// The client's sessions outlive its connections, always.
    pub is_durable: bool,
    /// QoS of the PUBLISH packet.
    pub qos: QoS,
    /// Its RETAIN flag.
    pub retain: bool,
    /// The member answered with an error.
    pub is_refused: bool,
    /// When it was read.
    pub tick: u64,
    /// The broker has handled the acknowledgement, durably.
    pub is_done: bool,
}

/// A client, as far as the judge must know it.
#[derive(Copy, Clone, Debug)]
pub struct Standing {
    /// Its session number.
    pub incarnation: u32,
    /// Connected, and nothing on its way.
    pub is_online: bool,
    /// Its present connection.
    pub link: Option<usize>,
    /// Its sessions outlive its connections, always.
    pub is_durable: bool,
    /// Its session may outlive its connection.
    pub may_persist: bool,
}

/// The ledger of the groups.
#[derive(Debug)]
pub struct Shares {
    redispatch: ShareRedispatch,
    /// Memberships.
    pub spells: Vec<Spell>,
    receipts: BTreeMap<PublishId, Vec<Receipt>>,
    /// The newest sequence by member, session, publisher, topic and QoS.
    newest: BTreeMap<(usize, u32, usize, String, QoS, QoS), u64>,
    /// Client and tick of each departure.
    departures: Vec<(usize, u64)>,
    /// Client and tick of each end of a session, or what may be one.
    session_ends: Vec<(usize, u64)>,
    crashes: Vec<u64>,
    incarnations: Vec<u32>,
}

impl Shares {
    /// An empty one.
    #[must_use]
    pub fn new(redispatch: ShareRedispatch) -> Self {
        Self {
            redispatch,
            spells: Vec::new(),
            receipts: BTreeMap::new(),
            newest: BTreeMap::new(),
            departures: Vec::new(),
            session_ends: Vec::new(),
            crashes: Vec::new(),
            incarnations: Vec::new(),
        }
    }

    /// A client sends SUBSCRIBE for a group.
    pub fn asks(
        &mut self,
        client: usize,
        incarnation: u32,
        group: usize,
        packet_id: u16,
        tick: u64,
    ) {
        let open = self.spells.iter_mut().find(|spell| {
            let is_it = (spell.client, spell.incarnation, spell.group);
            is_it == (client, incarnation, group) && spell.left.is_none()
        });
        match open {
            Some(spell) => spell.packet_id = packet_id,
            None => self.spells.push(Spell {
                client,
                incarnation,
                group,
                asked: tick,
                packet_id,
                from: None,
                left: None,
                left_id: 0,
                over: None,
            }),
        }
    }

    /// SUBACK with success was read.
    pub fn granted(
        &mut self,
        client: usize,
        incarnation: u32,
        group: usize,
        packet_id: u16,
        tick: u64,
    ) {
        for spell in &mut self.spells {
            let is_it = (
                spell.client,
                spell.incarnation,
                spell.group,
                spell.packet_id,
            ) == (client, incarnation, group, packet_id);
            if is_it && spell.from.is_none() {
                spell.from = Some(tick);
            }
        }
    }

    /// A client sends UNSUBSCRIBE for a group.
    pub fn leaves(
        &mut self,
        client: usize,
        incarnation: u32,
        group: usize,
        packet_id: u16,
        tick: u64,
    ) {
        for spell in &mut self.spells {
            let is_it = (spell.client, spell.incarnation, spell.group);
            if is_it == (client, incarnation, group) && spell.left.is_none() {
                spell.left = Some(tick);
                spell.left_id = packet_id;
                self.departures.push((client, tick));
            }
        }
    }

    /// UNSUBACK was read.
    pub fn left(
        &mut self,
        client: usize,
        incarnation: u32,
        group: usize,
        packet_id: u16,
        tick: u64,
    ) {
        for spell in &mut self.spells {
            let is_it = (spell.client, spell.incarnation, spell.group, spell.left_id)
                == (client, incarnation, group, packet_id);
            if is_it && spell.left.is_some() {
                spell.over.get_or_insert(tick);
            }
        }
        self.departures.push((client, tick));
    }

    /// The broker has let go of a connection.
    pub fn link_ended(&mut self, client: usize, may_end_session: bool, tick: u64) {
        self.departures.push((client, tick));
        if may_end_session {
            self.session_ends.push((client, tick));
        }
    }

    /// The power was lost.
    pub fn crashed(&mut self, tick: u64) {
        self.crashes.push(tick);
    }

    /// Notes sessions that clients have given up or lost.
    pub fn note_sessions(&mut self, incarnations: impl Iterator<Item = u32>, tick: u64) {
        for (client, incarnation) in incarnations.enumerate() {
            match self.incarnations.get_mut(client) {
                None => self.incarnations.push(incarnation),
                Some(known) if *known != incarnation => {
                    *known = incarnation;
                    self.session_ends.push((client, tick));
                }
                Some(_) => {}
            }
        }
    }

    /// Notes a delivery and checks what can be checked at once.
    ///
    /// # Errors
    /// The rule that the delivery breaks.
    pub fn deliver(
        &mut self,
        receipt: Receipt,
        message: &Published,
        is_over: impl Fn(usize) -> bool,
    ) -> Result<(), Broken> {
        self.check_member(&receipt, message)?;
        if receipt.retain {
            return broken(Rule::Retained, format!("RETAIN in a share: {receipt:?}"));
        }
        let before = self.receipts.entry(receipt.publish).or_default();
        for earlier in before.iter() {
            let was_crash = self.crashes.iter().any(|tick| *tick > earlier.tick);
            let mut ends = self.session_ends.iter();
            let has_ended =
                ends.any(|(client, tick)| *client == earlier.client && *tick > earlier.tick);
            let waits = self.redispatch == ShareRedispatch::AtSessionEnd
                && earlier.is_durable
                && !has_ended;
            check_pair(earlier, &receipt, message, waits, was_crash, &is_over)?;
        }
        let is_first = before.is_empty();
        before.push(receipt.clone());
        self.check_order(&receipt, message, is_first)
    }

    /// It asked to be a member before it got this, and had not left for good when the message was sent.
    fn check_member(&self, receipt: &Receipt, message: &Published) -> Result<(), Broken> {
        let group = group_of_topic(&message.topic);
        let is_member = self.spells.iter().any(|spell| {
            (spell.client, spell.incarnation, Some(spell.group))
                == (receipt.client, receipt.incarnation, group)
                && spell.over.is_none_or(|over| message.sent < over)
        });
        if is_member {
            return Ok(());
        }
        broken(
            Rule::Outsider,
            format!("{receipt:?} is no member: {message:?}"),
        )
    }

    /// In order at each member [MQTT5-4.6.0-5], as far as nobody's departure has brought a message back.
    fn check_order(
        &mut self,
        receipt: &Receipt,
        message: &Published,
        is_first: bool,
    ) -> Result<(), Broken> {
        let key = (
            receipt.client,
            receipt.incarnation,
            message.client,
            message.topic.clone(),
            message.qos,
            receipt.qos,
        );
        let last = self.newest.entry(key).or_insert(0);
        let newest = (*last).max(message.sequence);
        let is_late = message.sequence < std::mem::replace(last, newest);
        let group = group_of_topic(&message.topic);
        let spells = &self.spells;
        let concerns = |client: usize| {
            spells
                .iter()
                .any(|spell| spell.client == client && Some(spell.group) == group)
        };
        let was_departure = self
            .departures
            .iter()
            .any(|(client, tick)| *tick >= message.sent && concerns(*client))
            || self.crashes.iter().any(|tick| *tick >= message.sent)
            // The broker takes up an UNSUBSCRIBE some time between the two packets.
            || spells.iter().any(|spell| {
                Some(spell.group) == group
                    && spell.left.is_some()
                    && spell.over.is_none_or(|over| over >= message.sent)
            });
        if is_first && is_late && !was_departure && message.resends == 0 {
            return broken(
                Rule::Order,
                format!("{message:?} came after number {newest} at {receipt:?}"),
            );
        }
        Ok(())
    }

    /// Everything has come to rest and is durable: what members acknowledged is done with.
    pub fn rest(&mut self, standings: &[Standing]) {
        for receipt in self.receipts.values_mut().flatten() {
            let standing = standings[receipt.client];
            receipt.is_done |= standing.is_online && standing.link == Some(receipt.link);
        }
    }

    /// Everything has come to rest: what is owed to a group with a durable member has reached someone, if someone is
    /// there to take it.
    ///
    /// # Errors
    /// The message that reached nobody.
    pub fn judge_losses(
        &self,
        published: &[Published],
        standings: &[Standing],
        is_final: bool,
    ) -> Result<(), Broken> {
        for (id, message) in published.iter().enumerate() {
            let Some(group) = group_of_topic(&message.topic) else {
                continue;
            };
            let is_owed = message.qos != QoS::AtMostOnce
                && message.acknowledged.is_some()
                && message.expiry_s.is_none()
                && !message.payload.is_empty();
            if !is_owed || self.receipts.contains_key(&id) {
                continue;
            }
            let of_group = || self.spells.iter().filter(|spell| spell.group == group);
            let is_current = |spell: &&Spell| {
                spell.left.is_none()
                    && spell.incarnation == standings[spell.client].incarnation
                    && spell.from.is_some()
            };
            let keeper = of_group().filter(is_current).find(|spell| {
                standings[spell.client].is_durable
                    && spell.from.is_some_and(|from| from < message.sent)
                    && (!is_final || standings[spell.client].is_online)
            });
            let taker = of_group()
                .filter(is_current)
                .find(|spell| standings[spell.client].is_online);
            let (Some(keeper), Some(taker)) = (keeper, taker) else {
                continue;
            };
            // Somebody who is away may have it, for as long as the session lasts.
            let is_someone_away = of_group().any(|spell| {
                let standing = standings[spell.client];
                !standing.is_online && standing.may_persist
            });
            let may_be_away =
                message.qos == QoS::ExactlyOnce || self.redispatch == ShareRedispatch::AtSessionEnd;
            if is_someone_away && may_be_away {
                continue;
            }
            // What a session had begun at QoS 2 ends with it [MQTT5-4.8.2-5].
            let may_have_ended = message.qos == QoS::ExactlyOnce
                && self.session_ends.iter().any(|(client, tick)| {
                    *tick > message.sent && of_group().any(|spell| spell.client == *client)
                });
            if may_have_ended {
                continue;
            }
            let rule = match is_final {
                true => Rule::AcknowledgedLost,
                false => Rule::Stalled,
            };
            return broken(
                rule,
                format!(
                    "{message:?} reached nobody, though {keeper:?} kept it and {taker:?} was there"
                ),
            );
        }
        Ok(())
    }
}

/// Whether a message may reach a second member, or one member again.
fn check_pair(
    earlier: &Receipt,
    receipt: &Receipt,
    message: &Published,
    waits_for_session: bool,
    was_crash: bool,
    is_over: &impl Fn(usize) -> bool,
) -> Result<(), Broken> {
    if earlier.is_refused {
        return Ok(());
    }
    let fails = |rule| broken(rule, format!("{earlier:?}, then {receipt:?}: {message:?}"));
    // [MQTT5-4.8.2-4] [MQTT5-4.8.2-5]; QoS 0 on top.
    let is_once = match message.qos {
        QoS::AtMostOnce => true,
        QoS::AtLeastOnce => false,
        QoS::ExactlyOnce => earlier.qos != QoS::AtLeastOnce,
    };
    if is_once {
        // A session that is not in the store: the group's own queue has the delivery until PUBREC.
        let is_excused = earlier.qos == QoS::ExactlyOnce && earlier.is_clean && was_crash;
        return match is_excused && !earlier.is_done {
            true => Ok(()),
            false => fails(Rule::Duplicate),
        };
    }
    if message.resends > 0 {
        return Ok(());
    }
    if earlier.is_done {
        return fails(Rule::Redispatch);
    }
    // What was on the wire when a connection ended may be read later than what went elsewhere afterwards.
    if is_over(receipt.link) {
        return Ok(());
    }
    let has_departed = was_crash || is_over(earlier.link);
    let is_elsewhere = earlier.client != receipt.client;
    let must_wait = waits_for_session && is_elsewhere && !was_crash;
    match has_departed && !must_wait {
        true => Ok(()),
        false => fails(Rule::Redispatch),
    }
}
