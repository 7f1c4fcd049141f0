//! How actions and rows look on disk, byte by byte.
//!
//! All integers are little-endian; `varint` is LEB128 (7 bits a byte, low first); `bytes` and `text` are a varint length
//! and the bytes. Every value starts with a version byte; a reader refuses a version it does not know.
//!
//! ```text
//! message   1, flags (bits 0-1 QoS, 2 retain, 3 expires, 4 routed, 5 has properties),
//!           [origin, hops, urgency, varint attempts], text topic, text publisher, [bytes forwarded], varint received_ms,
//!           [varint expires_ms], varint connection, varint sequence, bytes payload
//! ref       varint queue, varint sequence, flags (bits 0-1 QoS, 2 retain, 3 has ids, 4 released), [varint n, n x varint id]
//! page      u64 tag, n x (varint length, u32 half of the action's tag, action)
//! action    kind, then by kind:
//!   1 publish         effects (bits 0 retained set, 1 retained clear, 2 inbound, 3 will), message,
//!                     [varint queue, u16 packet id], [varint will queue], varint n, n x ref
//!   2 settle          varint queue, varint sequence
//!   3 release         varint queue, varint sequence
//!   4 inbound removed varint queue, u16 packet id
//!   5 session put     session row
//!   6 session ended   varint queue
//!   7 subscribed      varint queue, varint n, n x (text filter, subscription)
//!   8 unsubscribed    varint queue, varint n, n x text filter
//!   9 move            varint queue, varint sequence, ref, varint position, varint size
//! session   1, varint queue, text client id, identity kind (0 anonymous, 1 user, 2 certificate), [text name],
//!           varint epoch, u32 expiry, flags (bit 0 disconnected, 1 will), [varint disconnected_ms, varint sent below],
//!           [message, varint delay, flag, [varint expiry]]
//! subscription  1, options (bits 0-1 QoS, 2 no local, 3 as published, 4-5 handling), flag, [varint id]
//! ```

use motemq_codec::{PacketId, QoS, RetainHandling, SubscribeOptions};
use motemq_core::{
    Action, Attributes, ClientId, Expiry, Identity, Message, MessageId, Origin, PublishAction,
    QueueId, QueueRef, RetainedEffect, SessionRow, StoredRef, StoredSubscription, Timestamp,
    TopicName, Urgency, Will,
};
use std::sync::Arc;

/// The bytes are not what the layout says.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// They end too early.
    #[error("the record ends too early")]
    Truncated,
    /// A version byte of a later release.
    #[error("the record has version {0}, this release reads version 1")]
    Version(u8),
    /// A value that the layout does not allow.
    #[error("the record holds an impossible value in {0}")]
    Value(&'static str),
}

/// Appends an action.
pub fn write_action(action: &Action, out: &mut Vec<u8>) {
    match action {
        Action::Publish(publish) => write_publish(publish, out),
        Action::Settle { queue, sequence } => {
            out.push(SETTLE);
            write_varint(queue.as_u64(), out);
            write_varint(*sequence, out);
        }
        Action::Move {
            from: (queue, sequence),
            to,
            position,
            bytes,
        } => {
            out.push(MOVE);
            write_varint(queue.as_u64(), out);
            write_varint(*sequence, out);
            write_ref(to, out);
            write_varint(*position, out);
            write_varint(u64::from(*bytes), out);
        }
        Action::Release { queue, sequence } => {
            out.push(RELEASE);
            write_varint(queue.as_u64(), out);
            write_varint(*sequence, out);
        }
        Action::InboundRemoved { queue, packet_id } => {
            out.push(INBOUND_REMOVED);
            write_varint(queue.as_u64(), out);
            out.extend(packet_id.get().to_le_bytes());
        }
        Action::SessionPut(row) => {
            out.push(SESSION_PUT);
            write_session(row, out);
        }
        Action::SessionEnded { queue } => {
            out.push(SESSION_ENDED);
            write_varint(queue.as_u64(), out);
        }
        Action::Subscribed {
            queue,
            subscriptions,
        } => {
            out.push(SUBSCRIBED);
            write_varint(queue.as_u64(), out);
            write_varint(subscriptions.len() as u64, out);
            for subscription in subscriptions {
                write_bytes(subscription.filter.as_bytes(), out);
                write_subscription(subscription, out);
            }
        }
        Action::Unsubscribed { queue, filters } => {
            out.push(UNSUBSCRIBED);
            write_varint(queue.as_u64(), out);
            write_varint(filters.len() as u64, out);
            for filter in filters {
                write_bytes(filter.as_bytes(), out);
            }
        }
    }
}

