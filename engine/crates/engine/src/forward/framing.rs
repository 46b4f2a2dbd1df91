//! How the receiver of a head is told where the body ends (RFC 9112, 6).

use sdlb_http1::decimal;

/// What the head says of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none. An answer to HEAD and 304 may tell the length that it would have.
    Empty(Option<u64>),
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The same, and `Content-Length` as well: to be translated to HTTP/2, where trailers may follow a body of a told length.
    ChunkedOf(u64),
    /// The same for another node, in a field of our own: on the wire, `Content-Length` and chunks together mean smuggling.
    ChunkedToNode(u64),
    /// The end of the connection: for HTTP/1.0.
    Close,
}

impl Framing {
    /// Whether content is written in chunks.
    #[must_use]
    pub fn is_chunked(self) -> bool {
        matches!(self, Self::Chunked | Self::ChunkedOf(_) | Self::ChunkedToNode(_))
    }

    /// Appends its fields.
    pub fn write(self, out: &mut Vec<u8>) {
        let length: Option<(&[u8], u64)> = match self {
            Self::Length(length) | Self::Empty(Some(length)) | Self::ChunkedOf(length) => {
                Some((b"content-length: ", length))
            }
            Self::ChunkedToNode(length) => Some((b"sdlb-length: ", length)),
            Self::Empty(None) | Self::Chunked | Self::Close => None,
        };
        if let Some((name, length)) = length {
            out.extend_from_slice(name);
            decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        if self.is_chunked() {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
    }
}
