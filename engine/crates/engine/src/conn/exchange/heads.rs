//! The heads of the answer: interim ones, "not here", a switch of protocols, the final one.

use std::time::Duration;

use sdlb_http1::{self as http1, Body, Length, Name, Refused, Response, list};

use tokio::time::Instant;

use super::{Answer, End, Exchange, Gate, INTERIM_MAX, Up};
use crate::{
    answer::{ENDED, FULL, UNREACHABLE},
    conn::{
        buffer::Scratch,
        facts::{GRPC, told_length},
        io::Io,
    },
    forward::{
        framing::Framing,
        response::{self, After},
    },
    settings::ListenerKind,
};

impl Exchange<'_> {
    /// Reads heads until the final one.
    pub(super) fn read_heads(&mut self) -> Result<Option<End>, End> {
        let limits = self.limits.of_answers(self.to_node);
        loop {
            let data = self.scratch.from_upstream.data();
            if data.is_empty() {
                return Ok(None);
            }
            let Some(length) = self.scratch.response.advance(data, &limits).map_err(End::Malformed)? else {
                return Ok(None);
            };
            if self.scratch.response.is_interim() {
                self.interim(length)?;
                continue;
            }
            if self.to_node && self.scratch.response.status == 421 && self.has_field(Name::SdlbNotHere) {
                return Ok(Some(self.not_here(length)));
            }
            if self.scratch.response.status == 101 {
                return self.switch(length).map(Some);
            }
            self.final_head(length);
            return Ok(None);
        }
    }

    fn has_field(&self, name: Name) -> bool {
        self.scratch.response.fields().iter().any(|field| field.name == name)
    }

    fn interim(&mut self, length: usize) -> Result<(), End> {
        self.interims += 1;
        if self.interims > INTERIM_MAX {
            return Err(End::Malformed(Refused {
                kind: http1::Kind::Malformed,
                reason: "there are too many interim responses",
            }));
        }
        let Scratch { from_upstream, response, to_client, .. } = &mut *self.scratch;
        let goes_on = response.status == 100;
        if goes_on {
            self.gate = Gate::Open;
        }
        let wanted = if goes_on { self.facts.expects && !self.continued } else { true };
        if wanted && !self.facts.old {
            self.continued |= goes_on;
            response::write_interim(&from_upstream.data()[..length], response, None, to_client);
        }
        from_upstream.consume(length);
        response.reset();
        Ok(())
    }

    /// `421` with `sdlb-not-here`: it has no content.
    fn not_here(&mut self, length: usize) -> End {
        let Scratch { from_upstream, response, .. } = &mut *self.scratch;
        let data = from_upstream.data();
        let status = |field: &&http1::Field| field.name == Name::ProxyStatus;
        let below = response.fields().iter().find(status).map_or_else(Vec::new, |field| field.value.of(data).to_vec());
        let empty = response.content_length() == Some(0) && data.len() == length;
        let keep_upstream = empty && response.keeps_alive() && self.up == Up::Sent;
        let said = response.fields().iter().find(|field| field.name == Name::SdlbNotHere);
        let says = |why: &str| said.is_some_and(|field| field.value.of(data) == why.as_bytes());
        let (unreachable, full) = (says(UNREACHABLE), says(FULL));
        let avoid = |field: &&http1::Field| field.name == Name::SdlbAvoid;
        let ended = says(ENDED)
            .then(|| response.fields().iter().find(avoid).map_or_else(Vec::new, |field| field.value.of(data).to_vec()));
        let all = data.len();
        from_upstream.consume(all);
        End::NotHere { keep_upstream, below, unreachable, full, ended }
    }

    /// `101`: only to the protocol that was asked for.
    fn switch(&mut self, length: usize) -> Result<End, End> {
        let Scratch { from_client, from_upstream, request, response, to_client, .. } = &mut *self.scratch;
        let head = &from_upstream.data()[..length];
        let asked = request.single(from_client.data(), Name::Upgrade).unwrap_or_default();
        let mut given = response.fields().iter().filter(|field| field.name == Name::Upgrade);
        let same = given.next().is_some_and(|field| field.value.of(head).eq_ignore_ascii_case(asked));
        if !self.facts.upgrade || !response.upgrades() || !same || given.next().is_some() || self.up != Up::Sent {
            return Err(End::Malformed(Refused {
                kind: http1::Kind::Malformed,
                reason: "it switched to a protocol that the request did not ask for",
            }));
        }
        response::write_interim(head, response, Some(asked), to_client);
        from_upstream.consume(length);
        self.status = 101;
        Ok(End::Upgraded)
    }

    fn final_head(&mut self, length: usize) {
        let Scratch { from_upstream, response, to_client, .. } = &mut *self.scratch;
        let body = response.length(self.facts.head);
        // Only nodes say so: a child, or this one of an instance that speaks HTTP/2.
        let told = (self.to_node || matches!(self.upstream.io, Io::Link(_)))
            .then(|| told_length(from_upstream.data(), response.fields()))
            .flatten()
            .filter(|_| body == Length::Chunked);
        let framing = match body {
            Length::None if response.status == 204 => Framing::Empty(None),
            Length::None => Framing::Empty(response.content_length()),
            Length::Known(length) => Framing::Length(length),
            Length::Chunked | Length::UntilClose if self.facts.old => Framing::Close,
            Length::Chunked | Length::UntilClose => match (told, &self.client, self.facts.from) {
                (Some(length), Io::Stream(_), _) => Framing::ChunkedOf(length),
                (Some(length), _, ListenerKind::Node) => Framing::ChunkedToNode(length),
                // HTTP/1.1 has one or the other. Browsers say `TE: trailers` of everything, and show how much is left.
                (Some(length), ..) if !announces_trailers(response) => Framing::Length(length),
                _ => Framing::Chunked,
            },
        };
        // An answer while the request is still coming: whatever of it comes now is nobody's.
        let early = self.up != Up::Sent;
        if early {
            self.worker.counters.early_answers_total.add();
        }
        // An upgrade that was refused: what the client has sent behind it may be anything.
        let keep_client = self.facts.keep
            && !early
            && !self.facts.upgrade
            && framing != Framing::Close
            && !self.worker.is_draining(self.facts.from);
        let after = match (keep_client, self.facts.old) {
            (true, false) => After::Keep,
            (true, true) => After::KeepOld,
            (false, _) => After::Close,
        };
        let head = &from_upstream.data()[..length];
        let (events, keep_s) = habits(head, response);
        if self.facts.grpc {
            // An answer that is nothing but a head has it there.
            let status = response.fields().iter().find(|field| field.text.of(head).eq_ignore_ascii_case(GRPC_STATUS));
            self.grpc_status = status.and_then(|field| code(field.value.of(head)));
        }
        self.keep_alive = keep_s.map(|seconds| Duration::from_secs(seconds.min(3_600)));
        let local = &self.worker.local;
        response::write(head, response, framing, after, &self.facts.added, |line| local.with_date(line), to_client);
        let trailers = self.limits.of_answers(self.to_node);
        self.answer = Some(Answer {
            body: Body::new(body, trailers),
            framing,
            told,
            idle_timeout: match events {
                true => self.limits.event_stream_idle_timeout,
                false => self.limits.response_idle_timeout,
            },
            is_stream: events,
            keep_client,
            keep_upstream: response.keeps_alive() && !early && body != Length::UntilClose,
            done: false,
        });
        self.status = response.status;
        if self.watched || !self.to_node {
            self.head_at = Some(Instant::now());
        }
        from_upstream.consume(length);
    }
}