fn write_publish(publish: &PublishAction, out: &mut Vec<u8>) {
    out.push(PUBLISH);
    let retained = match publish.retained {
        RetainedEffect::None => 0,
        RetainedEffect::Set => 1,
        RetainedEffect::Clear => 2,
    };
    let inbound = u8::from(publish.inbound.is_some()) << 2;
    let will = u8::from(publish.will_of.is_some()) << 3;
    out.push(retained | inbound | will);
    write_message(&publish.message, out);
    if let Some((queue, packet_id)) = publish.inbound {
        write_varint(queue.as_u64(), out);
        out.extend(packet_id.get().to_le_bytes());
    }
    if let Some(queue) = publish.will_of {
        write_varint(queue.as_u64(), out);
    }
    write_varint(publish.refs.len() as u64, out);
    for queue_ref in &publish.refs {
        write_ref(queue_ref, out);
    }
}

fn write_ref(queue_ref: &QueueRef, out: &mut Vec<u8>) {
    write_varint(queue_ref.queue.as_u64(), out);
    write_varint(queue_ref.sequence, out);
    let ids = queue_ref.subscription_ids.as_deref();
    write_ref_flags(queue_ref.qos, queue_ref.retain, false, ids, out);
}

fn write_ref_flags(
    qos: QoS,
    retain: bool,
    is_released: bool,
    ids: Option<&[u32]>,
    out: &mut Vec<u8>,
) {
    let flags = qos as u8
        | u8::from(retain) << 2
        | u8::from(ids.is_some()) << 3
        | u8::from(is_released) << 4;
    out.push(flags);
    if let Some(ids) = ids {
        write_varint(ids.len() as u64, out);
        ids.iter().for_each(|id| write_varint(u64::from(*id), out));
    }
}

/// Reads an action that fills `bytes`.
///
/// # Errors
/// When the bytes do not follow the layout.
pub fn read_action(bytes: &[u8]) -> Result<Action, LayoutError> {
    let mut reader = Reader(bytes);
    let action = match reader.byte()? {
        PUBLISH => Action::Publish(reader.publish()?),
        SETTLE => Action::Settle {
            queue: reader.queue()?,
            sequence: reader.varint()?,
        },
        MOVE => Action::Move {
            from: (reader.queue()?, reader.varint()?),
            to: reader.queue_ref()?,
            position: reader.position()?,
            bytes: reader.size()?,
        },
        RELEASE => Action::Release {
            queue: reader.queue()?,
            sequence: reader.varint()?,
        },
        INBOUND_REMOVED => Action::InboundRemoved {
            queue: reader.queue()?,
            packet_id: reader.packet_id()?,
        },
        SESSION_PUT => Action::SessionPut(Box::new(reader.session()?)),
        SESSION_ENDED => Action::SessionEnded {
            queue: reader.queue()?,
        },
        SUBSCRIBED => {
            let queue = reader.queue()?;
            let count = reader.varint()?;
            let subscriptions = (0..count)
                .map(|_| {
                    let filter = reader.text()?.into();
                    reader.subscription(filter)
                })
                .collect::<Result<_, _>>()?;
            Action::Subscribed {
                queue,
                subscriptions,
            }
        }
        UNSUBSCRIBED => {
            let queue = reader.queue()?;
            let count = reader.varint()?;
            let filters = (0..count)
                .map(|_| reader.text().map(Box::from))
                .collect::<Result<_, _>>()?;
            Action::Unsubscribed { queue, filters }
        }
        _ => return Err(LayoutError::Value("kind of action")),
    };
    reader.end(action)
}

