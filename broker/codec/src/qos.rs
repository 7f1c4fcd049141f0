//! The quality of service levels (MQTT 5.0 section 4.3, MQTT 3.1.1 section 4.3).
//!
//! A value of [`QoS`] is always one of the three levels: the fourth bit pattern does not get past
//! the decoder [MQTT5-3.3.1-4] [MQTT3-3.3.1-4].

/// How often a message arrives when the connection breaks half way.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0: sent once, never acknowledged.
    #[default]
    AtMostOnce = 0,
    /// QoS 1: sent until a PUBACK arrives.
    AtLeastOnce = 1,
    /// QoS 2: handed over exactly once by PUBREC, PUBREL and PUBCOMP.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level of a two-bit field; `None` for anything above 2.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_qos_3() {
        // [MQTT5-3.3.1-4] [MQTT3-3.3.1-4]
        let levels: Vec<_> = (0..=255).filter_map(QoS::from_bits).collect();
        assert_eq!(
            levels,
            [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        );
        assert!(
            levels
                .iter()
                .all(|&qos| QoS::from_bits(qos as u8) == Some(qos))
        );
    }
}