fn announces_trailers(response: &Response) -> bool {
    response.fields().iter().any(|field| field.name == Name::Trailer)
}

/// The field that says how a call has ended.
pub(super) const GRPC_STATUS: &[u8] = b"grpc-status";

/// A code of gRPC.
pub(super) fn code(value: &[u8]) -> Option<u8> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Whether it is a stream of gRPC messages or of server-sent events (HTML Living Standard, 9.2), and the seconds of `Keep-Alive: timeout=n`.
fn habits(head: &[u8], response: &Response) -> (bool, Option<u64>) {
    const MEDIA: &[u8] = b"text/event-stream";
    const TIMEOUT: &[u8] = b"timeout=";
    let begins = |text: &[u8], start: &[u8]| text.get(..start.len()).is_some_and(|its| its.eq_ignore_ascii_case(start));
    let (mut events, mut keep_s) = (false, None);
    for field in response.fields() {
        let value = field.value.of(head);
        match field.name {
            Name::Content if begins(value, MEDIA) || begins(value, GRPC) => {
                events |= begins(field.text.of(head), b"content-type")
            }
            Name::KeepAlive => {
                let parameter = list(value).find(|parameter| begins(parameter, TIMEOUT));
                let seconds = parameter.and_then(|text| std::str::from_utf8(&text[TIMEOUT.len()..]).ok()?.parse().ok());
                keep_s = seconds.or(keep_s);
            }
            _ => {}
        }
    }
    (events, keep_s)
}
