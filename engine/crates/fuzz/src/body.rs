//! A chunked body has the same content, end and trailers however it is cut.

use sdlb_http1::{Body, Length, Limits, Piece};

const LIMITS: Limits = Limits { head_bytes: 512, fields: 8 };

/// Content, end and trailers; `None`: refused.
fn decode(raw: &[u8], step: usize) -> Option<(Vec<u8>, Option<usize>, Vec<u8>)> {
    let mut body = Body::new(Length::Chunked, LIMITS);
    let (mut content, mut at, mut given) = (Vec::new(), 0, 0);
    let end = loop {
        match body.next(&raw[at..given]).ok()? {
            Piece::Data(piece) => {
                content.extend_from_slice(&raw[at + piece.start..at + piece.end]);
                at += piece.end;
            }
            Piece::End(count) => break Some(at + count),
            Piece::More if given == raw.len() => break None,
            Piece::More => (at, given) = (given, (given + step).min(raw.len())),
        }
    };
    let mut trailers = Vec::new();
    body.write_trailers(&mut trailers);
    Some((content, end, trailers))
}

/// A chunked body.
pub fn run(raw: &[u8]) {
    let whole = decode(raw, raw.len().max(1));
    for step in [1, 2, 7, super::cut(raw) + 1] {
        assert_eq!(decode(raw, step), whole);
    }
}
