//! Whether the client is still there while its request waits: parked, or for the upstream's answer.
//!
//! A reset is plain. The end of what the client sends is not: a client that has gone and one that has only shut down its
//! own side, and still reads, look the same. nginx and Envoy take either for gone, HAProxy neither unless it is told
//! `option abortonclose`; so one cuts off clients that are there (`printf ... | nc`), the other works for those that are
//! not. Here the client is asked. Every answer begins with `HTTP/1.1 `, so a byte of that can go ahead at any time: who
//! still reads keeps it as the beginning of the answer, and the system of who has gone replies with a reset (RFC 9293,
//! 3.10.7). A lost reset costs what it did before: the time-outs go on.
//!
//! What else the client sends meanwhile (pipelined requests, a body) is read into its buffer while there is room, and
//! stays there. With the buffer full nothing is noticed: its client waits for us, not we for it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{buffer::Buffer, io::Io};

/// What every answer begins with.
const START: &[u8; 9] = b"HTTP/1.1 ";
/// From the first look at a client that ended its side to the second; each further one is twice as long away.
const LOOK: Duration = Duration::from_millis(10);
/// Then the distance stays.
const LOOKS_MAX: u32 = 10;

/// One request's eye on its client.
#[derive(Debug, Default)]
pub struct Watch {
    /// The client has ended its side: when it is looked at next, and how often it was.
    ended: Option<(Pin<Box<Sleep>>, u32)>,
}

impl Watch {
    /// Whether the client has ended its side.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Ready: the client is gone. `ahead`: how many bytes of the next answer's start were sent already; `None` while an
    /// answer is under way, into which nothing can be put.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Io,
        buffer: &mut Buffer,
        mut ahead: Option<&mut usize>,
    ) -> Poll<()> {
        while self.ended.is_none() {
            if buffer.space().is_empty() {
                return Poll::Pending;
            }
            match client.poll_read(cx, buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => self.ended = Some((Box::pin(sleep_until(Instant::now())), 0)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
            }
        }
        while let Some((sleep, looks)) = &mut self.ended {
            if sleep.as_mut().poll(cx).is_pending() {
                break;
            }
            match ahead.as_deref_mut().filter(|ahead| **ahead < START.len()) {
                Some(ahead) => match client.poll_write(cx, &START[*ahead..=*ahead], &[]) {
                    Poll::Ready(Ok(count)) => *ahead += count,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                },
                None if client.has_failed() => return Poll::Ready(()),
                None => {}
            }
            sleep.as_mut().reset(Instant::now() + LOOK * (1 << *looks));
            *looks = (*looks + 1).min(LOOKS_MAX);
        }
        Poll::Pending
    }
}
