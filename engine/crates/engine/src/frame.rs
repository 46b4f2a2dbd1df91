//! Frames of the control socket: a 4-byte big-endian length, then a protobuf message.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longer frames are a protocol error.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// A message with its length before it.
#[must_use]
pub fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(4 + length);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut frame);
    frame.freeze()
}

/// Reads one message. `None`: the peer closed between two frames.
///
/// # Errors
/// The stream's errors; `UnexpectedEof` inside a frame; `InvalidData` for a frame that is too long or does not decode.
pub async fn read<M: Message + Default>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<M>> {
    let mut head = [0; 4];
    if stream.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..]).await?;
    let length = (&head[..]).get_u32() as usize;
    if length > FRAME_BYTES_MAX {
        let problem = format!("a frame of {length} bytes is over the limit of {FRAME_BYTES_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    // Grows with what arrives: a length alone must not cost memory.
    let mut body = Vec::new();
    if stream.take(length as u64).read_to_end(&mut body).await? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    M::decode(&body[..]).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