/// Reads only the message of a publish action; `None` for another action.
///
/// # Errors
/// When the bytes do not follow the layout.
pub fn read_action_message(bytes: &[u8]) -> Result<Option<Message>, LayoutError> {
    let mut reader = Reader(bytes);
    if reader.byte()? != PUBLISH {
        return Ok(None);
    }
    reader.byte()?;
    reader.message().map(Some)
}

/// A publish action whose message is left as it is stored: folding needs it of those alone that are still queued, and then to
/// write it as it is. (Reading it would be a fifth of what folding costs.)
#[derive(Debug)]
pub struct StoredPublish<'a> {
    /// The message, as [`read_message`] reads it.
    pub message: &'a [u8],
    /// Its topic.
    pub topic: &'a str,
    /// As in [`PublishAction`].
    pub refs: Vec<QueueRef>,
    /// As in [`PublishAction`].
    pub retained: RetainedEffect,
    /// As in [`PublishAction`].
    pub inbound: Option<(QueueId, PacketId)>,
    /// As in [`PublishAction`].
    pub will_of: Option<QueueId>,
}

/// Reads a publish action that fills `bytes`, but for its message; `None` for another action.
///
/// # Errors
/// When the bytes do not follow the layout.
pub fn read_stored_publish(bytes: &[u8]) -> Result<Option<StoredPublish<'_>>, LayoutError> {
    let mut reader = Reader(bytes);
    if reader.byte()? != PUBLISH {
        return Ok(None);
    }
    let effects = reader.byte()?;
    let behind = reader.0;
    let topic = reader.skip_message()?;
    let message = behind
        .get(..behind.len() - reader.0.len())
        .unwrap_or_default();
    let parts = reader.publish_parts(effects)?;
    reader.end(Some(StoredPublish {
        message,
        topic,
        refs: parts.refs,
        retained: parts.retained,
        inbound: parts.inbound,
        will_of: parts.will_of,
    }))
}

/// Appends a message.
pub fn write_message(message: &Message, out: &mut Vec<u8>) {
    // What a client publishes has none of it but by default, and a queue may hold millions.
    let is_routed = message.origin != Origin::Client
        || message.hops != 0
        || message.urgency != Urgency::default()
        || message.attempts != 0;
    let flags = message.qos as u8
        | u8::from(message.retain) << 2
        | u8::from(message.expires_at.is_some()) << 3
        | u8::from(is_routed) << 4
        | u8::from(!message.forwarded.is_empty()) << 5;
    out.extend([VERSION, flags]);
    if is_routed {
        out.extend([message.origin as u8, message.hops, message.urgency.0]);
        write_varint(u64::from(message.attempts), out);
    }
    write_bytes(message.topic.as_str().as_bytes(), out);
    write_bytes(message.publisher.as_str().as_bytes(), out);
    if !message.forwarded.is_empty() {
        write_bytes(&message.forwarded, out);
    }
    write_varint(message.received_at.as_ms(), out);
    if let Some(at) = message.expires_at {
        write_varint(at.as_ms(), out);
    }
    write_varint(message.id.connection, out);
    write_varint(message.id.sequence, out);
    write_bytes(&message.payload, out);
}

/// Reads a message that fills `bytes`.
///
/// # Errors
/// When the bytes do not follow the layout.
pub fn read_message(bytes: &[u8]) -> Result<Message, LayoutError> {
    let mut reader = Reader(bytes);
    let message = reader.message()?;
    reader.end(message)
}

