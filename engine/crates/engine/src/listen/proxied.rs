//! Who is behind a proxy that is trusted: the PROXY protocol (versions 1 and 2, <https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt>)
//! at the start of its connections, and `X-Forwarded-For` in its requests.
//!
//! A header of the PROXY protocol is no beginning of HTTP or TLS, so a trusted peer may send one or not.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use sdlb_http1::list;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::networks::Networks;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_BYTES: usize = 16;
/// The longest line of version 1.
const LINE_BYTES_MAX: usize = 107;
/// With all that version 2 may carry beside addresses.
const HEADER_BYTES_MAX: usize = 2048;
/// Between two looks at a header that is not complete.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// Something else.
    Other,
    /// It may be a header.
    More,
    /// A header of this length. No address: the proxy speaks for itself.
    Header(usize, Option<SocketAddr>),
    Malformed,
}

/// Takes the header, if there is one. Gives who is behind the proxy; `peer` when it does not say.
///
/// # Errors
/// The header is malformed, or the connection has ended.
pub async fn behind(stream: &mut TcpStream, peer: SocketAddr) -> io::Result<SocketAddr> {
    let mut bytes = [0; HEADER_BYTES_MAX];
    loop {
        let count = stream.peek(&mut bytes).await?;
        match start(&bytes[..count]) {
            _ if count == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Start::Other => return Ok(peer),
            Start::Header(length, client) => {
                stream.read_exact(&mut bytes[..length]).await?;
                return Ok(client.map_or(peer, |client| SocketAddr::new(client.ip().to_canonical(), client.port())));
            }
            Start::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            // The bytes stay readable, so only time tells whether more have come.
            Start::More => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

fn start(bytes: &[u8]) -> Start {
    if bytes.len() < SIGNATURE.len() && SIGNATURE.starts_with(bytes) {
        return Start::More;
    }
    if bytes.starts_with(SIGNATURE) {
        return version_2(bytes);
    }
    let words: [&[u8]; 3] = [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN"];
    if words.iter().any(|word| bytes.starts_with(word)) {
        return version_1(bytes);
    }
    if words.iter().any(|word| word.starts_with(bytes)) { Start::More } else { Start::Other }
}

fn version_1(bytes: &[u8]) -> Start {
    let within = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_BYTES_MAX { Start::More } else { Start::Malformed };
    };
    let Ok(line) = std::str::from_utf8(&bytes[..end]) else { return Start::Malformed };
    let mut words = line.split(' ').skip(1);
    let client = match words.next() {
        Some("UNKNOWN") => return Start::Header(end + 2, None),
        Some("TCP4") => addresses::<Ipv4Addr>(words),
        _ => addresses::<Ipv6Addr>(words),
    };
    client.map_or(Start::Malformed, |client| Start::Header(end + 2, Some(client)))
}

/// From, to, and the ports of both.
fn addresses<'a, A: std::str::FromStr + Into<IpAddr>>(words: impl Iterator<Item = &'a str>) -> Option<SocketAddr> {
    let words: Vec<&str> = words.collect();
    let [from, to, from_port, to_port] = words[..] else { return None };
    let (from, _): (A, A) = (from.parse().ok()?, to.parse().ok()?);
    let (port, _): (u16, u16) = (from_port.parse().ok()?, to_port.parse().ok()?);
    Some(SocketAddr::new(from.into(), port))
}

fn version_2(bytes: &[u8]) -> Start {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Start::More };
    let (version, command, family) = (fixed[12] >> 4, fixed[12] & 15, fixed[13]);
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if version != 2 || command > 1 || FIXED_BYTES + length > HEADER_BYTES_MAX {
        return Start::Malformed;
    }
    let Some(rest) = rest.get(..length) else { return Start::More };
    let client = match (command, family) {
        (1, 0x11) => match rest.first_chunk::<12>() {
            Some(&[a, b, c, d, _, _, _, _, high, low, ..]) => Some((IpAddr::from([a, b, c, d]), [high, low])),
            _ => return Start::Malformed,
        },
        (1, 0x21) => match rest.first_chunk::<36>().and_then(|both| both.split_first_chunk::<16>()) {
            Some((from, &[.., high, low, _, _])) => Some((IpAddr::from(*from), [high, low])),
            _ => return Start::Malformed,
        },
        // The proxy's own check, or a client without an address that means anything here.
        _ => None,
    };
    let client = client.map(|(address, port)| SocketAddr::new(address, u16::from_be_bytes(port)));
    Start::Header(FIXED_BYTES + length, client)
}

/// The client behind proxies: of the addresses that they have noted, each behind the ones before, the last that is not a proxy's own.
/// `None`: they have noted none. Port 0: they have noted no port.
pub fn forwarded_for<'a>(values: impl DoubleEndedIterator<Item = &'a [u8]>, trusted: &Networks) -> Option<SocketAddr> {
    let mut client = None;
    for value in values.rev() {
        let noted: Vec<&[u8]> = list(value).collect();
        for text in noted.into_iter().rev() {
            let Some(address) = address(text) else { return client };
            client = Some(address);
            if !trusted.contains(address.ip()) {
                return client;
            }
        }
    }
    client
}

