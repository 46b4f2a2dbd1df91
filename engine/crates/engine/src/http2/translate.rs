//! Heads and trailers between HTTP/2 and HTTP/1.1 (RFC 9113, 8.3; RFC 8441).
//!
//! What comes from HTTP/2 is written as it is, so that the HTTP/1.1 codec judges it: two hosts that differ become two `Host`
//! fields, which it refuses.

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request, uri};
use sdlb_http1::{self as http1, Body};

use super::head::{Head, name_of};

/// What a translated request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// HEAD: there is no body in the answer.
    pub head: bool,
    /// A WebSocket, and what the endpoint's `Sec-WebSocket-Accept` must be.
    pub websocket: Option<String>,
}

/// The target as it is, from a node above, where HTTP/2 takes fewer bytes.
const TARGET: &str = "sdlb-target";

/// Appends a request head. `ended`: no body follows. `random`: for the key of a WebSocket handshake. `from_node`: what only nodes say is
/// believed.
pub fn request(parts: &request::Parts, ended: bool, random: [u64; 2], from_node: bool, out: &mut Vec<u8>) -> Asked {
    let mut asked = Asked { head: parts.method == Method::HEAD, websocket: None };
    let protocol = parts.extensions.get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str);
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let path = parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str);
    let websocket = parts.method == Method::CONNECT && protocol == Some("websocket");
    let method = if websocket { "GET" } else { parts.method.as_str() };
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    // CONNECT has no path, and is refused for that.
    let path = path.or(authority).unwrap_or("*").as_bytes();
    let told = if from_node { parts.headers.get(TARGET) } else { None };
    out.extend_from_slice(told.map_or(path, HeaderValue::as_bytes));
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = authority {
        line("host", authority.as_bytes(), out);
    }
    let mut cookies = Vec::new();
    for (name, value) in &parts.headers {
        match *name {
            header::HOST if authority.is_some_and(|host| value.as_bytes().eq_ignore_ascii_case(host.as_bytes())) => {}
            // They may come in crumbs (RFC 9113, 8.2.3).
            header::COOKIE => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value.as_bytes());
            }
            header::SEC_WEBSOCKET_KEY if websocket => {}
            _ => line(name.as_str(), value.as_bytes(), out),
        }
    }
    if !cookies.is_empty() {
        line("cookie", &cookies, out);
    }
    if websocket {
        let key = BASE64.encode(&[random[0].to_be_bytes(), random[1].to_be_bytes()].concat());
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
        line("sec-websocket-key", key.as_bytes(), out);
        asked.websocket = Some(accept(key.as_bytes()));
    } else if !ended && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    asked
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455, 4.2.2).
pub fn accept(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    BASE64.encode(digest.as_ref())
}

/// Appends fields, each with its line end.
pub fn fields(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        line(name.as_str(), value.as_bytes(), out);
    }
}

fn line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// An answer, without what is hop by hop. `None`: no HTTP/2 answer can be made of it.
pub fn response(head: &Head) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_bytes(&head.words().1).ok()?;
    *response.headers_mut() = head.fields(|_, _| true)?;
    Some(response)
}

