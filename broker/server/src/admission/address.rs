//! What counts as one address when connections are counted by address.
//!
//! An IPv6 client has a whole network to choose its address from, so all of a /64 is one. Behind a proxy the client's own counts.

use crate::auth::PeerAddress;
use std::net::IpAddr;

/// An address, or a network whose addresses are one client's to choose.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum AddressKey {
    /// An IPv4 address.
    V4(u32),
    /// The first half of an IPv6 address.
    V6(u64),
    /// This machine, through a Unix socket.
    Local,
    /// Behind a proxy that does not say.
    Unknown,
}

impl AddressKey {
    /// The key of an address.
    pub(crate) fn of_ip(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            // The network is the upper half.
            IpAddr::V6(ip) => Self::V6((ip.to_bits() >> 64) as u64),
        }
    }

    /// Whether it tells one client from another: limits and bans by address hold for no other.
    pub(crate) fn is_known(self) -> bool {
        matches!(self, Self::V4(_) | Self::V6(_))
    }
}

impl From<PeerAddress> for AddressKey {
    fn from(address: PeerAddress) -> Self {
        match address {
            PeerAddress::Ip(address) => Self::of_ip(address.ip()),
            PeerAddress::Unix { .. } => Self::Local,
            PeerAddress::Unknown => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_address_and_a_mapped_one_is_ipv4() {
        let key = |text: &str| AddressKey::of_ip(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
    }
}