/// With or without a port.
fn address(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let without = text.parse::<IpAddr>().ok().or_else(bare).map(|address| SocketAddr::new(address, 0));
    let both = without.or_else(|| text.parse::<SocketAddr>().ok())?;
    Some(SocketAddr::new(both.ip().to_canonical(), both.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("an address"))
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, rest].concat()
    }

    #[test]
    fn a_header_is_known_whole_and_in_part() {
        let mut v6 = [0; 36];
        (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 80, 90);
        for (bytes, from) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n".to_vec(), client("192.0.2.1:4711")),
            (b"PROXY TCP6 2001:db8::1 ::1 1 443\r\n".to_vec(), client("[2001:db8::1]:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ff::1 ff::2 1 2\r\n".to_vec(), None),
            (v2(1, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 0, 80]), client("192.0.2.1:4711")),
            (v2(1, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 0, 80, 3, 0, 1, 9]), client("192.0.2.1:4711")),
            (v2(1, 0x21, &v6), client("[::1]:80")),
            (v2(0, 0, &[]), None),
            (v2(1, 0x31, &[7; 216]), None),
        ] {
            for length in 0..bytes.len() {
                assert_eq!(start(&bytes[..length]), Start::More, "{length} of {bytes:?}");
            }
            let with_more = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(start(&with_more), Start::Header(bytes.len(), from));
        }
    }

    #[test]
    fn what_is_no_header_is_left_alone_and_a_broken_one_is_refused() {
        for other in
            ["GET / HTTP/1.1\r\n", "POST /", "PUT /", "PROXY / HTTP/1.1\r\n", "\r\nGET", "\x16\x03\x01", "PRI * "]
        {
            assert_eq!(start(other.as_bytes()), Start::Other, "{other}");
        }
        let long = format!("PROXY TCP4 {}", "1".repeat(100));
        for line in [
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 4711 80 9\r\n",
            "PROXY TCP4 ::1 ::1 4711 80\r\n",
            "PROXY TCP6 192.0.2.1 10.0.0.1 4711 80\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 65536 80\r\n",
            &long,
        ] {
            assert_eq!(start(line.as_bytes()), Start::Malformed, "{line}");
        }
        assert_eq!(start(&v2(2, 0x11, &[0; 12])), Start::Malformed);
        assert_eq!(start(&v2(1, 0x11, &[0; 11])), Start::Malformed);
        assert_eq!(start(&v2(1, 0x21, &[0; 35])), Start::Malformed);
        assert_eq!(start(&v2(1, 0x11, &[0; 2100])), Start::Malformed);
    }

    #[test]
    fn the_client_is_the_last_that_is_no_proxy() {
        let trusted = Networks::parse(["10.0.0.0/8"]).expect("networks");
        for (values, expected) in [
            (vec!["192.0.2.1"], Some("192.0.2.1:0")),
            (vec!["1.1.1.1, 192.0.2.1"], Some("192.0.2.1:0")),
            (vec!["1.1.1.1, 192.0.2.1, 10.0.0.2"], Some("192.0.2.1:0")),
            (vec!["1.1.1.1", "192.0.2.1:99, 10.0.0.2"], Some("192.0.2.1:99")),
            (vec!["10.0.0.3, 10.0.0.2"], Some("10.0.0.3:0")),
            (vec!["nonsense, 10.0.0.2"], Some("10.0.0.2:0")),
            (vec!["[2001:db8::1]:99"], Some("[2001:db8::1]:99")),
            (vec!["[2001:db8::1]"], Some("[2001:db8::1]:0")),
            (vec!["unknown"], None),
            (vec![], None),
        ] {
            let found = forwarded_for(values.iter().map(|value| value.as_bytes()), &trusted);
            assert_eq!(found, expected.map(|text| text.parse().expect("an address")), "{values:?}");
        }
    }
}