/// Appends a session's row.
pub fn write_session(row: &SessionRow, out: &mut Vec<u8>) {
    out.push(VERSION);
    write_varint(row.queue.as_u64(), out);
    write_bytes(row.client_id.as_str().as_bytes(), out);
    match &row.identity {
        Identity::Anonymous => out.push(0),
        Identity::User(name) => {
            out.push(1);
            write_bytes(name.as_bytes(), out);
        }
        Identity::Certificate(name) => {
            out.push(2);
            write_bytes(name.as_bytes(), out);
        }
    }
    write_varint(row.epoch, out);
    out.extend(row.expiry.as_seconds().to_le_bytes());
    out.push(
        u8::from(row.disconnected_at.is_some())
            | u8::from(row.will.is_some()) << 1
            | u8::from(!row.attributes.is_empty()) << 2,
    );
    if let Some(at) = row.disconnected_at {
        write_varint(at.as_ms(), out);
        write_varint(row.sent_below, out);
    }
    if let Some(will) = &row.will {
        write_message(&will.message, out);
        write_varint(u64::from(will.delay_s), out);
        write_optional(will.message_expiry_s, out);
    }
    if !row.attributes.is_empty() {
        write_attributes(&row.attributes, out);
    }
}

/// Groups, fields and rules, each behind their number.
fn write_attributes(attributes: &Attributes, out: &mut Vec<u8>) {
    let mut write_texts = |texts: &[&str]| {
        write_varint(texts.len() as u64, out);
        for text in texts {
            write_bytes(text.as_bytes(), out);
        }
    };
    let groups: Vec<&str> = attributes.groups.iter().map(|group| &**group).collect();
    let fields = attributes.fields.iter();
    let fields: Vec<&str> = fields
        .flat_map(|(name, value)| [&**name, &**value])
        .collect();
    let rules: Vec<&str> = attributes.rules.iter().map(|rule| &**rule).collect();
    [groups, fields, rules]
        .iter()
        .for_each(|texts| write_texts(texts));
}

/// Reads a session's row that fills `bytes`.
///
/// # Errors
/// When the bytes do not follow the layout.
pub fn read_session(bytes: &[u8]) -> Result<SessionRow, LayoutError> {
    let mut reader = Reader(bytes);
    let row = reader.session()?;
    reader.end(row)
}

/// Appends a subscription without its filter.
pub fn write_subscription(subscription: &StoredSubscription, out: &mut Vec<u8>) {
    let options = subscription.options;
    out.push(VERSION);
    out.push(
        options.qos as u8
            | u8::from(options.no_local) << 2
            | u8::from(options.retain_as_published) << 3
            | (options.retain_handling as u8) << 4,
    );
    write_optional(subscription.subscription_id, out);
}

/// Reads the subscription to `filter` that fills `bytes`.
///
/// # Errors
/// When the bytes do not follow the layout.
pub fn read_subscription(filter: &str, bytes: &[u8]) -> Result<StoredSubscription, LayoutError> {
    let mut reader = Reader(bytes);
    let subscription = reader.subscription(filter.into())?;
    reader.end(subscription)
}

/// Appends a chunk of a queue: version, varint count, then per delivery the ref without its queue, the varint position
/// of its body and its varint size.
pub fn write_chunk(refs: &[StoredRef], out: &mut Vec<u8>) {
    out.push(VERSION);
    write_varint(refs.len() as u64, out);
    for stored in refs {
        write_varint(stored.sequence, out);
        let ids = stored.subscription_ids.as_deref();
        write_ref_flags(stored.qos, stored.retain, stored.is_released, ids, out);
        write_varint(stored.position, out);
        write_varint(u64::from(stored.bytes), out);
    }
}

