//! Which addresses the outside world has: everything that is not public unicast is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// IPv4 blocks that are not the public internet (IANA special-purpose registry), and hosts in public space that clouds use to
/// talk to their own machines.
const DENIED_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // carrier-grade NAT, and a cloud's metadata service
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // a cloud's host agent
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, metadata services
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, broadcast
];

/// Blocks inside global unicast (2000::/3) that are not the public internet or that carry an IPv4 address of the sender's choice.
const DENIED_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// Everything else (loopback, mapped and NAT64 forms of IPv4, unique local, link-local, multicast) lies outside this block.
const GLOBAL_UNICAST_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Whether an address belongs to the public internet.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !DENIED_V4.iter().any(|&(net, bits)| v4_in(address, net, bits)),
        IpAddr::V6(address) => {
            let (net, bits) = GLOBAL_UNICAST_V6;
            v6_in(address, net, bits) && !DENIED_V6.iter().any(|&(net, bits)| v6_in(address, net, bits))
        }
    }
}

fn v4_in(address: Ipv4Addr, net: Ipv4Addr, bits: u32) -> bool {
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    u32::from(address) & mask == u32::from(net) & mask
}

fn v6_in(address: Ipv6Addr, net: Ipv6Addr, bits: u32) -> bool {
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    u128::from(address) & mask == u128::from(net) & mask
}

/// An exception that the operator makes: `10.1.2.3`, `10.1.0.0/16`, `127.0.0.1:8080`, `[::1]:8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivateAllow {
    net: IpAddr,
    bits: u32,
    port: Option<u16>,
}

/// Not an address, a block, or an address with a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address, `address/bits` or `address:port`: {0:?}")]
pub struct BadPrivateAllow(pub String);

impl FromStr for PrivateAllow {
    type Err = BadPrivateAllow;

    fn from_str(text: &str) -> Result<Self, BadPrivateAllow> {
        let bad = || BadPrivateAllow(text.to_owned());
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self { net: socket.ip(), bits: width(socket.ip()), port: Some(socket.port()) });
        }
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits.parse::<u32>().map_err(|_| bad())?)),
        };
        let net = address.parse::<IpAddr>().map_err(|_| bad())?;
        let bits = bits.unwrap_or(width(net));
        if bits > width(net) {
            return Err(bad());
        }
        Ok(Self { net, bits, port: None })
    }
}

impl PrivateAllow {
    /// Whether it names this address.
    #[must_use]
    pub fn covers(&self, address: SocketAddr) -> bool {
        let inside = match (address.ip(), self.net) {
            (IpAddr::V4(address), IpAddr::V4(net)) => v4_in(address, net, self.bits),
            (IpAddr::V6(address), IpAddr::V6(net)) => v6_in(address, net, self.bits),
            _ => false,
        };
        inside && self.port.is_none_or(|port| port == address.port())
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        let denied = [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
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
        for address in denied {
            assert!(!is_public(address.parse().expect(address)), "{address}");
        }
        for address in
            ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"]
        {
            assert!(is_public(address.parse().expect(address)), "{address}");
        }
    }

    #[test]
    fn exceptions_name_what_they_name_and_no_more() {
        let covers = |allow: &str, address: &str| {
            let address = address.parse().expect("an address");
            allow.parse::<PrivateAllow>().expect("an exception").covers(address)
        };
        assert!(covers("127.0.0.1:80", "127.0.0.1:80"));
        assert!(!covers("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!covers("127.0.0.1:80", "127.0.0.2:80"));
        assert!(covers("10.1.0.0/16", "10.1.255.1:9"));
        assert!(!covers("10.1.0.0/16", "10.2.0.1:9"));
        assert!(covers("0.0.0.0/0", "10.2.0.1:9"));
        assert!(!covers("0.0.0.0/0", "[::1]:9"));
        assert!(covers("[::1]:9", "[::1]:9"));
        for bad in ["", "localhost", "10.0.0.0/33", "10.0.0.0/x", "::1/129"] {
            assert!(bad.parse::<PrivateAllow>().is_err(), "{bad}");
        }
    }
}
