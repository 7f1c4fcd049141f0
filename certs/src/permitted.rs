//! The names to which an authority is held (RFC 5280, 4.2.1.10): whoever steals its key cannot pose as others.
//!
//! DNS names and addresses are one question: an authority that is held to names of one sort gets none of the other.
//! Names of devices are URIs, which this leaves free.

use crate::{CertsError, name};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints, SanType};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// DNS names, each with all below it, and networks; neither of them: whatever one likes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permitted {
    dns: Vec<String>,
    networks: Vec<IpNet>,
}

impl Permitted {
    /// Also `name` and every name below it.
    ///
    /// # Errors
    /// [`CertsError::PermittedName`] when it is no DNS name, or a pattern.
    pub fn dns(mut self, name: &str) -> Result<Self, CertsError> {
        let is_host = matches!(name::server_name(name), Ok(SanType::DnsName(_)));
        if !is_host || name.starts_with('*') {
            return Err(CertsError::PermittedName(name.to_owned()));
        }
        self.dns.push(name.to_ascii_lowercase());
        Ok(self)
    }

    /// Also the addresses of `network`, such as `10.0.0.0/8`, or one address.
    ///
    /// # Errors
    /// [`CertsError::PermittedNetwork`] when it is none.
    pub fn network(mut self, network: &str) -> Result<Self, CertsError> {
        let parsed = network.parse::<IpNet>().ok();
        let parsed = parsed.or_else(|| network.parse::<IpAddr>().ok().map(IpNet::from));
        let parsed = parsed.ok_or_else(|| CertsError::PermittedNetwork(network.to_owned()))?;
        self.networks.push(parsed.trunc());
        Ok(self)
    }

    /// Whether nothing is constrained.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.dns.is_empty() && self.networks.is_empty()
    }

    /// As an extension of the authority's certificate.
    pub(crate) fn constraints(&self) -> Option<NameConstraints> {
        if self.is_everything() {
            return None;
        }
        let dns = self.dns.iter().cloned().map(GeneralSubtree::DnsName);
        let networks = self.networks.iter().map(|network| subtree(*network));
        let mut excluded_subtrees = Vec::new();
        if self.dns.is_empty() {
            // Every name is below the empty one.
            excluded_subtrees.push(GeneralSubtree::DnsName(String::new()));
        }
        if self.networks.is_empty() {
            excluded_subtrees.extend(everywhere().map(subtree));
        }
        Some(NameConstraints {
            permitted_subtrees: dns.chain(networks).collect(),
            excluded_subtrees,
        })
    }

    /// What an authority's certificate says about what it may issue.
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut this = Self::default();
        let constraints = certificate.name_constraints().ok().flatten();
        let subtrees =
            constraints.and_then(|extension| extension.value.permitted_subtrees.as_ref());
        for subtree in subtrees.into_iter().flatten() {
            match &subtree.base {
                GeneralName::DNSName(name) => this
                    .dns
                    .push(name.trim_start_matches('.').to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => this.networks.extend(network(bytes)),
                _ => {}
            }
        }
        this
    }

    /// The first of `names` that may not be issued.
    pub(crate) fn first_outside(&self, names: &[SanType]) -> Option<String> {
        names.iter().find_map(|name| match name {
            _ if self.is_everything() => None,
            SanType::DnsName(name) => {
                (!self.has_dns(name.as_str())).then(|| name.as_str().to_owned())
            }
            SanType::IpAddress(address) => {
                let is_in = self
                    .networks
                    .iter()
                    .any(|network| network.contains(address));
                (!is_in).then(|| address.to_string())
            }
            _ => None,
        })
    }

    fn has_dns(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix("*.").unwrap_or(&name);
        self.dns.iter().any(|permitted| {
            name.strip_suffix(permitted.as_str())
                .is_some_and(|below| below.is_empty() || below.ends_with('.'))
        })
    }
}

impl fmt::Display for Permitted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dns = self.dns.iter().cloned();
        let networks = self.networks.iter().map(IpNet::to_string);
        formatter.write_str(&dns.chain(networks).collect::<Vec<_>>().join(", "))
    }
}

fn subtree(network: IpNet) -> GeneralSubtree {
    let (address, prefix) = (network.network(), network.prefix_len());
    GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, prefix))
}

fn everywhere() -> [IpNet; 2] {
    [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]
}

/// An address followed by a mask.
fn network(bytes: &[u8]) -> Option<IpNet> {
    let (address, mask) = bytes.split_at_checked(bytes.len() / 2)?;
    let ip = |bytes: &[u8]| {
        <[u8; 4]>::try_from(bytes)
            .map(|octets| IpAddr::from(Ipv4Addr::from(octets)))
            .or_else(|_| <[u8; 16]>::try_from(bytes).map(|octets| Ipv6Addr::from(octets).into()))
            .ok()
    };
    IpNet::with_netmask(ip(address)?, ip(mask)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_and_addresses_within_are_permitted() {
        let permitted = Permitted::default().dns("acme.example").unwrap();
        let permitted = permitted.network("10.1.2.3/8").unwrap();
        let permitted = permitted.network("fd00::1").unwrap();
        check(&permitted, "acme.example", true);
        check(&permitted, "a.B.ACME.example", true);
        check(&permitted, "*.acme.example", true);
        check(&permitted, "*.example", false);
        check(&permitted, "notacme.example", false);
        check(&permitted, "10.200.0.1", true);
        check(&permitted, "11.0.0.1", false);
        check(&permitted, "fd00::1", true);
        check(&permitted, "fd00::2", false);
        check(&Permitted::default(), "anything.example", true);
        assert_eq!(
            permitted.to_string(),
            "acme.example, 10.0.0.0/8, fd00::1/128"
        );
    }

    #[test]
    fn one_sort_of_names_leaves_none_of_the_other() {
        let dns = Permitted::default().dns("acme.example").unwrap();
        check(&dns, "10.0.0.1", false);
        assert_eq!(dns.constraints().unwrap().excluded_subtrees.len(), 2);
        let networks = Permitted::default().network("10.0.0.0/8").unwrap();
        check(&networks, "acme.example", false);
        assert_eq!(networks.constraints().unwrap().excluded_subtrees.len(), 1);
    }

    #[test]
    fn what_is_no_name_and_no_network_is_refused() {
        for name in ["", "*.example", ".example", "10.0.0.1", "a b"] {
            assert!(Permitted::default().dns(name).is_err(), "{name}");
        }
        for network in ["", "example", "10.0.0.0/33", "10.0.0"] {
            assert!(Permitted::default().network(network).is_err(), "{network}");
        }
    }

    fn check(permitted: &Permitted, name: &str, expected: bool) {
        let name = name::server_name(name).unwrap();
        let outside = permitted.first_outside(std::slice::from_ref(&name));
        assert_eq!(outside.is_none(), expected, "{name:?}");
    }
}