/// Reads a chunk of a queue that fills `bytes`.
///
/// # Errors
/// When the bytes do not follow the layout.
pub fn read_chunk(bytes: &[u8]) -> Result<Vec<StoredRef>, LayoutError> {
    let mut reader = Reader(bytes);
    reader.version()?;
    let count = reader.varint()?;
    let mut refs = Vec::new();
    for _ in 0..count {
        let sequence = reader.varint()?;
        let flags = reader.ref_flags()?;
        refs.push(StoredRef {
            sequence,
            qos: flags.qos,
            retain: flags.retain,
            is_released: flags.is_released,
            subscription_ids: flags.subscription_ids,
            position: reader.position()?,
            bytes: reader.size()?,
        });
    }
    reader.end(refs)
}

fn write_optional(value: Option<u32>, out: &mut Vec<u8>) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        write_varint(u64::from(value), out);
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a LEB128 integer.
pub fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader<'a>(&'a [u8]);

/// What a publish action has beside its message.
struct PublishParts {
    refs: Vec<QueueRef>,
    retained: RetainedEffect,
    inbound: Option<(QueueId, PacketId)>,
    will_of: Option<QueueId>,
}

struct RefFlags {
    qos: QoS,
    retain: bool,
    is_released: bool,
    subscription_ids: Option<Arc<[u32]>>,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, LayoutError> {
        let (first, rest) = self.0.split_first().ok_or(LayoutError::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], LayoutError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(LayoutError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LayoutError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(LayoutError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn varint(&mut self) -> Result<u64, LayoutError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(LayoutError::Value("varint"))
    }

    fn narrow<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T, LayoutError> {
        T::try_from(self.varint()?).map_err(|_| LayoutError::Value(what))
    }

    fn position(&mut self) -> Result<u64, LayoutError> {
        let position = self.varint()?;
        let is_possible = position <= StoredRef::POSITION_MAX;
        is_possible
            .then_some(position)
            .ok_or(LayoutError::Value("position"))
    }

    fn size(&mut self) -> Result<u32, LayoutError> {
        let size = self.narrow("size")?;
        let is_possible = size <= StoredRef::BYTES_MAX;
        is_possible
            .then_some(size)
            .ok_or(LayoutError::Value("size"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], LayoutError> {
        let length = self.narrow("length")?;
        self.take(length)
    }

    fn text(&mut self) -> Result<&'a str, LayoutError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| LayoutError::Value("text"))
    }

    fn version(&mut self) -> Result<(), LayoutError> {
        match self.byte()? {
            VERSION => Ok(()),
            other => Err(LayoutError::Version(other)),
        }
    }

    fn queue(&mut self) -> Result<QueueId, LayoutError> {
        self.varint().map(QueueId::from_u64)
    }

    fn packet_id(&mut self) -> Result<PacketId, LayoutError> {
        let value = u16::from_le_bytes(self.array()?);
        PacketId::new(value).ok_or(LayoutError::Value("packet id"))
    }

    fn qos(&mut self, flags: u8) -> Result<QoS, LayoutError> {
        QoS::from_bits(flags & 3).ok_or(LayoutError::Value("QoS"))
    }

    fn optional(&mut self) -> Result<Option<u32>, LayoutError> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.narrow("optional number").map(Some),
            _ => Err(LayoutError::Value("flag")),
        }
    }

    fn ref_flags(&mut self) -> Result<RefFlags, LayoutError> {
        let flags = self.byte()?;
        let subscription_ids = if flags & 8 == 0 {
            None
        } else {
            let count = self.varint()?;
            let ids = (0..count).map(|_| self.narrow("subscription id"));
            Some(ids.collect::<Result<_, _>>()?)
        };
        Ok(RefFlags {
            qos: self.qos(flags)?,
            retain: flags & 4 != 0,
            is_released: flags & 16 != 0,
            subscription_ids,
        })
    }

    fn publish(&mut self) -> Result<PublishAction, LayoutError> {
        let effects = self.byte()?;
        let message = Arc::new(self.message()?);
        let parts = self.publish_parts(effects)?;
        Ok(PublishAction {
            message,
            refs: parts.refs,
            retained: parts.retained,
            inbound: parts.inbound,
            will_of: parts.will_of,
        })
    }

    fn publish_parts(&mut self, effects: u8) -> Result<PublishParts, LayoutError> {
        let retained = match effects & 3 {
            0 => RetainedEffect::None,
            1 => RetainedEffect::Set,
            2 => RetainedEffect::Clear,
            _ => return Err(LayoutError::Value("retained effect")),
        };
        let inbound = match effects & 4 {
            0 => None,
            _ => Some((self.queue()?, self.packet_id()?)),
        };
        let will_of = match effects & 8 {
            0 => None,
            _ => Some(self.queue()?),
        };
        let count = self.varint()?;
        let mut refs = Vec::new();
        for _ in 0..count {
            refs.push(self.queue_ref()?);
        }
        Ok(PublishParts {
            refs,
            retained,
            inbound,
            will_of,
        })
    }

    fn queue_ref(&mut self) -> Result<QueueRef, LayoutError> {
        let queue = self.queue()?;
        let sequence = self.varint()?;
        let flags = self.ref_flags()?;
        Ok(QueueRef {
            queue,
            sequence,
            qos: flags.qos,
            retain: flags.retain,
            subscription_ids: flags.subscription_ids,
        })
    }

    fn message(&mut self) -> Result<Message, LayoutError> {
        self.version()?;
        let flags = self.byte()?;
        let (origin, hops, urgency, attempts) = match flags & 16 {
            0 => (Origin::Client, 0, Urgency::default(), 0),
            _ => (
                Origin::from_u8(self.byte()?).ok_or(LayoutError::Value("origin"))?,
                self.byte()?,
                Urgency(self.byte()?),
                self.narrow("attempts")?,
            ),
        };
        Ok(Message {
            qos: self.qos(flags)?,
            retain: flags & 4 != 0,
            origin,
            hops,
            urgency,
            attempts,
            topic: TopicName::new(self.text()?),
            publisher: ClientId::new(self.text()?),
            forwarded: match flags & 32 {
                0 => [].into(),
                _ => self.bytes()?.into(),
            },
            received_at: Timestamp::from_ms(self.varint()?),
            expires_at: match flags & 8 {
                0 => None,
                _ => Some(Timestamp::from_ms(self.varint()?)),
            },
            id: MessageId {
                connection: self.varint()?,
                sequence: self.varint()?,
            },
            payload: self.bytes()?.into(),
        })
    }

    /// Passes over a message; its topic.
    fn skip_message(&mut self) -> Result<&'a str, LayoutError> {
        self.version()?;
        let flags = self.byte()?;
        if flags & 16 != 0 {
            self.take(3)?;
            self.varint()?;
        }
        let topic = self.text()?;
        self.bytes()?;
        if flags & 32 != 0 {
            self.bytes()?;
        }
        let times = match flags & 8 {
            0 => 1,
            _ => 2,
        };
        for _ in 0..times + 2 {
            self.varint()?;
        }
        self.bytes()?;
        Ok(topic)
    }

