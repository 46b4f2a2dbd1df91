//! One stream to an endpoint, as an HTTP/1.1 connection that carries one request.

use std::{
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::{Reason, client::ResponseFuture};
use http::{Method, StatusCode, header};
use sdlb_http1::{self as http1, Body, Length};
use tokio::time::{Sleep, sleep};

use super::{
    failed,
    head::Head,
    inbound::{Framing, Inbound},
    link::{Link, STREAM_WINDOW, Use},
    outbound::Outbound,
    server::is_grpc,
    translate,
};
use crate::conn::buffer::Buffer;

/// Our own heads: their bounds were checked before.
const HEAD: http1::Limits = http1::Limits { head_bytes: 4 << 20, fields: 20_000 };

/// A place on a link, for one request.
#[derive(Debug)]
pub struct Stream {
    link: Use,
    exchange: Option<Exchange>,
    /// The endpoint has not processed the request, and says so of this stream.
    refused: bool,
    /// The link has not brought it to the endpoint, or the endpoint says that it takes no more from it.
    unprocessed: bool,
    /// The endpoint has ended this stream, and this stream only.
    reset: bool,
    /// The request could not be sent: there is no answer to wait for.
    failed: bool,
    /// Instead of one that the endpoint gives.
    answer: &'static [u8],
    /// Waits for the endpoint's first settings.
    settling: Option<Pin<Box<Sleep>>>,
    /// Trailers can be passed on behind a body of a told length.
    keeps_trailers: bool,
}

/// The length of a body that is read in chunks, for trailers may follow.
const LENGTH: &str = "sdlb-length";
/// It does not say that it takes WebSockets over HTTP/2, and nothing else would become of the request.
const NO_WEBSOCKET: &[u8] = b"HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\n\r\n";
/// HTTP/1.1 carries it, and HTTP/2 does not.
const NOT_IN_HTTP2: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
/// Most heads of answers are smaller.
const HEAD_BYTES_FEW: usize = 512;
/// How old a link is, at the least, that has heard its endpoint's settings; and how often they are looked for until then.
const SETTLED: Duration = Duration::from_secs(1);
const SETTLING_LOOK: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Exchange {
    response: ResponseFuture,
    outbound: Outbound,
    /// The answer, from its head on.
    inbound: Option<Inbound>,
    head: bool,
    /// `Sec-WebSocket-Accept` for a handshake.
    websocket: Option<String>,
    /// Heads of interim answers that wait to be read.
    interim: Vec<u8>,
    /// What was seen by who only waited for it.
    failed: Option<io::Error>,
    /// Bytes that had come by the link when it was sent.
    heard_before: u64,
    keeps_trailers: bool,
}

impl Stream {
    /// Nothing is sent yet.
    pub fn new(link: &Rc<Link>) -> Self {
        Self {
            link: Use::new(link),
            exchange: None,
            refused: false,
            unprocessed: false,
            reset: false,
            failed: false,
            answer: b"",
            settling: None,
            keeps_trailers: false,
        }
    }

    /// The client reads trailers, also behind a body whose length was told. It is read in chunks then, and the length stands in
    /// a field of our own.
    pub fn keep_trailers(&mut self) {
        self.keeps_trailers = true;
    }

    /// Whether the endpoint said that it has not processed this request (RFC 9113, 8.7).
    pub fn was_refused(&self) -> bool {
        self.refused
    }

    /// Whether nobody was at the other end of its link any more.
    pub fn was_silent(&self) -> bool {
        self.link.link().is_silent()
    }

    /// No answer came in time. If nothing else came by the link either since the request was sent, no other is sent by it.
    pub fn is_late(&self) {
        let link = self.link.link();
        if self.exchange.as_ref().is_some_and(|exchange| exchange.heard_before == link.heard()) {
            link.leave();
        }
    }

    /// Whether the link ended before this request.
    pub fn was_unprocessed(&self) -> bool {
        self.unprocessed
    }

    /// Whether the endpoint has ended this stream and goes on with others: it is there, and does not like the request.
    pub fn was_reset(&self) -> bool {
        self.reset
    }

    /// See [`Io::held`](crate::conn::io::Io::held). The window of an answer counts as full.
    pub fn held(&self, unread: bool, unsent: bool) -> usize {
        let Some(exchange) = &self.exchange else { return 0 };
        let window = if unread { STREAM_WINDOW as usize } else { 0 };
        let inbound = exchange.inbound.as_ref().map_or(0, |inbound| inbound.held(window));
        inbound + exchange.outbound.held(unsent)
    }

    /// Writes of the request: its head, then its body.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.exchange {
            Some(exchange) => exchange.outbound.poll_write(cx, bytes),
            // Nobody reads the rest of it.
            None if !self.answer.is_empty() => Poll::Ready(Ok(bytes.len())),
            None => {
                let begun = self.poll_begin(cx, bytes);
                self.failed |= matches!(begun, Poll::Ready(Err(_)));
                begun
            }
        }
    }

    /// A head. It comes whole: it is written from one buffer, and all of it is taken.
    fn poll_begin(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let link = self.link.link().clone();
        let mut send = link.sender();
        ready!(send.poll_ready(cx)).map_err(|error| self.not_sent(error))?;
        let head = Head::of(bytes).ok_or_else(malformed)?;
        let Some(request) = translate::to_request(&head) else {
            // It is not the endpoint's fault.
            self.answer = NOT_IN_HTTP2;
            return Poll::Ready(Ok(bytes.len()));
        };
        let websocket = request.extensions().get::<h2::ext::Protocol>().is_some();
        while websocket && !send.is_extended_connect_protocol_enabled() {
            if link.age() >= SETTLED {
                self.answer = NO_WEBSOCKET;
                return Poll::Ready(Ok(bytes.len()));
            }
            ready!(self.settling.get_or_insert_with(|| Box::pin(sleep(SETTLING_LOOK))).as_mut().poll(cx));
            self.settling = None;
        }
        let body = head.length().unwrap_or(Length::None);
        let asks_for_head = request.method() == Method::HEAD;
        let ended = matches!(body, Length::None | Length::Known(0)) && !websocket;
        let (response, stream) = send.send_request(request, ended).map_err(|error| self.not_sent(error))?;
        self.exchange = Some(Exchange {
            response,
            outbound: Outbound::new(stream, (!websocket).then(|| Body::new(body, HEAD)), ended),
            inbound: None,
            head: asks_for_head,
            websocket: websocket.then(|| translate::accept(&head.value(b"sec-websocket-key").unwrap_or_default())),
            interim: Vec::new(),
            failed: None,
            heard_before: link.heard(),
            keeps_trailers: self.keeps_trailers,
        });
        Poll::Ready(Ok(head.bytes()))
    }

    /// The link takes no more.
    fn not_sent(&mut self, error: h2::Error) -> io::Error {
        self.link.link().leave();
        self.unprocessed = true;
        failed(error)
    }

    /// Reads of the answer. 0: it has ended.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        let Some(exchange) = &mut self.exchange else {
            if self.failed {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            } else if self.answer.is_empty() {
                // Before the head is written nothing can come.
                return Poll::Pending;
            }
            let space = buffer.space();
            let count = space.len().min(self.answer.len());
            space[..count].copy_from_slice(&self.answer[..count]);
            self.answer = &self.answer[count..];
            buffer.filled(count);
            return Poll::Ready(Ok(count));
        };
        let read = exchange.poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &read {
            let error = error.get_ref().and_then(|error| error.downcast_ref::<h2::Error>());
            self.reset = error.is_some_and(|error| error.is_reset() && error.is_remote());
            if let (None, Some(error)) = (&exchange.inbound, error) {
                self.refused |= self.reset && error.reason() == Some(Reason::REFUSED_STREAM);
                // A stream beyond the last one that a GOAWAY names fails with it.
                self.unprocessed |= error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
            }
        }
        read
    }

    /// Waits until there is something to read of the answer, or it has failed.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.exchange {
            Some(exchange) => exchange.poll_head(cx).map(|head| exchange.failed = head.err()),
            None if self.failed || !self.answer.is_empty() => Poll::Ready(()),
            None => Poll::Pending,
        }
    }

    /// Nothing more is written.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.exchange {
            Some(exchange) if exchange.websocket.is_some() => exchange.outbound.poll_end(cx),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl Exchange {
    /// Ready: there are interim answers to read, or the answer; or it failed.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        while self.inbound.is_none() {
            match self.response.poll_informational(cx) {
                Poll::Ready(Some(interim)) => {
                    let interim = interim.map_err(failed)?;
                    translate::from_response(interim.status(), interim.headers(), true, true, &mut self.interim);
                    continue;
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
            match Pin::new(&mut self.response).poll(cx) {
                Poll::Ready(response) => self.answered(response.map_err(failed)?),
                Poll::Pending if self.interim.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        ready!(self.poll_head(cx))?;
        match &mut self.inbound {
            Some(inbound) if !inbound.is_over() => inbound.poll_read(cx, buffer),
            Some(_) => Poll::Ready(Ok(0)),
            None => {
                let space = buffer.space();
                let count = space.len().min(self.interim.len());
                space[..count].copy_from_slice(&self.interim[..count]);
                self.interim.drain(..count);
                buffer.filled(count);
                Poll::Ready(Ok(count))
            }
        }
    }

    fn answered(&mut self, response: http::Response<h2::RecvStream>) {
        let (mut parts, recv) = response.into_parts();
        let mut head = std::mem::take(&mut self.interim);
        head.reserve(HEAD_BYTES_FEW);
        if let Some(accept) = self.websocket.take_if(|_| parts.status == StatusCode::OK) {
            head.extend_from_slice(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n",
            );
            head.extend_from_slice(b"sec-websocket-accept: ");
            head.extend_from_slice(accept.as_bytes());
            head.extend_from_slice(b"\r\n");
            parts.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
            translate::fields(&parts.headers, &mut head);
            head.extend_from_slice(b"\r\n");
            self.websocket = Some(accept);
            self.inbound = Some(Inbound::new(head, recv, Framing::Tunnel));
            return;
        }
        let ended = recv.is_end_stream();
        let bodyless = self.head || translate::is_bodyless(parts.status);
        if !ended && !bodyless && is_grpc(&parts.headers) {
            // HTTP/1.1 has no trailers behind a body of a told length, and the status of a call is one. `h2` sees to the length.
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        // Nobody but us says this.
        parts.headers.remove(LENGTH);
        if self.keeps_trailers && !ended && !bodyless {
            // `h2` sees to it that the content is as long.
            let told = parts.headers.remove(header::CONTENT_LENGTH);
            told.into_iter().for_each(|length| drop(parts.headers.insert(LENGTH, length)));
        }
        translate::from_response(parts.status, &parts.headers, ended, bodyless, &mut head);
        let plain = ended || bodyless || parts.headers.contains_key(header::CONTENT_LENGTH);
        let framing = if plain { Framing::Plain } else { Framing::Chunked };
        self.inbound = Some(Inbound::new(head, recv, framing));
    }
}
