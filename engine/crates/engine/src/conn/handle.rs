//! One request from its head to the end of its answer: tried again where nothing of it was processed.

use std::{future::poll_fn, rc::Rc, sync::atomic::Ordering::Relaxed, task::Poll, time::Duration};

use sdlb_http1::{Body, Length, Method, Piece};
use sdlb_routes::{Fault, Picked, Protocol, TargetKind};
use tokio::time::Instant;

use super::{
    Conn, Then,
    buffer::Scratch,
    exchange::{End, Exchange, Gate, REPLAY_BYTES, Terms},
    facts::{Came, Facts, examine, too_large},
    head::proxy_protocol,
    hedge::{self, Held, Turn},
    log::Line,
    retry::{self, Failure, Next, Wrote},
    select::{RETRY_AFTER_S, Tries, Unserved},
    watch::Watch,
};
use crate::{
    answer::Answer,
    counters::Gauged,
    http2::link,
    settings::{Limits, ListenerKind, NodeConfig},
    upgrade,
    upstream::{Upstream, connect},
    worker::Worker,
};

/// A connection that was idle for longer may be about to be closed by the other side: not for a request that could not be
/// sent again (`pool.rs` says what is left of that).
const SURE_AGE: Duration = Duration::from_secs(1);

/// Before the second repetition of a request and later ones: by chance up to so long, twice as long each time.
const RETRY_PAUSE_MS: usize = 5;
const RETRY_PAUSE_MS_MAX: usize = 250;

/// Refusals of one request by one endpoint and another before one that refuses is not asked again.
const REFUSALS_MAX: u32 = 4;

/// A request under way.
pub(super) struct Job<'a> {
    pub(super) facts: Facts,
    pub(super) config: &'a NodeConfig,
    pub(super) tries: Tries,
    pub(super) line: Option<Line>,
    /// We said `100 Continue` ourselves.
    continued: bool,
    /// Fields of its head were forged; this was counted.
    pub(super) forged: bool,
    /// Bytes that its body may have.
    body_bytes_max: Option<u64>,
    /// The request is not in the client's buffer any more.
    pub(super) consumed: bool,
    /// Of the answer to a gRPC call.
    pub(super) grpc_status: Option<u8>,
}

/// What an attempt led to.
pub(super) enum Attempt {
    Then(Then),
    Again,
    Answer(Answer),
    /// No answer has come yet, for so long that another member may be asked.
    Slow(Box<Held>),
    /// The member that was slow has spoken first.
    Overtaken,
}

/// How long the answer may take to begin as the service's settings say, and whether that is the time of this try, after
/// which there may be another.
fn within(job: &mut Job<'_>, listener: ListenerKind, now: Instant) -> (Option<Duration>, bool) {
    let Some(settings) = &job.tries.settings else { return (None, false) };
    // Below the entry time is what the entry says.
    if listener == ListenerKind::Node {
        return (None, false);
    }
    let whole = settings.timeout_ms;
    if whole != 0 && job.tries.deadline.is_none() {
        job.tries.deadline = Some(now + Duration::from_millis(whole.into()));
        job.facts.timeout_ms = Some(job.facts.timeout_ms.map_or(whole.into(), |said_ms| said_ms.min(whole.into())));
    }
    let left = job.tries.deadline.map(|deadline| deadline.saturating_duration_since(now).max(Duration::from_millis(1)));
    let of_try = Some(settings.try_timeout_ms)
        .filter(|ms| *ms != 0 && job.facts.idempotent && job.tries.paid < settings.retries_max)
        .map(|ms| Duration::from_millis(ms.into()))
        .filter(|of_try| left.is_none_or(|left| *of_try < left));
    (of_try.or(left), of_try.is_some())
}

