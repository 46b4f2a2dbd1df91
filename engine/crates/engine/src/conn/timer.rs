//! One timer a connection, for all its time-outs.
//!
//! A time-out hardly ever happens, but its deadline moves with every request. So moving it later only notes the new
//! deadline; the runtime's timer is touched when it fires, or when a deadline comes nearer than it is set to.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that can be moved for nothing.
#[derive(Debug)]
pub struct Timer {
    sleep: Pin<Box<Sleep>>,
    deadline: Instant,
    /// The runtime knows the waker of this task.
    armed: bool,
}

impl Timer {
    /// Ends at `deadline`.
    #[must_use]
    pub fn new(deadline: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(deadline)), deadline, armed: false }
    }

    /// Ends `after` from `now`.
    pub fn set(&mut self, now: Instant, after: Duration) {
        self.deadline = now + after;
        if self.deadline < self.sleep.deadline() {
            self.sleep.as_mut().reset(self.deadline);
            self.armed = false;
        }
    }

    /// Whether the deadline has passed. Must be polled by one task only: it is not told anew who waits.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.armed && !self.sleep.is_elapsed() {
                return Poll::Pending;
            }
            match self.sleep.as_mut().poll(cx) {
                Poll::Pending => {
                    self.armed = true;
                    return Poll::Pending;
                }
                Poll::Ready(()) if Instant::now() >= self.deadline => return Poll::Ready(()),
                Poll::Ready(()) => {
                    let deadline = self.deadline;
                    self.sleep.as_mut().reset(deadline);
                    self.armed = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_at_the_deadline_set_last() {
        let begin = Instant::now();
        let mut timer = Timer::new(begin + Duration::from_secs(1));
        timer.set(begin, Duration::from_secs(5));
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(begin.elapsed().as_secs(), 5);
        let now = Instant::now();
        timer.set(now, Duration::from_secs(60));
        timer.set(now, Duration::from_secs(2));
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(now.elapsed().as_secs(), 2);
    }
}