/// The trailers of a complete body, those that may be passed on; `None`: there are none.
pub fn trailers(body: &Body) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for (name, value) in body.passed_trailers() {
        fields.append(name_of(name)?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(fields).filter(|fields| !fields.is_empty())
}

/// A request for HTTP/2 in clear text. A WebSocket handshake becomes an extended CONNECT. `None`: no HTTP/2 request can be
/// made of it.
pub fn to_request(head: &Head) -> Option<Request<()>> {
    let websocket = head.value(b"upgrade").is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"));
    let (method, target) = head.words();
    let mut uri = uri::Parts::default();
    uri.scheme = Some(uri::Scheme::HTTP);
    uri.authority = Some(uri::Authority::from_maybe_shared(head.value(b"host")?).ok()?);
    uri.path_and_query = Some(path_and_query(&target)?);
    let mut request = Request::new(());
    *request.method_mut() = if websocket { Method::CONNECT } else { Method::from_bytes(method).ok()? };
    *request.uri_mut() = uri::Uri::from_parts(uri).ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = head.fields(|name, text| match name {
        http1::Name::Host => false,
        _ => !(websocket && text.eq_ignore_ascii_case(b"sec-websocket-key")),
    })?;
    let differs = request.uri().path_and_query().is_none_or(|same| same.as_str().as_bytes() != target);
    if differs && head.value(b"sdlb-to").is_some() {
        // Between nodes nothing changes on its way.
        request.headers_mut().insert(TARGET, HeaderValue::from_maybe_shared(target).ok()?);
    }
    if websocket {
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    }
    Some(request)
}

/// A target for HTTP/2. The crate `http` takes fewer bytes in a query than HTTP/1.1 endpoints do: those are encoded, as a browser does.
fn path_and_query(target: &Bytes) -> Option<uri::PathAndQuery> {
    if let Ok(same) = uri::PathAndQuery::from_maybe_shared(target.clone()) {
        return Some(same);
    }
    let query = memchr::memchr(b'?', target)?;
    let mut encoded = target[..query].to_vec();
    for byte in target[query..].iter() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>') {
            encoded.push(*byte);
        } else {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    uri::PathAndQuery::from_maybe_shared(Bytes::from(encoded)).ok()
}

/// Whether an answer with this status has no content, whatever its fields say (RFC 9110, 6.4.1).
pub fn is_bodyless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Appends an answer's head as HTTP/1.1. `ended`: no body follows; `bodyless`: it could have none (HEAD, 204, 304).
pub fn from_response(status: StatusCode, headers: &HeaderMap, ended: bool, bodyless: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    fields(headers, out);
    let told = headers.contains_key(header::CONTENT_LENGTH) || status.is_informational() || bodyless;
    match (told, ended) {
        (true, _) => {}
        (false, true) => out.extend_from_slice(b"content-length: 0\r\n"),
        (false, false) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(request: Request<()>, ended: bool) -> (String, Asked) {
        let (parts, ()) = request.into_parts();
        let mut out = Vec::new();
        let asked = super::request(&parts, ended, [0, 1], false, &mut out);
        (String::from_utf8(out).unwrap_or_default(), asked)
    }

    #[test]
    fn a_request_is_written_as_it_came() {
        let builder =
            Request::get("https://a.example/b?c").header("cookie", "d=1").header("x", "y").header("cookie", "e=2");
        let (text, asked) = translated(builder.body(()).unwrap_or_default(), true);
        assert_eq!(text, "GET /b?c HTTP/1.1\r\nhost: a.example\r\nx: y\r\ncookie: d=1; e=2\r\n\r\n");
        assert_eq!(asked, Asked::default());
        let builder = Request::post("https://a.example/").header("host", "b.example");
        let (text, _) = translated(builder.body(()).unwrap_or_default(), false);
        assert!(text.contains("host: a.example\r\nhost: b.example\r\ntransfer-encoding: chunked\r\n\r\n"), "{text}");
    }

    #[test]
    fn the_answer_to_a_websocket_key_is_that_of_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_connect_asks_for_is_a_websocket_or_nothing() {
        let mut request =
            Request::builder().method("CONNECT").uri("https://a.example/chat").body(()).unwrap_or_default();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (text, asked) = translated(request, false);
        assert!(
            text.starts_with("GET /chat HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n")
        );
        assert!(asked.websocket.is_some() && !text.contains("chunked"));
        let (text, asked) =
            translated(Request::builder().method("CONNECT").uri("a.example:443").body(()).unwrap_or_default(), false);
        assert!(text.starts_with("CONNECT a.example:443 HTTP/1.1\r\n") && asked.websocket.is_none());
    }
}