impl Conn {
    /// Handles the request whose head is in the scratch.
    pub(super) async fn handle(&mut self, scratch: &mut Scratch, head_bytes: usize) -> Then {
        self.watch = Watch::default();
        let worker = self.worker.clone();
        let config = worker.config();
        worker.counters.requests_total.add();
        worker.local.budget.earn(config.limits.retry_budget_percent);
        let random = || worker.with_chance(|chance| [chance.next_u64(), chance.next_u64()]);
        let own_host = || self.own_host();
        let trusted = &self.listener.trusted;
        let is_proxy = !trusted.is_empty() && self.peer.address.parse().is_ok_and(|peer| trusted.contains(peer));
        let came = Came {
            proxies: is_proxy.then_some(trusted),
            handshake: self.io.handshake(),
            sites: &worker.sites,
            own_host: &own_host,
            http2: self.io.is_stream(),
            told: self.io.told_length(),
        };
        let examined = examine(scratch, head_bytes, &self.listener, came, &config, &worker.counters, random);
        let facts = match examined {
            Ok(facts) => facts,
            Err(answer) => {
                let head = scratch.request.method == Method::Head;
                return Box::pin(self.answer_unread(scratch, &answer, head)).await;
            }
        };
        let line = worker.access_log.is_on().then(|| {
            let method = scratch.request.method_text;
            Line::begin(&self.listener.key, self.client(&facts), &config.name, method, scratch, &facts)
        });
        let mut job = Job {
            facts,
            config: &config,
            tries: Tries::default(),
            line,
            continued: false,
            forged: false,
            body_bytes_max: config.limits.body_bytes,
            consumed: false,
            grpc_status: None,
        };
        if let Some(answer) = self.asks_too_often(&job.facts, &config) {
            return Box::pin(self.own_answer(scratch, &mut job, None, answer)).await;
        }
        if let Some(content) = self.proof(scratch, &job.facts) {
            return Box::pin(self.own_answer(scratch, &mut job, None, Answer::proof(content))).await;
        }
        if let Some(location) = self.redirected(scratch, &job.facts, &config) {
            worker.counters.redirects_total.add();
            return Box::pin(self.own_answer(scratch, &mut job, None, Answer::redirect(location))).await;
        }
        let is_last = job.facts.max_forwards == Some(0);
        if is_last && scratch.request.method == Method::Trace {
            // To answer it would be to show what the fields hold that browsers hide from scripts.
            let detail = "This node does not support TRACE.";
            let answer = Answer::new(405, "method-not-served", "http_request_denied", detail);
            return Box::pin(self.own_answer(scratch, &mut job, None, answer)).await;
        }
        if scratch.target == b"*" || is_last {
            // `OPTIONS *` asks the server itself, and that is us (RFC 9110, 9.3.7); and so does what goes no further (7.6.2).
            return Box::pin(self.own_answer(scratch, &mut job, None, Answer::new(204, "", "", ""))).await;
        }
        loop {
            if job.tries.costs && (job.tries.paid > 0 || job.tries.refusals > 0) {
                // Who fails at the same moment does not come back at the same moment.
                let doubled = (job.tries.paid + job.tries.refusals).min(16);
                let most_ms = (RETRY_PAUSE_MS << doubled).min(RETRY_PAUSE_MS_MAX);
                let pause_ms = worker.with_chance(|chance| chance.below(most_ms));
                tokio::time::sleep(Duration::from_millis(pause_ms as u64)).await;
            }
            let mut picked = match self.select(scratch, &job.facts, &mut job.tries).await {
                Ok(picked) => picked,
                Err(Unserved::Answer(answer)) => {
                    return Box::pin(self.own_answer(scratch, &mut job, None, answer)).await;
                }
                Err(Unserved::Ended) => return Box::pin(self.answer_briefly(scratch, &mut job, None)).await,
                Err(Unserved::Gone) => {
                    worker.counters.client_gone_total.add();
                    self.finish(&mut job, None, 0, 0, "client_gone", Instant::now());
                    return Then::Close;
                }
            };
            job.body_bytes_max = match job.tries.settings.as_ref().map_or(0, |settings| settings.body_bytes) {
                0 => config.limits.body_bytes,
                bytes => Some(bytes),
            };
            if let (Some(length), Some(bytes_max)) = (job.facts.content_bytes(), job.body_bytes_max)
                && length > bytes_max
            {
                let answer = too_large(&worker.counters);
                return Box::pin(self.own_answer(scratch, &mut job, None, answer)).await;
            }
            if std::mem::take(&mut job.tries.costs) {
                let most = job.tries.settings.as_ref().map_or(u32::MAX, |settings| settings.retries_max);
                if job.tries.paid >= most || !self.may_try_again() {
                    job.tries.enough = true;
                    continue;
                }
                job.tries.paid += 1;
            }
            Self::bind(&mut job.tries, &picked);
            job.facts.added.session = self.session(&job, &picked);
            if job.tries.count > 0 {
                worker.counters.retries_total.add();
                picked.group().counters().retried();
            }
            job.tries.count += 1;
            let mut attempt = self.attempt(scratch, &mut job, &picked, None).await;
            if let Attempt::Slow(held) = attempt {
                (picked, attempt) = Box::pin(self.hedge(scratch, &mut job, picked, held)).await;
            }
            match attempt {
                Attempt::Then(then) => return then,
                Attempt::Again | Attempt::Slow(_) | Attempt::Overtaken => {}
                Attempt::Answer(answer) => {
                    return Box::pin(self.own_answer(scratch, &mut job, Some(&picked), answer)).await;
                }
            }
        }
    }

