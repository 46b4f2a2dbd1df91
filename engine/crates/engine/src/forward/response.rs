//! The head that goes to the client.

use sdlb_http1::{Name, Response, decimal};

use super::{
    fields::{copy, line},
    framing::Framing,
};

use crate::front::Added;

/// What becomes of the connection to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It is kept; HTTP/1.1 needs no word about it.
    Keep,
    /// It is kept, for HTTP/1.0, which does.
    KeepOld,
    /// It is closed.
    Close,
}

/// Appends a final head. `date` is asked only for one that has none.
pub fn write(
    head: &[u8],
    response: &Response,
    framing: Framing,
    after: After,
    added: &Added,
    date: impl FnOnce(&mut dyn FnMut(&[u8])),
    out: &mut Vec<u8>,
) {
    start_line(head, response, out);
    // It names the protocol that is to be used (RFC 9110, 15.5.22), for which the client may ask through us.
    let wants_upgrade = response.status == 426;
    let mut dated = false;
    copy(
        head,
        response.fields(),
        |field| {
            dated |= field.name == Name::Date;
            match field.name {
                Name::Other => !field.hop,
                Name::ContentLength => false,
                Name::Upgrade => wants_upgrade,
                name => !name.is_hop_by_hop() && !name.is_private(),
            }
        },
        out,
    );
    let has = |name: &[u8]| response.fields().iter().any(|field| field.text.of(head).eq_ignore_ascii_case(name));
    added.write(has, out);
    if !dated && response.status >= 200 {
        date(&mut |date| line(b"date", date, out));
    }
    framing.write(out);
    let upgrades = wants_upgrade && response.fields().iter().any(|field| field.name == Name::Upgrade);
    match after {
        After::Keep if upgrades => out.extend_from_slice(b"connection: upgrade\r\n"),
        After::Close if upgrades => out.extend_from_slice(b"connection: upgrade, close\r\n"),
        After::Keep => {}
        After::KeepOld => out.extend_from_slice(b"connection: keep-alive\r\n"),
        After::Close => out.extend_from_slice(b"connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of an interim answer (1xx), or of a 101 that begins `upgrade`.
pub fn write_interim(head: &[u8], response: &Response, upgrade: Option<&[u8]>, out: &mut Vec<u8>) {
    start_line(head, response, out);
    copy(
        head,
        response.fields(),
        |field| match field.name {
            Name::Other => !field.hop,
            Name::ContentLength => false,
            name => !name.is_hop_by_hop() && !name.is_private(),
        },
        out,
    );
    if let Some(upgrade) = upgrade {
        out.extend_from_slice(b"connection: upgrade\r\n");
        line(b"upgrade", upgrade, out);
    }
    out.extend_from_slice(b"\r\n");
}

fn start_line(head: &[u8], response: &Response, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(u64::from(response.status), out);
    out.push(b' ');
    out.extend_from_slice(response.reason.of(head));
    out.extend_from_slice(b"\r\n");
}
