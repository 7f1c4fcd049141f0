//! The protocol versions and how CONNECT names them.
//!
//! MQTT 3.1 is `MQIsdp` level 3, MQTT 3.1.1 is `MQTT` level 4, MQTT 5.0 is `MQTT` level 5
//! (sections 3.1.2.1 and 3.1.2.2). Nothing else is a version.

use crate::error::DecodeError;
use crate::primitive::{Reader, Sink};
use std::fmt;

/// A version of the protocol; a connection keeps the one of its CONNECT.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ProtocolVersion {
    /// MQTT 3.1 (2010).
    V3_1,
    /// MQTT 3.1.1 (2014).
    V3_1_1,
    /// MQTT 5.0 (2019).
    V5,
}

impl ProtocolVersion {
    /// Whether packets of this version carry properties and reason codes.
    #[inline]
    pub(crate) const fn has_properties(self) -> bool {
        matches!(self, Self::V5)
    }

    /// The protocol level of CONNECT: 3, 4 or 5.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::V3_1 => 3,
            Self::V3_1_1 => 4,
            Self::V5 => 5,
        }
    }

    /// Reads the protocol name and level that open a CONNECT.
    ///
    /// [MQTT5-3.1.2-1] [MQTT5-3.1.2-2] [MQTT3-3.1.2-1] [MQTT3-3.1.2-2]
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = reader.binary()?;
        if name != b"MQTT" && name != b"MQIsdp" {
            return Err(DecodeError::UnknownProtocolName);
        }
        match (name, reader.u8()?) {
            (b"MQIsdp", 3) => Ok(Self::V3_1),
            (b"MQTT", 4) => Ok(Self::V3_1_1),
            (b"MQTT", 5) => Ok(Self::V5),
            _ => Err(DecodeError::UnsupportedProtocolVersion),
        }
    }

    pub(crate) fn write(self, sink: &mut impl Sink) {
        sink.string(match self {
            Self::V3_1 => "MQIsdp",
            Self::V3_1_1 | Self::V5 => "MQTT",
        });
        sink.u8(self.level());
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3_1 => "3.1",
            Self::V3_1_1 => "3.1.1",
            Self::V5 => "5.0",
        })
    }
}