    fn session(&mut self) -> Result<SessionRow, LayoutError> {
        self.version()?;
        let queue = self.queue()?;
        let client_id = ClientId::new(self.text()?);
        let identity = match self.byte()? {
            0 => Identity::Anonymous,
            1 => Identity::User(self.text()?.into()),
            2 => Identity::Certificate(self.text()?.into()),
            _ => return Err(LayoutError::Value("identity")),
        };
        let epoch = self.varint()?;
        let expiry = Expiry::from_seconds(u32::from_le_bytes(self.array()?));
        let flags = self.byte()?;
        let (disconnected_at, sent_below) = match flags & 1 {
            0 => (None, 0),
            _ => (Some(Timestamp::from_ms(self.varint()?)), self.varint()?),
        };
        let will = match flags & 2 {
            0 => None,
            _ => Some(Arc::new(Will {
                message: self.message()?,
                delay_s: self.narrow("will delay")?,
                message_expiry_s: self.optional()?,
            })),
        };
        let attributes = match flags & 4 {
            0 => Attributes::none(),
            _ => Arc::new(self.attributes()?),
        };
        Ok(SessionRow {
            queue,
            client_id,
            identity,
            attributes,
            epoch,
            expiry,
            disconnected_at,
            sent_below,
            will,
        })
    }