    /// What a CA wants to read, on an entry in plaintext.
    fn proof(&self, scratch: &Scratch, facts: &Facts) -> Option<String> {
        let plain = self.listener.kind == ListenerKind::Entry && !self.listener.tls;
        let path = plain.then(|| &scratch.target[..facts.path_bytes])?;
        self.worker.sites.challenges().answer(scratch.host.name(), path)
    }

    /// The client's address.
    pub(super) fn client<'a>(&'a self, facts: &'a Facts) -> &'a str {
        facts.client.as_deref().unwrap_or(&self.peer.address)
    }

    /// Where the client is sent on to, if this node does not serve the request: to `https`, or where its site says.
    fn redirected(&self, scratch: &Scratch, facts: &Facts, config: &NodeConfig) -> Option<Vec<u8>> {
        let path = &scratch.target[..facts.path_bytes];
        if facts.to_https {
            let host = &scratch.host;
            let mut location = [b"https://", host.name().as_bytes()].concat();
            // A client that names a port has reached that one, so nothing between changes them; another has reached port 80.
            if let Some(port) = config.https_port.filter(|port| *port != 443 && host.text() != host.name()) {
                location.push(b':');
                sdlb_http1::decimal(u64::from(port), &mut location);
            }
            location.extend_from_slice(if path == b"*" { b"/" } else { &scratch.target });
            return Some(location);
        }
        facts.added.front.as_ref()?.redirected(path, &scratch.target)
    }

    /// For a request of HTTP/1.0 that names no host.
    fn own_host(&self) -> String {
        match self.io.handshake().and_then(|handshake| handshake.server_name.as_deref()) {
            Some(name) => name.to_owned(),
            None => {
                let local = self.io.local_address().unwrap_or(self.listener.bound);
                std::net::SocketAddr::new(local.ip().to_canonical(), local.port()).to_string()
            }
        }
    }

    /// The cookie for a client whose session begins, on the version that was picked for it.
    fn session(&self, job: &Job<'_>, picked: &Picked) -> Option<Box<[u8]>> {
        let (name, had) = job.tries.session.as_ref()?;
        let session = picked.group().session();
        let secure = if job.facts.https.unwrap_or(self.listener.tls) { "; Secure" } else { "" };
        let cookie = || format!("{name}={session:016x}; Path=/; HttpOnly; SameSite=Lax{secure}");
        (session != *had).then(|| cookie().into_bytes().into())
    }

    /// Past the limit on requests of one address: 429 (RFC 6585, 4). A limit of the entry: below it all come from nodes.
    fn asks_too_often(&self, facts: &Facts, config: &NodeConfig) -> Option<Answer> {
        let rate = config.limits.rate_per_address.filter(|_| self.listener.kind == ListenerKind::Entry)?;
        let wait = self.worker.rates.ask(self.client(facts).parse().ok()?, rate, std::time::Instant::now()).err()?;
        self.worker.counters.limit_requests_per_address_total.add();
        let detail = "The rate limit of this client address is exceeded.";
        let retry_after_s = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let answer = Answer::new(429, "too-many-requests", "http_request_denied", detail);
        Some(Answer { retry_after_s: Some(retry_after_s), ..answer })
    }

