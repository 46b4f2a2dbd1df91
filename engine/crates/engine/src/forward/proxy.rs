//! The header of the PROXY protocol that goes ahead of a request to an instance that wants one
//! (<https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt>). It names one client, so each request has a connection of its own.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use sdlb_routes::ProxyProtocol;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Appends it. `client`: none when its address is not known; its port is 0 when only that is not known. `listener`: what it came to.
pub fn write(version: ProxyProtocol, client: Option<SocketAddr>, listener: SocketAddr, out: &mut Vec<u8>) {
    let port = client.map_or(0, |client| client.port());
    let client = client.map(|client| client.ip().to_canonical());
    let to = match (client, listener.ip().to_canonical()) {
        (Some(IpAddr::V4(_)), to @ IpAddr::V4(_)) | (Some(IpAddr::V6(_)), to @ IpAddr::V6(_)) => to,
        (Some(IpAddr::V4(_)), _) => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    match version {
        ProxyProtocol::Off => {}
        ProxyProtocol::V1 => {
            // To write into a vector does not fail.
            let _ = match client {
                Some(client) => {
                    let family = if client.is_ipv4() { 4 } else { 6 };
                    write!(out, "PROXY TCP{family} {client} {to} {port} {}\r\n", listener.port())
                }
                None => write!(out, "PROXY UNKNOWN\r\n"),
            };
        }
        ProxyProtocol::V2 => {
            out.extend_from_slice(SIGNATURE);
            match (client, to) {
                (Some(IpAddr::V4(client)), IpAddr::V4(to)) => {
                    out.extend_from_slice(&[0x21, 0x11, 0, 12]);
                    out.extend_from_slice(&client.octets());
                    out.extend_from_slice(&to.octets());
                }
                (Some(IpAddr::V6(client)), IpAddr::V6(to)) => {
                    out.extend_from_slice(&[0x21, 0x21, 0, 36]);
                    out.extend_from_slice(&client.octets());
                    out.extend_from_slice(&to.octets());
                }
                _ => return out.extend_from_slice(&[0x21, 0, 0, 0]),
            }
            out.extend_from_slice(&port.to_be_bytes());
            out.extend_from_slice(&listener.port().to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: ProxyProtocol, client: Option<&str>, listener: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let client = client.map(|text| text.parse().expect("an address"));
        write(version, client, listener.parse().expect("an address"), &mut out);
        out
    }

    #[test]
    fn it_names_the_client_in_one_family() {
        use ProxyProtocol::{Off, V1, V2};
        assert!(text(Off, Some("192.0.2.1:1"), "10.0.0.1:80").is_empty());
        for (client, listener, line) in [
            (Some("192.0.2.1:4711"), "10.0.0.1:80", "PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n"),
            (Some("192.0.2.1:4711"), "[::]:443", "PROXY TCP4 192.0.2.1 0.0.0.0 4711 443\r\n"),
            (Some("[::ffff:192.0.2.1]:4711"), "10.0.0.1:80", "PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n"),
            (Some("[2001:db8::1]:0"), "10.0.0.1:80", "PROXY TCP6 2001:db8::1 :: 0 80\r\n"),
            (None, "10.0.0.1:80", "PROXY UNKNOWN\r\n"),
        ] {
            assert_eq!(text(V1, client, listener), line.as_bytes());
        }
        let fixed = |rest: &[u8]| [&SIGNATURE[..], rest].concat();
        let v4 = [0x21, 0x11, 0, 12, 192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 0, 80];
        assert_eq!(text(V2, Some("192.0.2.1:4711"), "10.0.0.1:80"), fixed(&v4));
        let v6 = text(V2, Some("[2001:db8::1]:0"), "[::1]:80");
        assert_eq!((&v6[12..16], v6.len()), (&[0x21, 0x21, 0, 36][..], 52));
        assert_eq!(text(V2, None, "10.0.0.1:80"), fixed(&[0x21, 0, 0, 0]));
    }
}
