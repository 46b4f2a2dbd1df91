//! Request heads.

use crate::{
    Field, Kind, Length, Limits, Name, Refused, Span,
    bytes::{is_query, is_target},
    lines::{Framing, Lines, framing},
    target::{Form, Target, split_query},
};

/// Longest method.
const METHOD_BYTES_MAX: usize = 32;

/// Methods that mean something to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)] // each is the method of that name
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Other,
}

impl Method {
    /// Whether doing it twice is as good as once (RFC 9110, 9.2.2).
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Method::Post | Method::Other)
    }
}

/// Protocol versions that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum Version {
    Http10,
    #[default]
    Http11,
}

/// A request head, read piece by piece. Use one for many requests: it keeps its memory.
#[derive(Debug, Default)]
pub struct Request {
    lines: Lines,
    framing: Framing,
    /// The method.
    pub method: Method,
    /// The method as it was written.
    pub method_text: Span,
    /// The target as it was written.
    pub target: Span,
    /// The version.
    pub version: Version,
    /// The value of `Host`, the only one. `None`: HTTP/1.0 need not have one.
    pub host: Option<Span>,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

impl Request {
    /// Forgets the last request.
    pub fn reset(&mut self) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.reset();
        *self = Self { lines, ..Self::default() };
    }

    /// Goes on reading. `bytes`: everything since the end of the last request. Gives the length of the head once it is
    /// complete; `bytes` up to there is what the spans lie in.
    ///
    /// # Errors
    /// [`Refused`], as early as it can be seen: answer its status and close.
    pub fn advance(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Refused> {
        let begun = self.lines.first.is_some();
        let length = self.lines.advance(bytes, limits, true);
        // The start line is judged first, and once: what follows may be nonsense because the start is.
        if !begun {
            match self.lines.first {
                Some(line) => self.start_line(bytes, line)?,
                None => Self::look_ahead(&bytes[self.lines.start().min(bytes.len())..])?,
            }
        }
        let Some(length) = length? else {
            return Ok(None);
        };
        self.finish(bytes)?;
        Ok(Some(length))
    }

    /// Its fields.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.lines.fields
    }

    /// What a server waits for longest is told at once when it cannot be a request: a TLS hello on a clear port.
    fn look_ahead(start: &[u8]) -> Result<(), Refused> {
        match start.first() {
            Some(b'\r') | None => Ok(()),
            Some(first) if first.is_ascii_alphabetic() => Ok(()),
            Some(_) => Err(Refused::malformed("the start line does not begin with a method")),
        }
    }

    fn start_line(&mut self, bytes: &[u8], span: Span) -> Result<(), Refused> {
        let line = span.of(bytes);
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refused::malformed("the start line is not a method, a request target and a version"));
        };
        self.method = read_method(method)?;
        let (path, query) = split_query(target);
        if target.is_empty() || !is_target(path) || !is_query(query) {
            return Err(Refused::malformed("the request target is empty or contains an invalid byte"));
        }
        self.version = read_version(version)?;
        if method == b"PRI" {
            // It begins the HTTP/2 preface (RFC 9113, 3.4): a child would take the connection for one of control.
            return Err(Refused::malformed("PRI is not a method of HTTP/1"));
        }
        let start = span.start();
        self.method_text = Span::new(start, start + method.len());
        self.target = Span::new(start + method.len() + 1, start + method.len() + 1 + target.len());
        Ok(())
    }

    fn finish(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.framing = framing(bytes, &mut self.lines.fields, true)?;
        if self.framing.chunked && self.version == Version::Http10 {
            return Err(Refused::malformed("HTTP/1.0 has no Transfer-Encoding"));
        }
        let mut hosts = 0;
        for field in &self.lines.fields {
            match field.name {
                Name::Host => {
                    hosts += 1;
                    self.host = Some(field.value);
                }
                Name::Expect if self.version == Version::Http11 => {
                    if !field.value.of(bytes).eq_ignore_ascii_case(b"100-continue") {
                        return Err(Refused::new(Kind::Expectation, "an expectation other than 100-continue"));
                    }
                    self.expects_continue = true;
                }
                _ => {}
            }
        }
        // RFC 9112, 3.2 asks for it of HTTP/1.1. Health checks of other balancers come without.
        if hosts > 1 || (hosts == 0 && self.version == Version::Http11) {
            return Err(Refused::malformed(if hosts == 0 { "Host is missing" } else { "there is more than one Host" }));
        }
        self.expects_continue &= !matches!(self.length(), Length::None | Length::Known(0));
        Ok(())
    }

    /// How long the body is.
    #[must_use]
    pub fn length(&self) -> Length {
        match (self.framing.chunked, self.framing.length) {
            (true, _) => Length::Chunked,
            (false, Some(length)) => Length::Known(length),
            (false, None) => Length::None,
        }
    }

    /// Whether the client wants to go on using the connection.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        !self.framing.close && (self.version == Version::Http11 || self.framing.keep_alive)
    }

    /// Whether `Connection: upgrade` is there.
    #[must_use]
    pub fn wants_upgrade(&self) -> bool {
        self.framing.upgrade && self.version == Version::Http11
    }

    /// Whether `Connection` names a field that ends elsewhere than at the next hop: `Host`, credentials, who the client is.
    #[must_use]
    pub fn strips(&self) -> bool {
        self.framing.strips
    }

    /// The only value of a field; `None` when it is missing or comes several times.
    #[must_use]
    pub fn single<'a>(&self, bytes: &'a [u8], name: Name) -> Option<&'a [u8]> {
        let mut found = self.lines.fields.iter().filter(|field| field.name == name);
        found.next().filter(|_| found.next().is_none()).map(|field| field.value.of(bytes))
    }

    /// The parts of the target, checked against the method.
    ///
    /// # Errors
    /// [`Refused`]: a form that the method does not take, userinfo, another scheme.
    pub fn split_target<'a>(&self, bytes: &'a [u8]) -> Result<Target<'a>, Refused> {
        let target = Target::split(self.target.of(bytes))?;
        if target.form == Form::Asterisk && self.method != Method::Options {
            return Err(Refused::malformed("the request target * is only valid for OPTIONS"));
        }
        Ok(target)
    }
}

fn read_method(method: &[u8]) -> Result<Method, Refused> {
    // Capitals: a method is case-sensitive, and `get` would be GET to the next parser.
    let fits = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(byte);
    if method.len() > METHOD_BYTES_MAX
        || !method.iter().all(fits)
        || !method.first().is_some_and(u8::is_ascii_uppercase)
    {
        return Err(Refused::malformed("the method is not a token of at most 32 capital letters"));
    }
    Ok(match method {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"OPTIONS" => Method::Options,
        b"TRACE" => Method::Trace,
        b"CONNECT" => return Err(Refused::new(Kind::Connect, "CONNECT is not served here")),
        _ => Method::Other,
    })
}

fn read_version(version: &[u8]) -> Result<Version, Refused> {
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(Refused::new(Kind::Version, "a protocol version other than HTTP/1.0 and HTTP/1.1"))
        }
        _ => Err(Refused::malformed("the version is not HTTP/1.1")),
    }
}