    /// Connects and exchanges, once; or only waits on for the answer to what was sent before.
    pub(super) async fn attempt(
        &mut self,
        scratch: &mut Scratch,
        job: &mut Job<'_>,
        picked: &Picked,
        sent: Option<Box<Held>>,
    ) -> Attempt {
        let worker = self.worker.clone();
        let limits = &job.config.limits;
        let target = picked.target();
        let to_node = target.kind() == TargetKind::Node;
        let (mut upstream, gate, now, sent_to) = match sent {
            Some(held) => (held.upstream, Gate::Open, held.since, Some(held.read_at)),
            None => {
                let upstream = match self.kept(job, picked) {
                    Some(upstream) => upstream,
                    None => match Box::pin(self.connected(scratch, job, picked)).await {
                        Ok(upstream) => upstream,
                        Err(attempt) => return attempt,
                    },
                };
                job.tries.leave_queue();
                let gate = self.write_head(scratch, job, picked, to_node, upstream.io.is_stream());
                self.tell_to_go_on(scratch, job, to_node);
                target.counters.requested();
                if !to_node {
                    picked.group().counters().asked();
                }
                // A pooled connection costs no time.
                let now = if upstream.reused { job.tries.now(&job.facts) } else { Instant::now() };
                (upstream, gate, now, None)
            }
        };
        let (within, is_try) = within(job, self.listener.kind, now);
        let mut patience = self.patience(job);
        let terms = Terms {
            // Below the entry the client is a node: it has its own clients' patience in mind.
            bytes_per_s: if self.listener.kind == ListenerKind::Entry { limits.body_bytes_per_s } else { 0 },
            facts: &job.facts,
            limits,
            worker: &worker,
            picked,
            to_node,
            gate,
            continued: job.continued,
            now,
            within,
            body_bytes_max: job.body_bytes_max,
            watched: picked.is_watched(),
        };
        let mut exchange =
            Exchange::new(&mut self.io, &mut upstream, &mut self.watch, &mut self.timer, scratch, &terms);
        if let Some(read_at) = sent_to {
            exchange.go_on(read_at);
        }
        let held = &mut job.tries.held;
        let turn = poll_fn(|cx| {
            let polled = exchange.poll(cx);
            if exchange.is_answered() && held.take().is_some() {
                worker.counters.hedges_won_total.add();
            }
            match polled {
                Poll::Ready(end) => Poll::Ready(Turn::Ended(end)),
                Poll::Pending => hedge::poll(cx, exchange.waits_at(), held, &mut patience),
            }
        })
        .await;
        let (status, bytes, replayable) = (exchange.status, exchange.content_bytes, exchange.replayable);
        let (announced, grpc_status) = (exchange.keep_alive, exchange.grpc_status);
        let (head_at, sent) = (exchange.head_at, exchange.has_sent());
        let forged_trailers = exchange.has_forged_trailers();
        drop(exchange);
        if forged_trailers && !std::mem::replace(&mut job.forged, true) {
            worker.counters.forged_fields_total.add();
        }
        let end = match turn {
            Turn::Ended(end) => end,
            Turn::Slow(read_at) => return Attempt::Slow(Box::new(Held { upstream, since: now, read_at })),
            Turn::Overtaken => return Attempt::Overtaken,
        };
        if picked.is_watched() {
            self.tell_how_it_went(picked, &end, status, head_at, now);
        }
        if !to_node {
            let grpc_status = grpc_status.filter(|_| job.facts.grpc);
            count_answer(picked, &end, (status, grpc_status), head_at, now);
        }
        job.consumed |= !replayable;
        job.grpc_status = grpc_status;

        match end {
            End::Done { keep_client, keep_upstream } => {
                let now = Instant::now();
                if !to_node && matches!(status, 500 | 502..=504) {
                    worker.failed(picked, Fault::Error, "it returns errors");
                } else {
                    worker.succeeded(picked);
                }
                if keep_upstream && proxy_protocol(job, picked).is_none() {
                    worker.local.pool.put(upstream, now, announced);
                }
                self.finish(job, Some(picked), status, bytes, "", now);
                Attempt::Then(match (keep_client, sent) {
                    (true, _) => self.next(scratch, limits, now),
                    (false, true) => Then::Last,
                    (false, false) => Then::Linger,
                })
            }
            End::Upgraded => {
                worker.succeeded(picked);
                Box::pin(self.pass_on(scratch, job, picked, upstream)).await;
                Attempt::Then(Then::Close)
            }
            End::NotHere { keep_upstream, below, unreachable, full, ended } => {
                worker.succeeded(picked);
                if keep_upstream {
                    worker.local.pool.put(upstream, Instant::now(), announced);
                }
                if let Some(key) = ended {
                    return if replayable { self.ask_again(job, below, key) } else { Attempt::Answer(lost_body()) };
                }
                if full {
                    job.tries.full = true;
                } else if unreachable {
                    let detail = "The child node cannot reach the endpoint.";
                    let answer = Answer::new(502, "endpoint-unreachable", "destination_unavailable", detail);
                    job.tries.failure = Some(Answer { below, ..answer });
                } else {
                    job.tries.not_here = true;
                    job.tries.below = below;
                }
                job.tries.avoid(target.id());
                if replayable { Attempt::Again } else { Attempt::Answer(lost_body()) }
            }
            End::Failed { wrote, answered, silent, reason } => {
                if silent {
                    worker.counters.upstream_silent_total.add();
                }
                let failure = Failure {
                    wrote,
                    answered,
                    reused: upstream.reused && !silent,
                    rested: upstream.rested,
                    node: to_node,
                };
                self.failed(job, picked, failure, replayable, upstream.io.was_reset(), reason)
            }
            End::Malformed(refused) if refused.is_limit() => {
                worker.counters.upstream_over_limit_total.add();
                let detail = format!("The endpoint's response is over a limit of this node: {}.", refused.reason);
                let error = "http_response_header_section_size";
                Attempt::Answer(Answer::new(502, "answer-too-long", error, detail))
            }
            End::Malformed(refused) => {
                worker.counters.upstream_malformed_total.add();
                self.blame(picked, Fault::Broken, refused.reason);
                let detail = format!("The endpoint's response is malformed: {}.", refused.reason);
                let error = if job.facts.upgrade { "http_upgrade_failed" } else { "http_protocol_error" };
                Attempt::Answer(Answer::new(502, "endpoint-malformed", error, detail))
            }
            End::Late if is_try && replayable && status == 0 => {
                upstream.io.is_late();
                worker.counters.timeout_try_total.add();
                self.blame(picked, Fault::Late, "it does not respond in time");
                let detail = "The endpoint did not respond in time.";
                Self::elsewhere(job, picked, Answer::new(504, "endpoint-timeout", "http_response_timeout", detail))
            }
            End::Late => {
                upstream.io.is_late();
                // The node above may have left it no time to speak of.
                if job
                    .facts
                    .timeout_ms
                    .is_none_or(|left_ms| u128::from(left_ms) * 2 >= limits.response_timeout.as_millis())
                {
                    self.blame(picked, Fault::Late, "it does not respond in time");
                }
                let detail = "The endpoint did not respond in time.";
                Attempt::Answer(Answer::new(504, "endpoint-timeout", "http_response_timeout", detail))
            }
            End::ClientLate => {
                let detail = "The body did not arrive in time.";
                Attempt::Answer(Answer::new(408, "body-timeout", "connection_read_timeout", detail))
            }
            End::ClientMalformed(refused) => {
                worker.counters.refused_malformed_total.add();
                if status != 0 {
                    return self.cut(job, picked, status, bytes, "http_request_error");
                }
                Attempt::Answer(Answer::refused(refused))
            }
            End::TooLarge => {
                let answer = too_large(&worker.counters);
                if status != 0 {
                    return self.cut(job, picked, status, bytes, "http_request_denied");
                }
                Attempt::Answer(answer)
            }
            End::Ended if status == 0 => Attempt::Then(Box::pin(self.answer_briefly(scratch, job, Some(picked))).await),
            End::Ended => {
                upstream.io.reset_on_close();
                self.io.reset_on_close();
                self.cut(job, picked, status, bytes, "connection_limit_reached")
            }
            End::Drained if status == 0 => {
                let detail = "The endpoint is draining, and its drain deadline has passed.";
                let answer = Answer::new(503, "drain-deadline", "connection_terminated", detail);
                Attempt::Answer(Answer { retry_after_s: Some(RETRY_AFTER_S), ..answer })
            }
            End::Drained => {
                upstream.io.reset_on_close();
                self.io.reset_on_close();
                self.cut(job, picked, status, bytes, "connection_terminated")
            }
            End::Gone => {
                worker.counters.client_gone_total.add();
                if to_node {
                    // So that it need not find out by itself; an instance gets an ordinary end.
                    upstream.io.reset_on_close();
                }
                self.cut(job, picked, status, bytes, "client_gone")
            }
            End::Cut(fault) => {
                // A node breaks off what an instance below it broke off.
                if let Some(fault) = fault.filter(|_| !to_node) {
                    self.blame(picked, fault, "it breaks off its responses");
                }
                self.cut(job, picked, status, bytes, "http_response_incomplete")
            }
        }
    }

