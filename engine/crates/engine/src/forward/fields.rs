//! Copying fields from head to head.

use sdlb_http1::Field;

/// Appends the fields to keep, as they were written. Neighbours are copied in one go.
pub fn copy(head: &[u8], fields: &[Field], mut keep: impl FnMut(&Field) -> bool, out: &mut Vec<u8>) {
    let (mut start, mut end) = (0, 0);
    for field in fields.iter().filter(|field| keep(field)) {
        let (from, to) = (field.text.start(), field.value.end());
        let plain =
            head.get(field.text.end()..field.value.start()) == Some(b": ") && head.get(to..to + 2) == Some(b"\r\n");
        if plain && from == end {
            end = to + 2;
            continue;
        }
        out.extend_from_slice(&head[start..end]);
        if plain {
            (start, end) = (from, to + 2);
        } else {
            (start, end) = (0, 0);
            line(field.text.of(head), field.value.of(head), out);
        }
    }
    out.extend_from_slice(&head[start..end]);
}

/// Appends one field.
pub fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use sdlb_http1::{Limits, Name, Request};

    use super::*;

    #[test]
    fn what_is_kept_stays_in_order_and_white_space_is_made_plain() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB:2\r\nAccept: x\r\nC: 3  \r\nD: \r\nE: 5\r\n\r\n";
        let mut request = Request::default();
        let limits = Limits { head_bytes: 1000, fields: 10 };
        assert_eq!(request.advance(head, &limits), Ok(Some(head.len())));
        let mut out = Vec::new();
        copy(head, request.fields(), |field| !matches!(field.name, Name::Host | Name::Accept), &mut out);
        assert_eq!(out, b"A: 1\r\nB: 2\r\nC: 3\r\nD: \r\nE: 5\r\n");
    }
}