    fn attributes(&mut self) -> Result<Attributes, LayoutError> {
        let groups = self.texts()?.into();
        let mut fields = self.texts()?.into_iter();
        let mut pairs = Vec::new();
        while let Some(name) = fields.next() {
            let value = fields.next().ok_or(LayoutError::Value("field"))?;
            pairs.push((name, value));
        }
        Ok(Attributes {
            groups,
            fields: pairs.into(),
            rules: self.texts()?.into(),
        })
    }

    fn texts(&mut self) -> Result<Vec<Box<str>>, LayoutError> {
        let count = self.varint()?;
        // Not allocated by a number alone: each text takes a byte at least.
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(self.text()?.into());
        }
        Ok(texts)
    }

    fn subscription(&mut self, filter: Box<str>) -> Result<StoredSubscription, LayoutError> {
        self.version()?;
        let options = self.byte()?;
        let retain_handling = match options >> 4 {
            0 => RetainHandling::SendAlways,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(LayoutError::Value("retain handling")),
        };
        Ok(StoredSubscription {
            filter,
            options: SubscribeOptions {
                qos: self.qos(options)?,
                no_local: options & 4 != 0,
                retain_as_published: options & 8 != 0,
                retain_handling,
            },
            subscription_id: self.optional()?,
        })
    }

    fn end<T>(&self, value: T) -> Result<T, LayoutError> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(LayoutError::Value("length"))
        }
    }
}

