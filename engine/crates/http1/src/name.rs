//! Field names that mean something to a proxy.

/// What a field is to us. Everything that is passed on as it is, wherever it stands, is [`Name::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the field of that name
pub enum Name {
    Accept,
    Authorization,
    Connection,
    /// `Content-Encoding`, `Content-Range`, `Content-Type` and what else begins so, without `Content-Length`.
    Content,
    ContentLength,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    /// `Cache-Control`, `If-...`, `Max-Forwards`, `Range`, `Age`, `Expires`, `Location`, `Retry-After`, `Vary`,
    /// `Warning`, `Pragma`, `WWW-Authenticate`: they control how the message is treated as a whole, so they do not belong
    /// into trailers (RFC 9110, 6.5.1), and nobody strips them by naming them in `Connection`.
    Control,
    /// `Proxy`, `Proxy-Connection`, `Proxy-Authorization` and what else begins so, without `Proxy-Status`: between a
    /// client and its own proxy.
    Proxy,
    ProxyStatus,
    Range,
    /// `sdlb-to` and what else is between the nodes.
    Sdlb,
    SdlbTo,
    SdlbTimeout,
    SdlbExpect,
    SdlbNotHere,
    SdlbAvoid,
    SdlbLength,
    SdlbPort,
    SetCookie,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
    /// `X-Forwarded-...`
    XForwarded,
    XRealIp,
    XRequestId,
    Other,
}

impl Name {
    /// Reads a field name in any case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        use Name::*;
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        let begins =
            |wanted: &str| name.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted.as_bytes()));
        // By first letter: most names are told apart by one comparison.
        match name.first().map(u8::to_ascii_lowercase) {
            Some(b'a') if is("accept") => Accept,
            Some(b'a') if is("authorization") => Authorization,
            Some(b'a') if is("age") => Control,
            Some(b'c') if is("connection") => Connection,
            Some(b'c') if is("cookie") => Cookie,
            Some(b'c') if is("cache-control") => Control,
            Some(b'c') if is("content-length") => ContentLength,
            Some(b'c') if begins("content-") => Content,
            Some(b'd') if is("date") => Date,
            Some(b'e') if is("expect") => Expect,
            Some(b'e') if is("expires") => Control,
            Some(b'f') if is("forwarded") => Forwarded,
            Some(b'h') if is("host") => Host,
            Some(b'h') if is("http2-settings") => Http2Settings,
            Some(b'i') if begins("if-") => Control,
            Some(b'k') if is("keep-alive") => KeepAlive,
            Some(b'l') if is("location") => Control,
            Some(b'm') if is("max-forwards") => Control,
            Some(b'p') if is("proxy-status") => ProxyStatus,
            Some(b'p') if is("proxy") || begins("proxy-") => Proxy,
            Some(b'p') if is("pragma") => Control,
            Some(b'r') if is("range") => Range,
            Some(b'r') if is("retry-after") => Control,
            Some(b's') if begins("sdlb-") => match &name[5..] {
                rest if rest.eq_ignore_ascii_case(b"to") => SdlbTo,
                rest if rest.eq_ignore_ascii_case(b"timeout") => SdlbTimeout,
                rest if rest.eq_ignore_ascii_case(b"expect") => SdlbExpect,
                rest if rest.eq_ignore_ascii_case(b"not-here") => SdlbNotHere,
                rest if rest.eq_ignore_ascii_case(b"avoid") => SdlbAvoid,
                rest if rest.eq_ignore_ascii_case(b"length") => SdlbLength,
                rest if rest.eq_ignore_ascii_case(b"port") => SdlbPort,
                _ => Sdlb,
            },
            Some(b's') if is("set-cookie") => SetCookie,
            Some(b't') if is("te") => Te,
            Some(b't') if is("trailer") => Trailer,
            Some(b't') if is("transfer-encoding") => TransferEncoding,
            Some(b'u') if is("upgrade") => Upgrade,
            Some(b'v') if is("via") => Via,
            Some(b'v') if is("vary") => Control,
            Some(b'w') if is("www-authenticate") || is("warning") => Control,
            Some(b'x') if begins("x-forwarded-") => XForwarded,
            Some(b'x') if is("x-real-ip") => XRealIp,
            Some(b'x') if is("x-request-id") => XRequestId,
            _ => Other,
        }
    }

    /// Whether servers that read every sign in a name alike (as CGI makes variables of them) take this one for another that
    /// means something here: `X_Forwarded_For`, `X.Forwarded.For`.
    #[must_use]
    pub fn is_alias(name: &[u8]) -> bool {
        // Nearly always there is no such sign. Without branches, so that it runs on many bytes at once.
        let is_sign =
            |byte: u8| ((byte | 0x20).wrapping_sub(b'a') > 25) & (byte.wrapping_sub(b'0') > 9) & (byte != b'-');
        if !name.iter().fold(false, |any, byte| any | is_sign(*byte)) {
            return false;
        }
        let read: Vec<u8> = name.iter().map(|byte| if byte.is_ascii_alphanumeric() { *byte } else { b'-' }).collect();
        Self::of(&read) != Name::Other
    }

    /// Whether it ends at the next hop, whatever `Connection` says.
    #[must_use]
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Name::Connection
                | Name::KeepAlive
                | Name::Proxy
                | Name::Te
                | Name::TransferEncoding
                | Name::Upgrade
                | Name::Http2Settings
        )
    }

    /// Whether it is one of the fields between nodes.
    #[must_use]
    pub fn is_private(self) -> bool {
        use Name::*;
        matches!(self, Sdlb | SdlbTo | SdlbTimeout | SdlbExpect | SdlbNotHere | SdlbAvoid | SdlbLength | SdlbPort)
    }

    /// Whether it may be passed on in trailers: nothing that frames, routes, authenticates or controls may.
    #[must_use]
    pub fn may_trail(self) -> bool {
        self == Name::Other
    }
}
