//! Upgraded connections: bytes are passed both ways, unread, until both sides have ended.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use crate::conn::{
    buffer::{Buffer, STREAM_BYTES, Scratch},
    io::Io,
    timer::Timer,
};

/// Passes bytes on until both sides have ended, one has failed, or neither has spoken for `idle`. Begins with what is in
/// the buffers. Ends early when too much memory is in use, and it is here; and when `is_cut` says so.
pub async fn pass(
    client: &mut Io,
    upstream: &mut Io,
    scratch: &mut Scratch,
    timer: &mut Timer,
    idle: Duration,
    is_cut: impl Fn() -> bool,
) {
    timer.set(Instant::now(), idle);
    let (mut there, mut back) = (Way::Open, Way::Open);
    poll_fn(|cx| {
        let mut moved = false;
        let first = there.poll(cx, client, upstream, &mut scratch.from_client, &mut moved);
        let second = back.poll(cx, upstream, client, &mut scratch.from_upstream, &mut moved);
        match (first, second) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            _ => {}
        }
        if scratch.must_end() || is_cut() {
            return Poll::Ready(());
        }
        let moved = moved.then(Instant::now);
        if let Some(now) = moved {
            timer.set(now, idle);
        }
        let (unsent, unread) = (!scratch.from_upstream.is_empty(), !scratch.from_client.is_empty());
        scratch.waits(cx, client.held(unread, unsent) + upstream.held(unsent, unread), moved);
        timer.poll(cx)
    })
    .await;
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// The source has ended; what is left is written, then the other side is told.
    Ending,
    Ended,
}

impl Way {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Io,
        to: &mut Io,
        buffer: &mut Buffer,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        loop {
            if *self == Way::Ended {
                return Poll::Ready(Ok(()));
            }
            if !buffer.is_empty() {
                let count = ready!(to.poll_write(cx, buffer.data(), &[]))?;
                buffer.consume(count);
                *moved = true;
            } else if *self == Way::Ending {
                ready!(to.poll_shutdown(cx))?;
                *self = Way::Ended;
            } else {
                if buffer.is_full() {
                    buffer.make_room(STREAM_BYTES);
                }
                match ready!(from.poll_read(cx, buffer))? {
                    0 => *self = Way::Ending,
                    _ => *moved = true,
                }
            }
        }
    }
}