    /// Towards a child node of which we know who it is.
    fn is_secured(job: &Job<'_>, picked: &Picked) -> bool {
        picked.target().kind() == TargetKind::Node && job.config.identity.is_some()
    }

    /// A connection that is there.
    fn kept(&self, job: &mut Job<'_>, picked: &Picked) -> Option<Upstream> {
        let local = &self.worker.local;
        let target = picked.target();
        if proxy_protocol(job, picked).is_some() {
            return None;
        }
        if target.protocol() != Protocol::Http1 || Self::is_secured(job, picked) {
            job.tries.fresh = false;
            return local.links.kept(target);
        }
        if job.tries.fresh {
            return None;
        }
        let sure = job.facts.idempotent && is_small(job.facts.length);
        let now = job.tries.now(&job.facts);
        local.pool.take(target, now, (!sure).then_some(SURE_AGE), &self.worker.counters)
    }

    /// A fresh connection, unless the client leaves before there is one, or the request has to end for its memory.
    async fn connected(
        &mut self,
        scratch: &mut Scratch,
        job: &mut Job<'_>,
        picked: &Picked,
    ) -> Result<Upstream, Attempt> {
        let worker = self.worker.clone();
        let mut header = Vec::new();
        if picked.target().protocol() == Protocol::Http2
            && let Some(proxied) = proxy_protocol(job, picked)
        {
            let Scratch { request, from_client, .. } = &*scratch;
            self.write_proxy_header(proxied, &job.facts, request, from_client.data(), &mut header);
        }
        let left = tokio::select! {
            biased;
            opened = Self::opened(&worker, job, picked, &header) => return opened,
            left = self.left(scratch) => left,
        };
        if matches!(left, Unserved::Ended) {
            return Err(Attempt::Then(self.answer_briefly(scratch, job, Some(picked)).await));
        }
        worker.counters.client_gone_total.add();
        Err(self.cut(job, picked, 0, 0, "client_gone"))
    }

