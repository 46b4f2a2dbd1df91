//! The head of a request that goes to an instance or a node, and what goes ahead of it.

use std::net::SocketAddr;

use sdlb_http1::{Length, Name, Request};
use sdlb_routes::{Picked, ProxyProtocol, TargetKind};

use super::{
    Conn,
    buffer::Scratch,
    exchange::Gate,
    facts::Facts,
    handle::{Job, body_in, is_small},
};
use crate::{
    forward::{
        proxy,
        request::{Client, Forwarded},
    },
    settings::{Limits, ListenerKind},
};

/// So much earlier than we do, at most, a child gives an instance up.
const CHILD_SPARE_MS: u64 = 500;

impl Conn {
    /// Writes it into the scratch. Gives when the body may follow.
    pub(super) fn write_head(
        &self,
        scratch: &mut Scratch,
        job: &mut Job<'_>,
        picked: &Picked,
        to_node: bool,
        on_link: bool,
    ) -> Gate {
        let facts = &job.facts;
        let Scratch { request, from_client, host, target, to_upstream, .. } = scratch;
        let data = from_client.data();
        // Towards a node, a body that could not be sent a second time waits until the node has a place for it. Towards
        // an instance it waits only if the client does.
        let large = to_node && !fits_whole(facts, data, &job.config.limits);
        let expect = if to_node { facts.expects || large } else { facts.client_expects };
        let limits = &job.config.limits;
        // The time runs from the moment that the entry has found a connection: to wait parked takes nothing of it.
        let own_ms = facts.response_timeout(limits).as_millis() as u64;
        let spent_ms = || u64::try_from(facts.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let left_ms = facts.timeout_ms.map_or(own_ms, |left_ms| own_ms.min(left_ms.saturating_sub(spent_ms()).max(1)));
        // A little less for the child, so that its answer, which names the instance that is late, comes in time.
        let left_ms = (left_ms - (left_ms / 10).min(CHILD_SPARE_MS)).max(1);
        to_upstream.clear();
        if !on_link && let Some(proxied) = proxy_protocol(job, picked) {
            self.write_proxy_header(proxied, facts, request, data, to_upstream);
        }
        let avoid = match self.listener.kind {
            ListenerKind::Entry => &job.tries.avoid_below,
            ListenerKind::Node => request.single(&data[..facts.head_bytes], Name::SdlbAvoid).unwrap_or_default(),
        };
        let forged = Forwarded {
            head: &data[..facts.head_bytes],
            request,
            target,
            host: host.text(),
            node: &job.config.pseudonym,
            client: (self.listener.kind == ListenerKind::Entry).then_some(Client {
                address: self.client(facts),
                drops_underscores: self.listener.hardening.drop_underscore_fields,
                tls: facts.https.unwrap_or(self.listener.tls),
                by_proxy: facts.by_proxy,
            }),
            http2: self.io.is_stream(),
            request_id: facts.new_id.then_some(&facts.request_id),
            stamp: to_node.then(|| (&**picked.group().stamp(), left_ms)),
            avoid,
            max_forwards: facts.max_forwards.map(|left| left.saturating_sub(1)),
            client_port: (to_node && wants_proxy_protocol(job).is_some()).then(|| self.client_port(facts)),
            framing: facts.framing(to_node, on_link),
            expect,
            client_expects: facts.client_expects,
            wants_trailers: facts.wants_trailers,
            upgrade: facts.upgrade,
        }
        .write(to_upstream);
        if forged && !std::mem::replace(&mut job.forged, true) {
            self.worker.counters.forged_fields_total.add();
        }
        match (to_node && expect, facts.client_expects) {
            (false, _) => Gate::Open,
            (true, true) => Gate::Timed,
            (true, false) => Gate::Shut,
        }
    }

    /// What goes ahead of the connection that the request has for itself.
    pub(super) fn write_proxy_header(
        &self,
        version: ProxyProtocol,
        facts: &Facts,
        request: &Request,
        head: &[u8],
        out: &mut Vec<u8>,
    ) {
        let client = match self.listener.kind {
            ListenerKind::Entry => self.client(facts),
            // As the entry has put it there.
            ListenerKind::Node => request
                .fields()
                .iter()
                .find(|field| field.text.of(head).eq_ignore_ascii_case(b"x-forwarded-for"))
                .and_then(|field| std::str::from_utf8(field.value.of(head)).ok())
                .unwrap_or_default(),
        };
        let client = client.parse().ok().map(|address| SocketAddr::new(address, self.client_port(facts)));
        proxy::write(version, client, self.listener.bound, out);
    }

    /// The client's port; 0: nobody has said.
    fn client_port(&self, facts: &Facts) -> u16 {
        match (self.listener.kind, &facts.client) {
            (ListenerKind::Entry, None) => self.peer.port,
            _ => facts.client_port,
        }
    }
}

/// What goes ahead of the request: on a connection that is fresh, and used for nothing else.
pub(super) fn proxy_protocol(job: &Job<'_>, picked: &Picked) -> Option<ProxyProtocol> {
    wants_proxy_protocol(job).filter(|_| picked.target().kind() == TargetKind::Instance)
}

/// What the instances of the service want.
fn wants_proxy_protocol(job: &Job<'_>) -> Option<ProxyProtocol> {
    job.tries.settings.as_ref().map(|settings| settings.proxy_protocol).filter(|version| *version != ProxyProtocol::Off)
}

/// Whether the body can be kept until it is answered.
fn fits_whole(facts: &Facts, data: &[u8], limits: &Limits) -> bool {
    match facts.length {
        Length::Chunked => body_in(facts, data, limits).is_some(),
        length => is_small(length),
    }
}
