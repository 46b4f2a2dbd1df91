//! What follows an attempt that failed before anything of an answer came: one table, without any state of its own.
//!
//! Three questions decide. Was the request processed, as far as can be known? May it be done twice? And does the failure say
//! anything about the endpoint, or only about a connection that was kept for too long?

use std::time::Duration;

/// What became of the request at the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// No byte of it was sent, or the endpoint has said that the connection ends before this request (`GOAWAY`).
    Nothing,
    /// The endpoint is there and has said that it did not process this one (`REFUSED_STREAM`, RFC 9113, 8.7).
    Refused,
    /// Some of it was sent: it may have been processed.
    Something,
}

/// One failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What became of the request.
    pub wrote: Wrote,
    /// Bytes of an answer came.
    pub answered: bool,
    /// The connection was used before: it may have been closed for being idle.
    pub reused: bool,
    /// How long it had been idle before.
    pub rested: Duration,
    /// The endpoint is a child node: not one request ends it, and it takes down with it what it carries.
    pub node: bool,
}

/// What of the request decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The method may be done twice.
    pub idempotent: bool,
    /// All of it is still here.
    pub replayable: bool,
    /// An instance has had it before and ended its connection: the request may be what ends programs.
    pub repeated: bool,
    /// Times that it was sent on another connection for nothing.
    pub reconnects: u32,
    /// It came from a node above, which has the retry budget.
    pub below: bool,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Send it on another connection, to another endpoint if there is one. Costs nothing, and nobody is to blame.
    Reconnect,
    /// Send it to another endpoint; to this one only if there is no other. The retry budget pays, after a pause.
    Spread,
    /// Send it to another endpoint, never to this one. The retry budget pays.
    Elsewhere,
    /// Tell the node above, so that tiers do not multiply attempts.
    Refer,
    /// 502.
    GiveUp,
}

/// As many connections may turn out to be closed already before that is taken for a failure of the endpoint.
const RECONNECTS_MAX: u32 = 3;

/// An endpoint that closes idle connections waits longer than this, so one that closes a connection which was in use a moment ago has
/// failed.
const RESTED_MIN: Duration = Duration::from_secs(1);

/// Whether it counts among the requests that the endpoint did not answer, even if it is sent again at no cost.
#[must_use]
pub fn counts(failure: Failure, next: Next) -> bool {
    !failure.node && (next != Next::Reconnect || (failure.wrote == Wrote::Something && failure.rested < RESTED_MIN))
}

/// The table.
#[must_use]
pub fn next(failure: Failure, request: Request) -> Next {
    let Failure { wrote, answered, reused, node, .. } = failure;
    let may_repeat = wrote != Wrote::Something || (request.idempotent && (node || !request.repeated));
    if answered || !request.replayable || !may_repeat {
        return Next::GiveUp;
    }
    match wrote {
        Wrote::Refused => Next::Spread,
        _ if reused && request.reconnects < RECONNECTS_MAX => Next::Reconnect,
        Wrote::Something if request.below && !node => Next::Refer,
        Wrote::Nothing | Wrote::Something => Next::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [bool; 2] = [false, true];

    fn all() -> Vec<(Failure, Request)> {
        let mut all = Vec::new();
        for wrote in [Wrote::Nothing, Wrote::Refused, Wrote::Something] {
            for reconnects in 0..=RECONNECTS_MAX + 1 {
                for bits in 0..128_u32 {
                    let flag = |at: u32| FLAGS[(bits >> at & 1) as usize];
                    let failure =
                        Failure { wrote, answered: flag(0), reused: flag(1), rested: Duration::ZERO, node: flag(2) };
                    let (idempotent, replayable, repeated, below) = (flag(3), flag(4), flag(5), flag(6));
                    all.push((failure, Request { idempotent, replayable, repeated, reconnects, below }));
                }
            }
        }
        all
    }

    #[test]
    fn nothing_is_done_twice_that_must_not_be() {
        for (failure, request) in all() {
            let next = next(failure, request);
            let sent = failure.wrote == Wrote::Something;
            if failure.answered || !request.replayable || (sent && !request.idempotent) {
                assert_eq!(next, Next::GiveUp, "{failure:?} {request:?}");
            }
            if sent && !failure.node && request.repeated {
                assert_eq!(next, Next::GiveUp, "once: {failure:?} {request:?}");
            }
        }
    }

    #[test]
    fn what_was_not_processed_is_never_lost() {
        for (failure, request) in all() {
            if failure.wrote != Wrote::Something && !failure.answered && request.replayable {
                assert!(!matches!(next(failure, request), Next::GiveUp | Next::Refer), "{failure:?} {request:?}");
            }
        }
    }

    #[test]
    fn what_costs_nothing_has_an_end() {
        for (failure, request) in all() {
            if next(failure, request) == Next::Reconnect {
                assert!(failure.reused && failure.wrote != Wrote::Refused && request.reconnects < RECONNECTS_MAX);
            }
        }
    }

    #[test]
    fn only_a_connection_that_may_have_been_closed_for_being_idle_does_not_count() {
        for (failure, request) in all() {
            for rested in [Duration::ZERO, RESTED_MIN] {
                let failure = Failure { rested, ..failure };
                let next = next(failure, request);
                let idle = next == Next::Reconnect && (rested == RESTED_MIN || failure.wrote == Wrote::Nothing);
                assert_eq!(counts(failure, next), !failure.node && !idle, "{failure:?} {request:?}");
            }
        }
    }

    #[test]
    fn only_a_tier_below_refers_and_only_what_an_instance_had() {
        for (failure, request) in all() {
            if next(failure, request) == Next::Refer {
                assert!(request.below && !failure.node && failure.wrote == Wrote::Something);
            }
        }
    }
}