    /// A fresh connection. `header`: what goes ahead of HTTP/2, on one that is for this request alone. (That of HTTP/1.1 goes out
    /// with the request.)
    async fn opened(
        worker: &Rc<Worker>,
        job: &mut Job<'_>,
        picked: &Picked,
        header: &[u8],
    ) -> Result<Upstream, Attempt> {
        let target = picked.target();
        job.tries.fresh = false;
        if let Some(settings) = &job.tries.settings {
            let most = settings.limits.endpoint_connections;
            let is_shared = target.protocol() == Protocol::Http2 && header.is_empty();
            if most != 0 && !is_shared && target.counters.connections.load(Relaxed) >= most {
                worker.counters.limit_endpoint_connections_total.add();
                job.tries.avoid(target.id());
                job.tries.full = true;
                return Err(Attempt::Again);
            }
        }
        let within = job.config.limits.connect_timeout;
        let opened = match target.protocol() {
            Protocol::Http1 if !Self::is_secured(job, picked) => connect(target, within, worker.descriptors).await,
            _ if !header.is_empty() => link::open_one(target, within, worker, header).await,
            _ => worker.local.links.get(target, within, worker).await,
        };
        let failed = match opened {
            Ok(upstream) => return Ok(upstream),
            Err(failed) => failed,
        };
        if failed.late {
            worker.counters.timeout_connect_total.add();
        }
        target.counters.connect_failures.fetch_add(1, Relaxed);
        if failed.ours {
            worker.counters.exhausted_total.add();
        } else {
            worker.failed(picked, Fault::Broken, &failed.reason);
            if target.kind() == TargetKind::Instance {
                picked.group().counters().unreached();
            }
        }
        let status = match (failed.late, failed.ours) {
            (true, _) => 504,
            (false, true) => 503,
            (false, false) => 502,
        };
        let detail = format!("The endpoint cannot be reached: {}.", failed.reason);
        let answer = Answer {
            below: std::mem::take(&mut job.tries.below),
            retry_after_s: failed.ours.then_some(1),
            ..Answer::new(status, "endpoint-unreachable", failed.error, detail)
        };
        Err(Self::elsewhere(job, picked, answer))
    }

