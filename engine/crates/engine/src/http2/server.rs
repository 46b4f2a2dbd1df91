//! One stream of a client, as an HTTP/1.1 connection that carries one request.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Method, Request, StatusCode, header, request};
use sdlb_http1::{self as http1, Body, Length};

use super::{
    connection::STREAM_WINDOW,
    failed,
    head::Head,
    inbound::{Framing, Inbound},
    meter::Reading,
    outbound::Outbound,
    translate::{self, Asked},
};
use crate::{conn::buffer::Buffer, memory::Holder, tls::sites::Handshake};

/// Our own heads: their bounds were checked before.
const HEAD: http1::Limits = http1::Limits { head_bytes: 4 << 20, fields: 20_000 };

/// A request and the way back.
#[derive(Debug)]
pub struct Stream {
    inbound: Inbound,
    respond: SendResponse<Bytes>,
    /// The answer, from its head on.
    outbound: Option<Outbound>,
    told: Option<u64>,
    asked: Asked,
    handshake: Option<Rc<Handshake>>,
    whole: Option<Rc<Holder>>,
}

impl Stream {
    /// A stream that was opened. `random`, `from_node`: see [`translate::request`].
    pub fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        handshake: Option<Rc<Handshake>>,
        random: [u64; 2],
        from_node: bool,
        whole: Option<Rc<Holder>>,
        reading: Rc<Reading>,
    ) -> Self {
        let (mut parts, recv) = request.into_parts();
        let told = told_length(&parts).filter(|_| !recv.is_end_stream());
        if told.is_some() {
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        let mut head = Vec::with_capacity(1024);
        let asked = translate::request(&parts, recv.is_end_stream(), random, from_node, &mut head);
        let chunked = !recv.is_end_stream() && !parts.headers.contains_key(header::CONTENT_LENGTH);
        let framing = match (&asked.websocket, chunked) {
            (Some(_), _) => Framing::Tunnel,
            (None, true) => Framing::Chunked,
            (None, false) => Framing::Plain,
        };
        let inbound = Inbound::new(head, recv, framing).told(reading);
        Self { inbound, respond, outbound: None, told, asked, handshake, whole }
    }

    /// The length of a body that is read in chunks. `h2` sees to it that the content is as long.
    pub fn told_length(&self) -> Option<u64> {
        self.told
    }

    /// What the TLS handshake of its connection was for; `None`: it is in plaintext.
    pub fn handshake(&self) -> Option<&Handshake> {
        self.handshake.as_deref()
    }

    /// See [`Outbound::passed`].
    pub fn passed(&mut self) -> usize {
        self.outbound.as_mut().map_or(0, Outbound::passed)
    }

    /// What its memory counts as a part of: its connection, unless that is a link of many clients.
    pub fn whole(&self) -> Option<&Rc<Holder>> {
        self.whole.as_ref()
    }

    /// See [`Io::held`](crate::conn::io::Io::held). What `h2` has for a client counts for its connection.
    pub fn held(&self, unread: bool, unsent: bool) -> usize {
        let from_node = self.whole.is_none();
        let window = if unread && from_node { STREAM_WINDOW as usize } else { 0 };
        self.inbound.held(window) + self.outbound.as_ref().map_or(0, |outbound| outbound.held(unsent && from_node))
    }

    fn is_answered(&self) -> bool {
        self.outbound.as_ref().is_some_and(Outbound::has_ended)
    }

    /// Reads of the request. 0: it was answered, or its tunnel has ended.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        let tunnel = self.asked.websocket.is_some() && self.outbound.is_some();
        if self.is_answered() && !tunnel {
            return Poll::Ready(Ok(0));
        }
        if !self.inbound.is_over() || tunnel {
            return self.inbound.poll_read(cx, buffer);
        }
        // Nothing more comes but a reset.
        match &mut self.outbound {
            Some(outbound) => outbound.poll_reset(cx).map(Err),
            None => self.respond.poll_reset(cx).map(|reset| match reset {
                Ok(reason) => Err(io::Error::new(io::ErrorKind::ConnectionReset, reason.description())),
                Err(error) => Err(failed(error)),
            }),
        }
    }

    /// Writes of the answer: heads, then its body.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.outbound {
            Some(outbound) => outbound.poll_write(cx, bytes),
            None => Poll::Ready(self.begin(bytes)),
        }
    }

    /// A head. It comes whole: it is written from one buffer, and all of it is taken.
    fn begin(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let head = Head::of(bytes).ok_or_else(malformed)?;
        let mut response = translate::response(&head).ok_or_else(malformed)?;
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return self.begin_tunnel(&head, response).map(|()| head.bytes());
        }
        if status.is_informational() {
            self.respond.send_informational(response).map_err(failed)?;
            return Ok(head.bytes());
        }
        let bodyless = self.asked.head || translate::is_bodyless(status);
        let body = if bodyless { Length::None } else { head.length().unwrap_or(Length::UntilClose) };
        let ended = matches!(body, Length::None | Length::Known(0));
        if ended && is_grpc(response.headers()) {
            // "Trailers-Only" of the gRPC protocol: there is no content whose length could be told.
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        let send = self.respond.send_response(response, ended).map_err(failed)?;
        self.outbound = Some(Outbound::new(send, Some(Body::new(body, HEAD)), ended).told(self.inbound.reading()));
        Ok(head.bytes())
    }

    /// `101` becomes `200` (RFC 8441, 5), if it is the answer to the key that we sent.
    fn begin_tunnel(&mut self, head: &Head, mut response: http::Response<()>) -> io::Result<()> {
        let given = head.value(b"sec-websocket-accept");
        if self.asked.websocket.is_none() || given.as_deref() != self.asked.websocket.as_ref().map(String::as_bytes) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its 101 does not match the WebSocket handshake"));
        }
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().remove(http::header::SEC_WEBSOCKET_ACCEPT);
        let send = self.respond.send_response(response, false).map_err(failed)?;
        self.outbound = Some(Outbound::new(send, None, false).told(self.inbound.reading()));
        Ok(())
    }

    /// Nothing more is written: ends a tunnel, and breaks off an answer that is not complete.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.outbound {
            Some(outbound) if self.asked.websocket.is_some() => outbound.poll_end(cx),
            _ => {
                self.break_off();
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Resets what is not complete.
    pub fn break_off(&mut self) {
        match &mut self.outbound {
            Some(outbound) => outbound.reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.break_off();
    }
}

/// The length of a body behind which trailers are announced: it is read in chunks. Others are read as they come, which costs less.
fn told_length(parts: &request::Parts) -> Option<u64> {
    let mut lengths = parts.headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next().filter(|_| lengths.next().is_none())?;
    let announced = parts.headers.contains_key(header::TRAILER) && parts.method != Method::CONNECT;
    length.to_str().ok()?.parse().ok().filter(|_| announced)
}

/// Whether these are fields of gRPC.
pub fn is_grpc(fields: &http::HeaderMap) -> bool {
    fields.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