const VERSION: u8 = 1;
const PUBLISH: u8 = 1;
const SETTLE: u8 = 2;
const RELEASE: u8 = 3;
const INBOUND_REMOVED: u8 = 4;
const SESSION_PUT: u8 = 5;
const SESSION_ENDED: u8 = 6;
const SUBSCRIBED: u8 = 7;
const UNSUBSCRIBED: u8 = 8;
const MOVE: u8 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_reads_back_and_no_cut_of_it_panics() {
        for action in samples() {
            let mut bytes = Vec::new();
            write_action(&action, &mut bytes);
            assert_eq!(read_action(&bytes), Ok(action.clone()));
            check_stored_publish(&action, &bytes);
            for cut in 0..bytes.len() {
                assert!(
                    read_action(&bytes[..cut]).is_err(),
                    "{action:?} cut at {cut}"
                );
            }
            for index in 0..bytes.len() {
                for bit in 0..8 {
                    let mut flipped = bytes.clone();
                    flipped[index] ^= 1 << bit;
                    let _ = read_action(&flipped);
                }
            }
        }
    }

    fn check_stored_publish(action: &Action, bytes: &[u8]) {
        let stored = read_stored_publish(bytes).unwrap();
        let Action::Publish(publish) = action else {
            assert!(stored.is_none());
            return;
        };
        let stored = stored.unwrap();
        let read_back = PublishAction {
            message: Arc::new(read_message(stored.message).unwrap()),
            refs: stored.refs,
            retained: stored.retained,
            inbound: stored.inbound,
            will_of: stored.will_of,
        };
        assert_eq!(read_back, *publish);
        assert_eq!(stored.topic, publish.message.topic.as_str());
        for cut in 0..bytes.len() {
            assert!(read_stored_publish(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn a_chunk_reads_back() {
        let refs = [
            stored(5, 9, None),
            stored(7, 1 << 40, Some([1, 268_435_455].into())),
        ];
        let mut bytes = Vec::new();
        write_chunk(&refs, &mut bytes);
        assert_eq!(read_chunk(&bytes), Ok(refs.to_vec()));
    }

    #[test]
    fn a_later_version_is_refused_by_name() {
        let mut bytes = Vec::new();
        write_message(&message(), &mut bytes);
        bytes[0] = 2;
        assert_eq!(read_message(&bytes), Err(LayoutError::Version(2)));
    }

    fn stored(sequence: u64, position: u64, subscription_ids: Option<Arc<[u32]>>) -> StoredRef {
        StoredRef {
            sequence,
            position,
            qos: QoS::ExactlyOnce,
            retain: true,
            is_released: true,
            subscription_ids,
            bytes: 77,
        }
    }

    fn message() -> Message {
        Message {
            topic: TopicName::new("plant/7/temperature"),
            payload: [0, 1, 255].into(),
            forwarded: [1, 1].into(),
            qos: QoS::AtLeastOnce,
            retain: true,
            publisher: ClientId::new("meter-7"),
            origin: Origin::Client,
            hops: 1,
            received_at: Timestamp::from_ms(1_700_000_000_123),
            expires_at: Some(Timestamp::from_ms(1_700_000_010_123)),
            urgency: Urgency(3),
            id: MessageId {
                connection: 1 << 33,
                sequence: 12,
            },
            attempts: 300,
        }
    }

    /// As most are.
    fn plain_message() -> Message {
        Message {
            forwarded: [].into(),
            hops: 0,
            expires_at: None,
            urgency: Urgency::default(),
            attempts: 0,
            ..message()
        }
    }

    fn samples() -> Vec<Action> {
        let queue = QueueId::session(300);
        let packet_id = PacketId::new(65_535).unwrap();
        let publish = PublishAction {
            message: Arc::new(message()),
            refs: vec![QueueRef {
                queue,
                sequence: 1 << 20,
                qos: QoS::ExactlyOnce,
                retain: true,
                subscription_ids: Some([1, 2, 300].into()),
            }],
            retained: RetainedEffect::Set,
            inbound: Some((queue, packet_id)),
            will_of: Some(queue),
        };
        let row = SessionRow {
            queue,
            client_id: ClientId::new("meter-7"),
            identity: Identity::Certificate("meter-7".into()),
            attributes: Arc::new(Attributes {
                groups: ["meters".into()].into(),
                fields: [("o".into(), "Example".into()), ("ou".into(), "".into())].into(),
                rules: ["allow publish a/#".into()].into(),
            }),
            epoch: 3,
            expiry: Expiry::AfterSeconds(3600),
            disconnected_at: Some(Timestamp::from_ms(5)),
            sent_below: 17,
            will: Some(Arc::new(Will {
                message: message(),
                message_expiry_s: Some(7),
                delay_s: 9,
            })),
        };
        let options = SubscribeOptions {
            qos: QoS::AtLeastOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        };
        vec![
            Action::Publish(PublishAction {
                message: Arc::new(plain_message()),
                ..publish.clone()
            }),
            Action::Publish(publish),
            Action::Settle { queue, sequence: 1 },
            Action::Release { queue, sequence: 2 },
            Action::Move {
                from: (QueueId::share_group(7), 3),
                to: QueueRef {
                    queue,
                    sequence: 9,
                    qos: QoS::ExactlyOnce,
                    retain: false,
                    subscription_ids: None,
                },
                position: 1 << 40,
                bytes: 77,
            },
            Action::InboundRemoved { queue, packet_id },
            Action::SessionPut(Box::new(row)),
            Action::SessionEnded { queue },
            Action::Subscribed {
                queue,
                subscriptions: vec![StoredSubscription {
                    filter: "a/+/#".into(),
                    options,
                    subscription_id: Some(4),
                }],
            },
            Action::Unsubscribed {
                queue,
                filters: vec!["a".into(), "b/#".into()],
            },
        ]
    }
}
