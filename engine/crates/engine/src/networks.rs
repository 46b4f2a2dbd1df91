//! Sets of addresses, as networks: `10.0.0.0/8`, `fd00::/8`, `192.0.2.7`.

use std::{net::IpAddr, str::FromStr, sync::Arc};

/// Networks whose word is believed. IPv4 addresses in their IPv6 form are taken for what they stand for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Arc<[Network]>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    start: IpAddr,
    bits: u8,
}

impl Networks {
    /// # Errors
    /// The first text that is no network.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let each = |text: &str| text.parse().map_err(|NotANetwork| text.to_owned());
        texts.into_iter().map(each).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them holds the address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let start: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let most = if start.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| NotANetwork)?;
        if bits > most { Err(NotANetwork) } else { Ok(Self { start, bits }) }
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        match (self.start, address) {
            (IpAddr::V4(start), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                start.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(start), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                start.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_what_begins_as_it_does() {
        let networks = Networks::parse(["10.1.0.0/16", "192.0.2.7", "fd00::/8", "::/128"]).expect("networks");
        for (address, held) in [
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("::ffff:10.1.2.3", true),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
            ("fdff::1", true),
            ("fe80::1", false),
            ("::", true),
            ("::1", false),
        ] {
            assert_eq!(networks.contains(address.parse().expect("an address")), held, "{address}");
        }
        let all = Networks::parse(["0.0.0.0/0", "::/0"]).expect("networks");
        assert!(all.contains(IpAddr::from([1, 2, 3, 4])) && all.contains("2001:db8::1".parse().expect("an address")));
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "a/8", "10.0.0.0/", "10.0.0.0/-1"] {
            assert_eq!(Networks::parse([text]), Err(text.to_owned()));
        }
    }
}
