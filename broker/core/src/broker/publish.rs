//! The publish seam: from one message to its receivers' mailboxes, the retained message of its topic, and one record.

use super::subscribe::Replay;
use super::{Broker, Keeps, PublishSource, Receipt, STRIPES};
use crate::action::{PublishAction, RetainedEffect};
use crate::counters::{Limit, Occasion, Tally};
use crate::journal::Room;
use crate::mailbox::{Mailbox, Push};
use crate::message::Message;
use crate::record::{Elidable, Record};
use crate::router::{Receiver, Receivers};
use crate::sync::{lock, write};
use motemq_codec::{QoS, ReasonCode};
use std::hash::BuildHasher;
use std::sync::Arc;

impl Broker {
    /// The publish seam: hands `message` to its receivers and to the store.
    pub fn publish(
        &self,
        message: &Arc<Message>,
        receivers: &Receivers,
        source: PublishSource,
        tally: &mut Tally,
    ) -> Receipt {
        let retained = match (message.retain, message.payload.is_empty()) {
            (false, _) => RetainedEffect::None,
            (true, true) => RetainedEffect::Clear,
            (true, false) => RetainedEffect::Set,
        };
        let needs_record = self.keeps == Keeps::Store
            && (retained != RetainedEffect::None
                || source.inbound.is_some()
                || source.will_of.is_some()
                || message.qos != QoS::AtMostOnce && has_durable_receiver(message, receivers));
        if let Some(refusal) = self.refusal(message, receivers, needs_record, tally) {
            tally.note(Occasion::PublishRefused);
            return refusal;
        }
        // Two publishes to one retained topic must reach memory and journal in the same order.
        let _stripe = (retained != RetainedEffect::None).then(|| self.lock_stripe(message));
        match retained {
            RetainedEffect::None => {}
            RetainedEffect::Set => {
                let set = write(&self.retained).set(message.clone(), &self.limits());
                if let Err(limit) = set {
                    tally.reach(limit);
                    tally.note(Occasion::PublishRefused);
                    return Receipt::Refused(ReasonCode::QuotaExceeded);
                }
            }
            RetainedEffect::Clear => {
                write(&self.retained).clear(message.topic.as_str());
            }
        }
        let record = needs_record.then(|| {
            let plain = retained == RetainedEffect::None
                && source.will_of.is_none()
                && message.qos == QoS::AtLeastOnce;
            let action = PublishAction {
                message: message.clone(),
                refs: Vec::new(),
                retained,
                inbound: source.inbound,
                will_of: source.will_of,
            };
            Record::open(action, if plain { Elidable::Yes } else { Elidable::No })
        });
        self.hand_over(message, receivers, record.as_ref(), tally);
        if let Some(record) = &record
            && record.close()
        {
            self.journal.submit(record.clone());
        }
        let code = if receivers.is_empty() {
            tally.lose_unrouted(message);
            ReasonCode::NoMatchingSubscribers
        } else {
            ReasonCode::Success
        };
        Receipt::Accepted {
            code,
            awaited: record,
        }
    }

    pub(super) fn hand_over(
        &self,
        message: &Arc<Message>,
        receivers: &Receivers,
        record: Option<&Arc<Record>>,
        tally: &mut Tally,
    ) {
        for receiver in &receivers.list {
            let push = Push {
                message,
                record,
                qos: message.qos.min(receiver.qos),
                retain: message.retain && receiver.retain_as_published,
                subscription_ids: receiver.subscription_ids.clone(),
                group: None,
            };
            receiver.mailbox.push(push, self.journal(), tally);
        }
        for group in &receivers.groups {
            group.dispatch(message, record, self.journal(), tally);
        }
    }

    fn refusal(
        &self,
        message: &Message,
        receivers: &Receivers,
        needs_record: bool,
        tally: &mut Tally,
    ) -> Option<Receipt> {
        if needs_record {
            match self.journal.room() {
                Room::Open | Room::Congested => {}
                Room::Full => {
                    tally.reach(Limit::Store);
                    return Some(Receipt::Refused(ReasonCode::QuotaExceeded));
                }
                Room::Failed(_) => return Some(Receipt::Unavailable),
            }
        }
        if message.qos == QoS::AtMostOnce {
            return None;
        }
        let bytes = message.size_bytes();
        let sessions = receivers
            .list
            .iter()
            .filter(|receiver| receiver.qos != QoS::AtMostOnce)
            .filter_map(|receiver| receiver.mailbox.refuses(bytes));
        let groups = receivers
            .groups
            .iter()
            .filter_map(|group| group.refuses(bytes));
        let full = sessions.chain(groups).next()?;
        tally.reach(full);
        Some(Receipt::Refused(ReasonCode::QuotaExceeded))
    }

    fn lock_stripe(&self, message: &Message) -> std::sync::MutexGuard<'_, ()> {
        let hash = self.stripe_hasher.hash_one(message.topic.as_str());
        let index = usize::try_from(hash % STRIPES).unwrap_or(0);
        #[expect(
            clippy::indexing_slicing,
            reason = "the index is below the number of stripes"
        )]
        lock(&self.retained_stripes[index])
    }

    /// Sends a retained message to one subscriber; durable if its session is.
    pub(crate) fn replay(&self, mailbox: &Mailbox, replay: Replay, tally: &mut Tally) {
        let needs_record =
            self.keeps == Keeps::Store && replay.qos != QoS::AtMostOnce && mailbox.is_durable();
        let record = needs_record.then(|| {
            let action = PublishAction {
                message: replay.message.clone(),
                refs: Vec::new(),
                retained: RetainedEffect::None,
                inbound: None,
                will_of: None,
            };
            Record::open(action, Elidable::Yes)
        });
        let push = Push {
            message: &replay.message,
            record: record.as_ref(),
            qos: replay.qos,
            retain: true,
            subscription_ids: replay.subscription_id.map(|id| Arc::from([id])),
            group: None,
        };
        mailbox.push(push, self.journal(), tally);
        if let Some(record) = record
            && record.close()
        {
            self.journal.submit(record);
        }
    }
}

/// Whether a message that is not QoS 0 must be in the store for someone.
fn has_durable_receiver(message: &Message, receivers: &Receivers) -> bool {
    let is_durable =
        |receiver: &Receiver| receiver.qos != QoS::AtMostOnce && receiver.mailbox.is_durable();
    receivers.list.iter().any(is_durable)
        || receivers
            .groups
            .iter()
            .any(|group| group.needs_store(message.qos))
}
