//! A packet as a trace shows it: a name and what is in it, each under the name that the API gives it.
//!
//! Bounded: texts, lists and payloads are cut where they were described. Does not know: where it is shown, and as what.

use crate::time::Timestamp;

/// Which way a packet went.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TracedDirection {
    /// From the client.
    In,
    /// To the client.
    Out,
    /// No packet: what became of one, or of the connection.
    None,
}

/// A packet, or what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TracedPacket {
    /// When it was decoded or encoded.
    pub at: Timestamp,
    /// The client identifier; empty while none is known.
    pub client_id: Box<str>,
    /// The connection, unique over restarts.
    pub connection: u64,
    /// The protocol level of its CONNECT: 3, 4 or 5.
    pub level: u8,
    /// Which way it went.
    pub direction: TracedDirection,
    /// `PUBLISH` and so on; for what is no packet `refused` or `closed`.
    pub name: &'static str,
    /// What is in it, in the order in which it is shown.
    pub fields: Vec<(&'static str, TracedValue)>,
}

/// One thing that is in a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TracedValue {
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(u64),
    /// Words of ours.
    Word(&'static str),
    /// Words of the client's.
    Text(Box<str>),
    /// Several.
    List(Vec<Self>),
    /// Several with names.
    Object(Vec<(&'static str, Self)>),
}

impl TracedPacket {
    /// The memory it takes, about.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.client_id.len() + fields_bytes(&self.fields)
    }
}

fn fields_bytes(fields: &[(&'static str, TracedValue)]) -> usize {
    let own = size_of_val(fields);
    own + fields.iter().map(|(_, value)| value.bytes()).sum::<usize>()
}

impl TracedValue {
    fn bytes(&self) -> usize {
        match self {
            Self::Flag(_) | Self::Number(_) | Self::Word(_) => 0,
            Self::Text(text) => text.len(),
            Self::List(values) => {
                size_of_val(&**values) + values.iter().map(Self::bytes).sum::<usize>()
            }
            Self::Object(fields) => fields_bytes(fields),
        }
    }
}
