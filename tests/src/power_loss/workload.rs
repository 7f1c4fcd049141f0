//! Random actions as a broker would submit them.
//!
//! Sequences grow per queue and have holes, packet ids are taken and freed, sessions and share groups come and go for good,
//! a publish may still name a session that has just ended. Deliveries of share groups move to members and back, each to
//! its old place, or on to another queue.

use super::Chance;
use motemq_codec::{PacketId, QoS, RetainHandling, SubscribeOptions};
use motemq_core::{
    Action, Attributes, ClientId, Expiry, Identity, Image, Message, MessageId, Origin,
    PublishAction, QueueId, QueueRef, RetainedEffect, SessionRow, StoredSubscription, Timestamp,
    TopicName, Urgency, Will,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A delivery's place.
type Place = (QueueId, u64);

/// The source of actions.
#[derive(Clone, Debug)]
pub struct Workload {
    chance: Chance,
    sessions_max: usize,
    /// Unsettled deliveries above which settling prevails.
    refs_max: usize,
    messages: u64,
    ended: Vec<QueueId>,
    /// Where deliveries that were moved came from, with the position of their bodies.
    origins: BTreeMap<Place, (Place, u64)>,
}

impl Workload {
    /// A source.
    #[must_use]
    pub fn new(mut chance: Chance) -> Self {
        Self {
            sessions_max: chance.pick(&[2, 6, 12]),
            refs_max: chance.pick(&[20, 80, 300]),
            chance,
            messages: 0,
            ended: Vec::new(),
            origins: BTreeMap::new(),
        }
    }

    /// The actions of one commit, and `image` with them applied; the first is stored at `first`.
    pub fn batch(&mut self, image: &Image, first: u64) -> (Vec<Action>, Image) {
        let mut next = image.clone();
        let count = match self.chance.below(10) {
            0..5 => 1,
            5..9 => self.chance.between(2, 8),
            _ => self.chance.between(10, 60),
        };
        let mut actions = Vec::new();
        for position in first..first + count {
            let action = self.action(&next);
            next.apply(position, &action, &mut |_| ());
            actions.push(action);
        }
        (actions, next)
    }

    fn action(&mut self, image: &Image) -> Action {
        let refs: usize = image.queues.values().map(|queue| queue.refs.len()).sum();
        if image.sessions.is_empty()
            || (image.sessions.len() < self.sessions_max && self.chance.per_mille(40))
        {
            return self.new_session(image);
        }
        if refs > self.refs_max && self.chance.per_mille(800) {
            return self.settle(image);
        }
        if self.chance.per_mille(180) {
            return self.share(image);
        }
        match self.chance.below(1000) {
            0..430 => self.publish(image),
            430..730 => self.settle(image),
            730..800 => self.release(image),
            800..840 => self.free_packet_id(image),
            840..900 => self.subscribe(image),
            900..930 => self.unsubscribe(image),
            930..985 => self.change_session(image),
            _ => self.end_session(image),
        }
    }

    /// What share groups do.
    fn share(&mut self, image: &Image) -> Action {
        let groups: Vec<_> = groups(image).collect();
        if groups.is_empty() || (groups.len() < GROUPS_MAX && self.chance.per_mille(60)) {
            return self.new_group(image);
        }
        let group = self.chance.pick(&groups);
        match self.chance.below(100) {
            0..55 => self.give(image, group),
            55..85 => self.take_back(image),
            85..98 => {
                let sequence = self.any_sequence(image, group);
                Action::Settle {
                    queue: group,
                    sequence,
                }
            }
            _ => {
                self.ended.push(group);
                Action::SessionEnded { queue: group }
            }
        }
    }

    fn new_group(&mut self, image: &Image) -> Action {
        let queue = QueueId::share_group(image.next_queue + self.chance.below(3));
        let subscription = StoredSubscription {
            filter: format!("$share/group-{}/plant/#", queue.number()).into(),
            options: SubscribeOptions::default(),
            subscription_id: None,
        };
        Action::Subscribed {
            queue,
            subscriptions: vec![subscription],
        }
    }

    /// A delivery of `group` goes to a session, or, now and then, to another group.
    fn give(&mut self, image: &Image, group: QueueId) -> Action {
        let sequence = self.any_sequence(image, group);
        let to = match groups(image).find(|other| *other != group) {
            Some(other) if self.chance.per_mille(50) => other,
            _ => self.any_queue(image),
        };
        let to = self.queue_ref(image, to);
        self.move_ref(image, (group, sequence), to)
    }

    /// A delivery goes back to where it came from.
    fn take_back(&mut self, image: &Image) -> Action {
        let stored = |place: &Place| image.queues.get(&place.0)?.refs.get(place.1);
        self.origins.retain(|place, (_, position)| {
            stored(place).is_some_and(|it| it.position == *position)
        });
        let index = self.chance.below(self.origins.len() as u64) as usize;
        let Some((from, (origin, _))) = self.origins.iter().nth(index) else {
            return self.publish(image);
        };
        let (from, origin) = (*from, *origin);
        let mut to = self.queue_ref(image, origin.0);
        let is_free = stored(&origin).is_none();
        if is_free && origin.0 != from.0 {
            to.sequence = origin.1;
        }
        self.move_ref(image, from, to)
    }

    /// Only what is there is moved: a broker moves what it holds.
    fn move_ref(&mut self, image: &Image, from: Place, to: QueueRef) -> Action {
        let queue = image.queues.get(&from.0);
        let Some(stored) = queue.and_then(|queue| queue.refs.get(from.1)) else {
            return self.publish(image);
        };
        if from.0 == to.queue {
            return self.publish(image);
        }
        self.origins
            .insert((to.queue, to.sequence), (from, stored.position));
        Action::Move {
            from,
            to,
            position: stored.position,
            bytes: stored.bytes,
        }
    }

    fn any_queue(&mut self, image: &Image) -> QueueId {
        let index = self.chance.below(image.sessions.len() as u64) as usize;
        image
            .sessions
            .keys()
            .nth(index)
            .copied()
            .unwrap_or(QueueId::session(0))
    }

    fn new_session(&mut self, image: &Image) -> Action {
        let queue = QueueId::session(image.next_queue + self.chance.below(3));
        let identity = match self.chance.below(3) {
            0 => Identity::Anonymous,
            1 => Identity::User("operator".into()),
            _ => Identity::Certificate(format!("device-{}", queue.as_u64()).into()),
        };
        Action::SessionPut(Box::new(SessionRow {
            queue,
            client_id: ClientId::new(&format!("device-{}", queue.as_u64())),
            identity,
            attributes: self.attributes(),
            epoch: 1,
            expiry: self
                .chance
                .pick(&[Expiry::Never, Expiry::AfterSeconds(3600)]),
            disconnected_at: None,
            sent_below: 0,
            will: self.will(),
        }))
    }

    fn attributes(&mut self) -> Arc<Attributes> {
        match self.chance.below(2) {
            0 => Attributes::none(),
            _ => Arc::new(Attributes {
                groups: ["meters".into()].into(),
                fields: [("ou".into(), "hall".into())].into(),
                rules: [].into(),
            }),
        }
    }

    fn will(&mut self) -> Option<Arc<Will>> {
        let is_set = self.chance.per_mille(500);
        is_set.then(|| {
            Arc::new(Will {
                message: self.message(),
                message_expiry_s: self.chance.pick(&[None, Some(60)]),
                delay_s: self.chance.pick(&[0, 5, 100_000]),
            })
        })
    }

    fn change_session(&mut self, image: &Image) -> Action {
        let queue = self.any_queue(image);
        let Some(row) = image.sessions.get(&queue) else {
            return self.new_session(image);
        };
        let mut row = row.clone();
        if row.disconnected_at.is_some() {
            row.epoch += 1;
            row.disconnected_at = None;
            row.sent_below = 0;
            row.will = self.will();
        } else {
            row.disconnected_at = Some(Timestamp::from_ms(1_700_000_000_000 + self.messages));
            row.sent_below = self.chance.below(100);
        }
        Action::SessionPut(Box::new(row))
    }

    fn end_session(&mut self, image: &Image) -> Action {
        let queue = self.any_queue(image);
        self.ended.push(queue);
        Action::SessionEnded { queue }
    }

    fn subscribe(&mut self, image: &Image) -> Action {
        let queue = self.any_queue(image);
        let count = self.chance.between(1, 4);
        let subscriptions = (0..count)
            .map(|_| StoredSubscription {
                filter: self.filter(),
                options: SubscribeOptions {
                    qos: self
                        .chance
                        .pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
                    no_local: self.chance.per_mille(200),
                    retain_as_published: self.chance.per_mille(300),
                    retain_handling: self.chance.pick(&[
                        RetainHandling::SendAlways,
                        RetainHandling::SendIfNew,
                        RetainHandling::DoNotSend,
                    ]),
                },
                subscription_id: self.chance.pick(&[None, Some(7), Some(268_435_455)]),
            })
            .collect();
        Action::Subscribed {
            queue,
            subscriptions,
        }
    }

    fn unsubscribe(&mut self, image: &Image) -> Action {
        let queue = self.any_queue(image);
        let count = self.chance.between(1, 3);
        let filters = (0..count).map(|_| self.filter()).collect();
        Action::Unsubscribed { queue, filters }
    }

    fn filter(&mut self) -> Box<str> {
        let number = self.chance.below(8);
        let filter = match self.chance.below(3) {
            0 => format!("plant/{number}/temperature"),
            1 => format!("plant/+/{number}"),
            _ => format!("plant/{number}/#"),
        };
        filter.into()
    }

    fn free_packet_id(&mut self, image: &Image) -> Action {
        let taken = image.inbound.len() as u64;
        let index = self.chance.below(taken) as usize;
        match image.inbound.iter().nth(index) {
            Some((queue, packet_id)) => Action::InboundRemoved {
                queue: *queue,
                packet_id: *packet_id,
            },
            None => self.publish(image),
        }
    }

    /// The oldest, mostly; sometimes another, or one that is not there.
    fn settle(&mut self, image: &Image) -> Action {
        let queue = self.any_queue(image);
        let sequence = self.any_sequence(image, queue);
        Action::Settle { queue, sequence }
    }

    fn release(&mut self, image: &Image) -> Action {
        let queue = self.any_queue(image);
        let sequence = self.any_sequence(image, queue);
        let is_exactly_once = image
            .queues
            .get(&queue)
            .and_then(|known| known.refs.get(sequence))
            .is_some_and(|stored| stored.qos == QoS::ExactlyOnce);
        if is_exactly_once {
            Action::Release { queue, sequence }
        } else {
            Action::Settle { queue, sequence }
        }
    }

    fn any_sequence(&mut self, image: &Image, queue: QueueId) -> u64 {
        let Some(known) = image.queues.get(&queue) else {
            return 0;
        };
        if self.chance.per_mille(30) {
            return self.chance.below(known.next_sequence);
        }
        let index = if self.chance.per_mille(700) {
            0
        } else {
            self.chance.below(known.refs.len() as u64)
        };
        known.refs.keys().nth(index as usize).unwrap_or(0)
    }

    fn publish(&mut self, image: &Image) -> Action {
        let message = self.message();
        let mut refs = Vec::new();
        let queues: Vec<_> = image
            .sessions
            .keys()
            .copied()
            .chain(groups(image))
            .collect();
        let everyone = self.chance.per_mille(150);
        for queue in queues {
            if everyone || self.chance.per_mille(300) {
                refs.push(self.queue_ref(image, queue));
            }
        }
        if let Some(queue) = self.ended.last().copied()
            && self.chance.per_mille(20)
            && refs.iter().all(|known| known.queue != queue)
        {
            refs.push(self.queue_ref(image, queue));
        }
        let retained = match self.chance.below(10) {
            0..7 => RetainedEffect::None,
            7..9 => RetainedEffect::Set,
            _ => RetainedEffect::Clear,
        };
        let inbound = self.chance.per_mille(200).then(|| {
            let id = self.chance.between(1, 20) as u16;
            PacketId::new(id).map(|id| (self.any_queue(image), id))
        });
        let will_of = self.chance.per_mille(60).then(|| self.any_queue(image));
        Action::Publish(PublishAction {
            message: Arc::new(message),
            refs,
            retained,
            inbound: inbound.flatten(),
            will_of,
        })
    }

    fn queue_ref(&mut self, image: &Image, queue: QueueId) -> QueueRef {
        let next = image
            .queues
            .get(&queue)
            .map_or(0, |known| known.next_sequence);
        // Deliveries that ended before their record was written leave holes.
        let hole = match self.chance.below(100) {
            0..80 => 0,
            80..97 => self.chance.between(1, 5),
            _ => self.chance.between(100, 700),
        };
        let ids: &[u32] = self.chance.pick(&[&[], &[1], &[3, 70_000, 268_435_455]]);
        QueueRef {
            queue,
            sequence: next + hole,
            qos: self.chance.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]),
            retain: self.chance.per_mille(100),
            subscription_ids: (!ids.is_empty()).then(|| ids.into()),
        }
    }

    fn message(&mut self) -> Message {
        self.messages += 1;
        let length = match self.chance.below(1000) {
            0..150 => 0,
            150..850 => self.chance.between(1, 200),
            850..980 => self.chance.between(200, 6000),
            980..998 => self.chance.between(6000, 30_000),
            _ => self.chance.between(60_000, 140_000),
        };
        let seed = self.chance.below(251);
        let payload = (0..length)
            .map(|at| (((at + self.messages) % 251) ^ seed) as u8)
            .collect();
        Message {
            topic: TopicName::new(&format!("plant/{}/temperature", self.chance.below(12))),
            payload,
            forwarded: if self.chance.per_mille(200) {
                [1, 1].into()
            } else {
                [].into()
            },
            qos: self.chance.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]),
            retain: self.chance.per_mille(200),
            publisher: ClientId::new("publisher"),
            origin: self
                .chance
                .pick(&[Origin::Client, Origin::Will, Origin::Broker, Origin::Peer]),
            hops: 0,
            received_at: Timestamp::from_ms(1_700_000_000_000 + self.messages),
            expires_at: self
                .chance
                .pick(&[None, Some(Timestamp::from_ms(1_800_000_000_000))]),
            urgency: Urgency(self.chance.below(4) as u8),
            id: MessageId {
                connection: 1 << 33,
                sequence: self.messages,
            },
            attempts: 0,
        }
    }
}

/// The share groups that are in the store.
fn groups(image: &Image) -> impl Iterator<Item = QueueId> {
    let queues = image.subscriptions.keys().copied();
    queues.filter(|queue| queue.is_share_group())
}

const GROUPS_MAX: usize = 3;