    /// For the averages of a member and the limits of its service.
    fn tell_how_it_went(&self, picked: &Picked, end: &End, status: u16, head_at: Option<Instant>, began: Instant) {
        let failed = match end {
            End::Done { .. } | End::Upgraded => matches!(status, 500 | 502..=504),
            End::Malformed(refused) if refused.is_limit() => return,
            End::Failed { .. } | End::Malformed(_) | End::Late | End::Cut(Some(_)) => true,
            // The client's doing, ours, or nobody's.
            _ => return,
        };
        let took = head_at.unwrap_or_else(Instant::now).saturating_duration_since(began);
        picked.went(self.worker.now_ms(), u64::try_from(took.as_micros()).unwrap_or(u64::MAX), failed);
    }

    /// The connection failed before the answer began.
    fn failed(
        &self,
        job: &mut Job<'_>,
        picked: &Picked,
        failure: Failure,
        replayable: bool,
        reset: bool,
        reason: &str,
    ) -> Attempt {
        let target = picked.target();
        let request = retry::Request {
            idempotent: job.facts.idempotent,
            replayable,
            repeated: job.tries.repeated,
            reconnects: job.tries.reconnects,
            below: self.listener.kind == ListenerKind::Node,
        };
        let next = retry::next(failure, request);
        // One that ends programs shall not end them all.
        job.tries.repeated |= failure.wrote == Wrote::Something && !failure.node;
        if retry::counts(failure, next) {
            picked.group().counters().broken();
        }
        if next == Next::Reconnect {
            job.tries.reconnects += 1;
            job.tries.fresh = true;
            job.tries.spread(target.id());
            return Attempt::Again;
        }
        self.blame(picked, if reset { Fault::Error } else { Fault::Broken }, reason);
        let error = if failure.answered { "http_response_incomplete" } else { "connection_terminated" };
        let answer = match failure.wrote {
            Wrote::Refused => Answer {
                retry_after_s: Some(RETRY_AFTER_S),
                ..Answer::new(503, "endpoint-refused", "destination_unavailable", "The endpoint refused the request.")
            },
            _ => Answer::new(502, "endpoint-failed", error, format!("The endpoint failed: {reason}.")),
        };
        match next {
            Next::Spread if job.tries.refusals < REFUSALS_MAX => {
                job.tries.refusals += 1;
                job.tries.spread(target.id());
                job.tries.failure = Some(answer);
                job.tries.costs = true;
                Attempt::Again
            }
            Next::Spread | Next::Elsewhere => Self::elsewhere(job, picked, answer),
            Next::Refer => {
                let avoid = target.key().as_bytes().to_vec();
                Attempt::Answer(Answer::ended(avoid, Vec::new(), "connection_terminated"))
            }
            Next::Reconnect | Next::GiveUp => Attempt::Answer(answer),
        }
    }

