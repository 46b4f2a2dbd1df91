//! Keeps a link to another node alive, and notices when nobody is at its other end any more.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

/// Between two pings, and how long one may stay unanswered: the other node may be busy or stand still for a moment.
const BEAT: Duration = Duration::from_secs(15);

/// The pings of one link.
#[derive(Debug)]
pub struct Beat {
    pings: PingPong,
    due: Pin<Box<Sleep>>,
    asked: bool,
}

impl Beat {
    /// Of a link that was just opened.
    pub fn new(pings: PingPong) -> Self {
        Self { pings, due: Box::pin(sleep(BEAT)), asked: false }
    }

    /// Ready: there was no answer in time. (That the connection has failed shows by itself.)
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.asked = self.asked && self.pings.poll_pong(cx).is_pending();
            if self.due.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.asked {
                return Poll::Ready(());
            }
            self.asked = self.pings.send_ping(Ping::opaque()).is_ok();
            self.due.as_mut().reset(Instant::now() + BEAT);
        }
    }
}
