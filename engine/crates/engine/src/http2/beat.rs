//! Notices when nobody is at the other end of a link any more.
//!
//! While requests wait on a link and nothing comes from it, it is asked (`PING`). A node answers at once, so that requests
//! on a link to one that has vanished can go elsewhere within two seconds. An instance may stand still for a while
//! (garbage collection, a debugger), and gRPC servers end connections that are asked too often without anything to
//! send: it is asked once in a silence, and again only after minutes. A link to a node is asked now and then also without
//! requests, so that the next one finds it good.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

/// Bytes of the answer to a `PING`. Who sends no more than that has nothing to say.
const PONG_BYTES: u64 = 17;

/// How a link is looked after.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Silence after which it is asked while requests wait.
    silence: Duration,
    /// How long the answer may take.
    grace: Duration,
    /// Silence after which it is asked again when it had nothing but the answer to send.
    again: Duration,
    /// The same without requests; `None`: never.
    idle: Option<Duration>,
}

impl Pace {
    /// Of a link to a child node.
    pub const NODE: Self = Self {
        silence: Duration::from_millis(400),
        grace: Duration::from_millis(1_200),
        again: Duration::from_millis(400),
        idle: Some(Duration::from_secs(15)),
    };
    /// Of a link to an instance. gRPC servers take a `PING` every five minutes.
    pub const INSTANCE: Self = Self {
        silence: Duration::from_secs(1),
        grace: Duration::from_secs(10),
        again: Duration::from_secs(310),
        idle: None,
    };
}

/// A look that is later than this was held up by this process: its peers had no chance.
const LATE: Duration = Duration::from_millis(200);

/// The pings of one link.
#[derive(Debug)]
pub struct Beat {
    pings: PingPong,
    pace: Pace,
    due: Pin<Box<Sleep>>,
    /// Bytes that had come at the last look.
    heard: u64,
    /// Without an answer until now, or nothing but it.
    asked: bool,
    waits: bool,
}

/// What the next look is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Nothing is wrong; the next one after this time. `None`: none until a request is sent.
    Next(Option<Duration>),
    Ask,
    Dead,
}

/// One look. `heard`: bytes that have come since the last; `asked`: since then an answer is owed.
fn look(pace: Pace, waits: bool, heard: u64, asked: bool, late: bool) -> Look {
    if asked && heard == 0 {
        return if late { Look::Next(Some(pace.grace)) } else { Look::Dead };
    }
    let quiet = if asked && heard <= PONG_BYTES { pace.again } else { pace.silence };
    match (waits, pace.idle) {
        (true, _) if heard == 0 => Look::Ask,
        (true, _) => Look::Next(Some(quiet)),
        (false, Some(_)) if heard == 0 => Look::Ask,
        (false, idle) => Look::Next(idle),
    }
}

impl Beat {
    /// Of a link that was just opened.
    pub fn new(pings: PingPong, pace: Pace) -> Self {
        let first = pace.idle.unwrap_or(pace.again);
        Self { pings, pace, due: Box::pin(sleep(first)), heard: 0, asked: false, waits: false }
    }

    /// To be polled with the link. `waits`: requests wait on it; `heard`: bytes that have come from it in all. Ready: nobody
    /// is there. (That the connection has failed shows by itself.)
    pub fn poll(&mut self, cx: &mut Context<'_>, waits: bool, heard: u64) -> Poll<()> {
        if waits && !std::mem::replace(&mut self.waits, waits) && !self.asked {
            // What came before the request says nothing about the time after it.
            self.heard = heard;
            self.due.as_mut().reset(Instant::now() + self.pace.silence);
        }
        self.waits = waits;
        // Only to take the answer from `h2`, so that it can be asked again; that it has come shows by the bytes.
        let _ = self.pings.poll_pong(cx);
        loop {
            if self.due.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            let late = now.saturating_duration_since(self.due.deadline()) > LATE;
            let fresh = heard.saturating_sub(std::mem::replace(&mut self.heard, heard));
            let asked = std::mem::replace(&mut self.asked, false);
            let next = match look(self.pace, waits, fresh, asked, late) {
                Look::Dead => return Poll::Ready(()),
                Look::Ask => {
                    // Refused: the last one is not answered yet, and the next look is for it.
                    let _ = self.pings.send_ping(Ping::opaque());
                    self.asked = true;
                    self.pace.grace
                }
                Look::Next(next) => {
                    self.asked = asked && fresh == 0;
                    next.unwrap_or(self.pace.again)
                }
            };
            self.due.as_mut().reset(now + next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_silent_while_requests_wait_is_given_up_within_two_seconds() {
        let pace = Pace::NODE;
        // Something has come just before the first look.
        assert_eq!(look(pace, true, 1000, false, false), Look::Next(Some(pace.silence)));
        assert_eq!(look(pace, true, 0, false, false), Look::Ask);
        assert_eq!(look(pace, true, 0, true, false), Look::Dead);
        assert!(2 * pace.silence + pace.grace <= Duration::from_secs(2));
    }

    #[test]
    fn an_instance_that_only_answers_pings_is_not_asked_again_for_minutes() {
        let pace = Pace::INSTANCE;
        assert_eq!(look(pace, true, 0, false, false), Look::Ask);
        assert_eq!(look(pace, true, PONG_BYTES, true, false), Look::Next(Some(pace.again)));
        assert_eq!(look(pace, true, PONG_BYTES + 100, true, false), Look::Next(Some(pace.silence)));
        assert_eq!(look(pace, false, 0, false, false), Look::Next(None));
    }

    #[test]
    fn a_link_without_requests_is_asked_only_if_it_leads_to_a_node() {
        assert_eq!(look(Pace::NODE, false, 0, false, false), Look::Ask);
        assert_eq!(look(Pace::NODE, false, 0, true, false), Look::Dead);
        assert_eq!(look(Pace::NODE, false, PONG_BYTES, true, false), Look::Next(Pace::NODE.idle));
    }

    #[test]
    fn who_was_held_up_itself_gives_more_time() {
        assert_eq!(look(Pace::NODE, true, 0, true, true), Look::Next(Some(Pace::NODE.grace)));
    }
}
