use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::NetworkError;

/// Which addresses a key set is fetched from. By default the public ones: an administrator who may
/// add a URL shall not reach the inside of the network by it.
///
/// ```
/// # fn main() -> Result<(), ajwt_jwks::NetworkError> {
/// use ajwt_jwks::AddressPolicy;
///
/// // Public addresses, and one service of a cluster.
/// let policy = AddressPolicy::public().allow_network("10.96.0.10/32")?;
/// assert!(policy.allows("10.96.0.10".parse().expect("an address")));
/// assert!(!policy.allows("169.254.169.254".parse().expect("an address")));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    allowed: Vec<IpNet>,
}

impl AddressPolicy {
    /// Public addresses only: not private, loopback, link-local, shared (CGNAT), multicast, reserved
    /// or documentation ones, no address of a tunnel or translation that may hide one of these (6to4,
    /// Teredo, NAT64 by `64:ff9b:1::/48`), and not Azure's metadata address, which looks public. One of
    /// `64:ff9b::/96`, as DNS64 makes them for hosts that have IPv6 only, is public where the IPv4 address
    /// in it is.
    ///
    /// A NAT64 by a prefix of your own cannot be told from public addresses: see that it leads to no IPv4
    /// address that is private.
    #[must_use]
    pub fn public() -> Self {
        Self::default()
    }

    /// The addresses of this network too, as in `10.96.0.0/12` or `fd00::/8`. An IPv4 address written
    /// in IPv6 (`::ffff:10.96.0.1`) counts as the IPv4 address, also in a network (`::ffff:10.96.0.0/108`); one for
    /// NAT64 (`64:ff9b::10.96.0.1`) does not.
    ///
    /// **Any trusted URL then reaches any port there**: its host's DNS may lead to each of these addresses, and the
    /// policy knows no ports. What arrives are not only requests for key sets over TLS: the first message of TLS
    /// holds up to some 64 KB of bytes that whoever runs the host has chosen, for a session ticket of theirs is sent
    /// again to the same name, at whatever address and port it is by then. So allow single addresses, as in
    /// `10.96.0.10/32`, and only those on none of whose ports anything acts without authentication.
    ///
    /// # Errors
    /// [`NetworkError`] if it is no network.
    pub fn allow_network(mut self, network: &str) -> Result<Self, NetworkError> {
        let parsed: IpNet = network.parse().map_err(|_| NetworkError { found: shortened(network) })?;
        self.allowed.push(canonical(parsed.trunc()));
        Ok(self)
    }

    /// Whether an address may be connected to.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed.iter().any(|network| network.contains(&address)) || is_public(address)
    }
}

/// A network of IPv4 addresses written in IPv6 as that of the IPv4 addresses, which are what is looked for.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(address), Some(prefix)) => Ipv4Net::new(address, prefix).map_or(network, IpNet::V4),
        _ => network,
    }
}

fn shortened(text: &str) -> Box<str> {
    text.chars().take(64).collect()
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !NOT_PUBLIC_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) if NAT64.contains(&address) => is_public(IpAddr::V4(last_32_bits(address))),
        IpAddr::V6(address) => {
            GLOBAL_UNICAST.contains(&address)
                && !NOT_PUBLIC_V6.iter().any(|network| network.contains(&address))
        }
    }
}

/// Where an address for NAT64 leads (RFC 6052 section 2.2).
const fn last_32_bits(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

/// IANA's registry of special-purpose addresses (RFC 6890), with multicast and what is reserved.
const NOT_PUBLIC_V4: [Ipv4Net; 17] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    // Azure's host: metadata, DNS, agents.
    v4([168, 63, 129, 16], 32),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
    v4([255, 255, 255, 255], 32),
];

/// The well-known prefix of NAT64 (RFC 6052 section 2.1). It must not be used for private IPv4 addresses, which not all
/// translators see to; that for local use (RFC 8215) may.
const NAT64: Ipv6Net = v6([0x64, 0xff9b], 96);

/// All that is handed out today. Loopback, unique local, link-local, multicast, IPv4-compatible and
/// NAT64 addresses lie outside, with either prefix.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0], 3);

/// Special purposes within it: protocol assignments (Teredo and others), documentation, 6to4.
const NOT_PUBLIC_V6: [Ipv6Net; 4] =
    [v6([0x2001, 0], 23), v6([0x2001, 0xdb8], 32), v6([0x2002, 0], 16), v6([0x3fff, 0], 20)];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b]: [u16; 2], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn special_addresses_are_not_public() {
        let refused = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::",
            "64:ff9b::7f00:1",
            "64:ff9b::a60:1",
            "64:ff9b::169.254.169.254",
            "64:ff9b::168.63.129.16",
            "64:ff9b::255.255.255.255",
            "64:ff9b::1:808:808",
            "64:ff9b:1::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        let policy = AddressPolicy::public();
        let allowed: Vec<_> = refused.iter().filter(|text| policy.allows(address(text))).collect();
        assert!(allowed.is_empty(), "{allowed:?}");
    }

    #[test]
    fn public_addresses_are() {
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "168.63.129.15",
            "192.0.1.1",
            "198.17.255.255",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "64:ff9b::168.63.129.15",
            "2001:200::1",
            "2606:4700:4700::1111",
            "2a00:1450::1",
        ];
        let policy = AddressPolicy::public();
        let refused: Vec<_> = public.iter().filter(|text| !policy.allows(address(text))).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }

    #[test]
    fn named_networks_are_allowed_and_nothing_beside_them() {
        let policy = AddressPolicy::public().allow_network("10.96.3.4/12").expect("a network");
        let policy = policy.allow_network("fd12::/16").expect("a network");
        let policy = policy.allow_network("::ffff:127.0.0.9/125").expect("a network");
        for allowed in [
            "10.96.0.1",
            "10.111.255.255",
            "::ffff:10.100.0.1",
            "fd12::1",
            "8.8.8.8",
            "127.0.0.8",
            "::ffff:127.0.0.15",
        ] {
            assert!(policy.allows(address(allowed)), "{allowed}");
        }
        for refused in [
            "10.95.255.255",
            "10.112.0.0",
            "127.0.0.7",
            "127.0.0.16",
            "fd13::1",
            "64:ff9b::a60:1",
            "::7f00:8",
        ] {
            assert!(!policy.allows(address(refused)), "{refused}");
        }
        for no_network in ["", "10.0.0.0", "10.0.0.0/33", "localhost/8", "::/129"] {
            let error = AddressPolicy::public().allow_network(no_network).expect_err(no_network);
            assert_eq!(&*error.found, no_network);
        }
    }
}
