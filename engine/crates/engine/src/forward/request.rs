//! The head that goes to an instance or a child node.

use sdlb_http1::{Field, Method, Name, Request, Version, decimal};

use super::{
    fields::{copy, line},
    framing::Framing,
};
use crate::conn::facts::is_max_forwards;

/// Everything that the head is made of.
pub struct Forwarded<'a> {
    /// The client's head.
    pub head: &'a [u8],
    /// What it says.
    pub request: &'a Request,
    /// The canonical path, and the query.
    pub target: &'a [u8],
    /// The canonical host.
    pub host: &'a str,
    /// What this node calls itself.
    pub node: &'a str,
    /// It came over HTTP/2.
    pub http2: bool,
    /// The forwarding fields that say who the client is: set at an entry, passed on below it.
    pub client: Option<Client<'a>>,
    /// An id, when the client's own is not passed on.
    pub request_id: Option<&'a [u8]>,
    /// For a child node: the stamp of the group, and the milliseconds left for an answer.
    pub stamp: Option<(&'a str, u64)>,
    /// For a child node: the endpoint that had the request before, and ended its connection.
    pub avoid: &'a [u8],
    /// Replaces `Max-Forwards`.
    pub max_forwards: Option<u32>,
    /// For a child node whose instances want to know: the client's port, 0 when it is not known.
    pub client_port: Option<u16>,
    /// Where the body ends.
    pub framing: Framing,
    /// Wait for `100 Continue`.
    pub expect: bool,
    /// The client itself does so; for a child node.
    pub client_expects: bool,
    /// The client reads the trailers of the answer.
    pub wants_trailers: bool,
    /// Ask for the upgrade that the client asks for.
    pub upgrade: bool,
}

/// A client that is not a node.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    /// Its address.
    pub address: &'a str,
    /// Field names with an underscore are dropped: some servers read them as if it were a `-`.
    pub drops_underscores: bool,
    /// It speaks TLS.
    pub tls: bool,
    /// A trusted proxy has sent the request: its forwarding fields are replaced like others, and are no forgery.
    pub by_proxy: bool,
}

fn expects_content(method: Method, text: &[u8]) -> bool {
    matches!(method, Method::Post | Method::Put) || text == b"PATCH"
}

impl Forwarded<'_> {
    /// Appends the head. Gives whether the client has set, or tried to strip, what is ours to set.
    pub fn write(&self, out: &mut Vec<u8>) -> bool {
        let Self { head, request, .. } = *self;
        out.extend_from_slice(request.method_text.of(head));
        out.push(b' ');
        out.extend_from_slice(self.target);
        out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        out.extend_from_slice(self.host.as_bytes());
        out.extend_from_slice(b"\r\n");
        let mut forged = self.client.is_some() && request.strips();
        copy(head, request.fields(), |field| self.keeps(field, &mut forged), out);
        let version: &[u8] = match (self.http2, request.version) {
            (true, _) => b"via: 2.0 ",
            (false, Version::Http10) => b"via: 1.0 ",
            (false, Version::Http11) => b"via: 1.1 ",
        };
        out.extend_from_slice(version);
        out.extend_from_slice(self.node.as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(client) = self.client {
            self.write_client(client, out);
        }
        if let Some(id) = self.request_id {
            line(b"x-request-id", id, out);
        }
        if let Some((stamp, left_ms)) = self.stamp {
            line(b"sdlb-to", stamp.as_bytes(), out);
            out.extend_from_slice(b"sdlb-timeout: ");
            decimal(left_ms, out);
            out.extend_from_slice(b"\r\n");
            if self.client_expects {
                out.extend_from_slice(b"sdlb-expect: 1\r\n");
            }
            if !self.avoid.is_empty() {
                line(b"sdlb-avoid", self.avoid, out);
            }
        }
        if let Some(port) = self.client_port {
            out.extend_from_slice(b"sdlb-port: ");
            decimal(u64::from(port), out);
            out.extend_from_slice(b"\r\n");
        }
        if let Some(left) = self.max_forwards {
            out.extend_from_slice(b"max-forwards: ");
            decimal(u64::from(left), out);
            out.extend_from_slice(b"\r\n");
        }
        match self.framing {
            // RFC 9110, 8.6: who expects content and gets none is told so. HTTP/2 says it by the end of the stream.
            Framing::Empty(_) if expects_content(request.method, request.method_text.of(head)) => {
                Framing::Empty(Some(0)).write(out);
            }
            framing => framing.write(out),
        }
        if self.expect {
            out.extend_from_slice(b"expect: 100-continue\r\n");
        }
        self.write_connection(out);
        out.extend_from_slice(b"\r\n");
        forged
    }

    fn keeps(&self, field: &Field, forged: &mut bool) -> bool {
        let entry = self.client.is_some();
        let ours = match field.name {
            Name::Host | Name::ContentLength | Name::Expect => return false,
            Name::Control if self.max_forwards.is_some() && is_max_forwards(field.text.of(self.head)) => return false,
            Name::XRequestId if self.request_id.is_some() => return false,
            name if name.is_hop_by_hop() => return false,
            name if name.is_private() => true,
            Name::Forwarded | Name::XForwarded | Name::XRealIp => match self.client {
                Some(client) if client.by_proxy => return false,
                client => client.is_some(),
            },
            _ if field.hop => return false,
            _ => self.client.is_some_and(|client| self.collides(field, client.drops_underscores)),
        };
        *forged |= ours && entry;
        !ours
    }

    /// A name that some servers take for another one: CGI and its kin read all but letters and digits as one sign.
    fn collides(&self, field: &Field, drops_underscores: bool) -> bool {
        let name = field.text.of(self.head);
        field.name == Name::Other && (Name::is_alias(name) || (drops_underscores && name.contains(&b'_')))
    }

    fn write_client(&self, client: Client<'_>, out: &mut Vec<u8>) {
        let (address, host) = (client.address.as_bytes(), self.host.as_bytes());
        line(b"x-forwarded-for", address, out);
        line(b"x-real-ip", address, out);
        let scheme: &[u8] = if client.tls { b"https" } else { b"http" };
        line(b"x-forwarded-proto", scheme, out);
        line(b"x-forwarded-host", host, out);
        // RFC 7239: what holds a colon is quoted, IPv6 addresses stand in brackets.
        out.extend_from_slice(b"forwarded: for=");
        if address.contains(&b':') {
            out.extend_from_slice(b"\"[");
            out.extend_from_slice(address);
            out.extend_from_slice(b"]\"");
        } else {
            out.extend_from_slice(address);
        }
        let quote: &[u8] = if host.contains(&b':') { b"\"" } else { b"" };
        out.extend_from_slice(b";host=");
        out.extend_from_slice(quote);
        out.extend_from_slice(host);
        out.extend_from_slice(quote);
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(scheme);
        out.extend_from_slice(b"\r\n");
    }

    fn write_connection(&self, out: &mut Vec<u8>) {
        if self.upgrade {
            out.extend_from_slice(b"connection: upgrade\r\n");
            let upgrade = self.request.single(self.head, Name::Upgrade).unwrap_or_default();
            line(b"upgrade", upgrade, out);
            return;
        }
        if self.wants_trailers {
            out.extend_from_slice(b"connection: te\r\nte: trailers\r\n");
        }
    }
}