    /// An instance below, of this key, had it, and ended its connection without a word. The entry repeats it once, and says
    /// which instance is to be asked only when there is no other.
    fn ask_again(&self, job: &mut Job<'_>, below: Vec<u8>, key: Vec<u8>) -> Attempt {
        if self.listener.kind == ListenerKind::Node {
            return Attempt::Answer(Answer::ended(key, below, "destination_unavailable"));
        }
        job.tries.avoid_below = key;
        let detail = "The endpoint failed: its connection was closed without a response.";
        let answer = Answer { below, ..Answer::new(502, "endpoint-failed", "destination_unavailable", detail) };
        if std::mem::replace(&mut job.tries.repeated, true) {
            return Attempt::Answer(answer);
        }
        job.tries.failure = Some(answer);
        job.tries.costs = true;
        Attempt::Again
    }

    /// Nothing of it was processed: another member may take it. `answer`: when none is there.
    fn elsewhere(job: &mut Job<'_>, picked: &Picked, answer: Answer) -> Attempt {
        job.tries.avoid(picked.target().id());
        job.tries.failure = Some(answer);
        job.tries.costs = true;
        Attempt::Again
    }

    /// At the entry the budget of the whole tree decides; below it, only the number of members.
    pub(super) fn may_try_again(&self) -> bool {
        if self.listener.kind == ListenerKind::Node {
            return true;
        }
        let allowed = self.worker.local.budget.spend(self.worker.now_ms());
        if !allowed {
            self.worker.counters.retry_budget_exhausted_total.add();
        }
        allowed
    }

    fn blame(&self, picked: &Picked, fault: Fault, reason: &str) {
        picked.target().counters.failures.fetch_add(1, Relaxed);
        self.worker.failed(picked, fault, reason);
    }

    /// The node above waits with the body until there is a place for it, and here is one.
    fn tell_to_go_on(&self, scratch: &mut Scratch, job: &mut Job<'_>, to_node: bool) {
        if job.facts.expects && !job.facts.client_expects && !to_node && !job.continued {
            scratch.to_client.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            job.continued = true;
        }
    }

    async fn pass_on(&mut self, scratch: &mut Scratch, job: &mut Job<'_>, picked: &Picked, mut upstream: Upstream) {
        let worker = self.worker.clone();
        if !self.write_out(scratch).await {
            return;
        }
        worker.counters.upgrades_total.add();
        let _open = Gauged::new(worker.counters.clone(), |counters| &counters.upgrades_open);
        let now = Instant::now();
        self.finish(job, Some(picked), 101, 0, "", now);
        let is_cut = || picked.is_cut(true, || worker.ms_at(now.into_std()));
        let idle = job.config.limits.upgrade_idle_timeout;
        upgrade::pass(&mut self.io, &mut upstream.io, scratch, &mut self.timer, idle, is_cut).await;
    }
}

/// What the instance did, for the figures of its version. A request that failed may only have met a connection that was closed for being
/// idle (`Conn::failed`).
fn count_answer(
    picked: &Picked,
    end: &End,
    (status, grpc): (u16, Option<u8>),
    head_at: Option<Instant>,
    began: Instant,
) {
    let counters = picked.group().counters();
    match end {
        End::Done { .. } | End::Upgraded => {
            let took = head_at.unwrap_or_else(Instant::now).saturating_duration_since(began);
            counters.answered(status, grpc, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
        End::Malformed(refused) if refused.is_limit() => {}
        End::Malformed(_) | End::Late | End::Cut(Some(_)) => counters.broken(),
        _ => {}
    }
}

fn lost_body() -> Answer {
    let detail = "The child node became unavailable while the body was being sent.";
    Answer::new(502, "body-lost", "destination_unavailable", detail)
}

pub(super) fn is_small(length: Length) -> bool {
    match length {
        Length::None => true,
        Length::Known(length) => length <= REPLAY_BYTES as u64,
        Length::Chunked | Length::UntilClose => false,
    }
}

/// Length of head and body, if all of it is there.
pub(super) fn body_in(facts: &Facts, data: &[u8], limits: &Limits) -> Option<usize> {
    let mut at = facts.head_bytes;
    let mut body = Body::new(facts.length, limits.of_requests(facts.from));
    loop {
        match body.next(data.get(at..)?).ok()? {
            Piece::End(count) => return Some(at + count),
            Piece::Data(piece) => at += piece.end,
            Piece::More => return None,
        }
    }
}
