//! The HTTP/1 rows of the list of attacks, on the codec alone: what is refused and how, and what must still pass.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use sdlb_http1::{Body, Kind, Length, Limits, Name, Piece, Refused, Request, Response};

const LIMITS: Limits = Limits { head_bytes: 65_536, fields: 100 };

fn request(raw: &[u8]) -> Result<Request, Refused> {
    let mut request = Request::default();
    let length = request.advance(raw, &LIMITS)?;
    assert!(length.is_some(), "not complete: {}", raw.escape_ascii());
    Ok(request)
}

fn status(raw: &[u8]) -> u16 {
    match request(raw).and_then(|request| request.split_target(raw).map(drop)) {
        Ok(()) => 200,
        Err(refused) => refused.status(),
    }
}

fn get(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes()
}

fn first(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a\r\n\r\n").into_bytes()
}

#[test]
fn lengths_that_could_be_read_differently() {
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: x",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 5 0",
        "Content-Length: 0x5",
        "Content-Length: ",
        "Content-Length: \"5\"",
        "Content-Length: 9223372036854775808",
        "Content-Length: 00000000000000000005",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, identity",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: Chunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: x chunked",
        "Transfer-Encoding: ",
        "Transfer-Encoding: chunked\x0b",
        "Transfer-Encoding: \x0cchunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding : chunked",
    ] {
        assert_eq!(status(&get(lines)), 400, "{lines:?}");
    }
    assert_eq!(status(&get("Transfer-Encoding: gzip")), 501);
    assert_eq!(status(&get("Transfer-Encoding: gzip, chunked")), 501);
    assert_eq!(status(b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    let lengths = [
        ("Content-Length: 005", Length::Known(5)),
        ("Content-Length: 9223372036854775807", Length::Known(i64::MAX as u64)),
        ("cOnTeNt-LeNgTh:0", Length::Known(0)),
        ("Transfer-Encoding: chunked", Length::Chunked),
        ("X: y", Length::None),
    ];
    for (lines, length) in lengths {
        assert_eq!(request(&get(lines)).unwrap().length(), length, "{lines}");
    }
}

#[test]
fn lines_and_fields() {
    for raw in [
        &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b" GET / HTTP/1.1\r\n",
    ] {
        assert_eq!(status(raw), 400, "{}", raw.escape_ascii());
    }
    for lines in [
        "X: a\rb",
        "X: a\0b",
        "X: a\x1bb",
        "X: a\x7fb",
        "X: a\x0bb",
        "X: a\r\n b",
        "X: a\r\n\tb",
        "X : a",
        "X\t: a",
        ": a",
        "X(y): a",
        "X y: a",
        "\"X\": a",
        "nonsense",
        "GET /x HTTP/1.1",
        "Xé: a",
        "X\0: a",
    ] {
        assert_eq!(status(&get(lines)), 400, "{lines:?}");
    }
    for lines in ["X:", "X:   a \t", "X: a\tb", "X: é", "!#$%&'*+-.^_`|~09azAZ: x"] {
        assert_eq!(status(&get(lines)), 200, "{lines:?}");
    }
    assert_eq!(status(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
}

#[test]
fn start_lines() {
    for line in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / x HTTP/1.1",
        "GET HTTP/1.1",
        "GET  HTTP/1.1",
        "/ HTTP/1.1",
        "G(T / HTTP/1.1",
        "get / HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1",
        "GET / HTTP/1.10",
        "GET / HTTP/1,1",
        "GET / ICAP/1.1",
        "GET /é HTTP/1.1",
        "GET /\"x HTTP/1.1",
        "GET /",
        "GET /#x HTTP/1.1",
        "GET /\\x HTTP/1.1",
        "GET http://me@a/ HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET * HTTP/1.1",
        "GET x/y HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /\x7f HTTP/1.1",
    ] {
        assert_eq!(status(&first(line)), 400, "{line:?}");
    }
    // As browsers and curl send them. The path stays strict.
    for query in ["\\", "`", "\"", "<>", "{|}^", "[]", "'", "caf\u{e9}", "?", "%zz", "//.."] {
        assert_eq!(status(&first(&format!("GET /x?q={query} HTTP/1.1"))), 200, "{query}");
    }
    for query in ["#", "\0", "\x7f", "\t", "\x0b", " "] {
        assert_eq!(status(&first(&format!("GET /x?q={query} HTTP/1.1"))), 400, "{query:?}");
    }
    for path in ["\\", "`", "\"", "<", ">", "\u{e9}"] {
        assert_eq!(status(&first(&format!("GET /{path}?q HTTP/1.1"))), 400, "{path}");
    }
    assert_eq!(status(&first(&format!("{} / HTTP/1.1", "X".repeat(33)))), 400);
    for line in ["GET / HTTP/0.9", "GET / HTTP/1.2", "GET / HTTP/2.0", "PRI * HTTP/2.0"] {
        assert_eq!(status(&first(line)), 505, "{line:?}");
    }
    assert_eq!(status(&first("CONNECT a:80 HTTP/1.1")), 405);
    for line in ["PRI /x HTTP/1.1", "PRI * HTTP/1.1", "PRI / HTTP/1.0"] {
        assert_eq!(status(&first(line)), 400, "{line:?}");
    }
    assert_eq!(status(&first("PRIX / HTTP/1.1")), 200);
    for line in [
        "BREW / HTTP/1.1",
        "M-SEARCH / HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET http://a/ HTTP/1.1",
        "GET http://a?x HTTP/1.0",
    ] {
        assert_eq!(status(&first(line)), 200, "{line:?}");
    }
}

#[test]
fn one_host() {
    assert_eq!(status(b"GET / HTTP/1.1\r\nX: y\r\n\r\n"), 400);
    assert_eq!(status(&get("Host: a")), 400);
    assert_eq!(status(b"GET / HTTP/1.0\r\n\r\n"), 200);
    assert_eq!(status(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
}

#[test]
fn limits_are_kept_at_every_size() {
    let limits = Limits { head_bytes: 100, fields: 3 };
    let refused = |raw: &[u8]| Request::default().advance(raw, &limits).unwrap_err().kind;
    assert_eq!(refused(format!("GET /{}", "x".repeat(100)).as_bytes()), Kind::TargetBytes);
    assert_eq!(refused(format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(100)).as_bytes()), Kind::HeadBytes);
    assert_eq!(refused(format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100)).as_bytes()), Kind::HeadBytes);
    assert_eq!(refused(b"GET / HTTP/1.1\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n"), Kind::Fields);
    let most = b"GET / HTTP/1.1\r\nHost: a\r\nB: 1\r\nC: 1\r\n\r\n";
    assert_eq!(Request::default().advance(most, &limits), Ok(Some(most.len())));
}

#[test]
fn connection_names_what_ends_here_but_not_what_must_not_be_stripped() {
    let raw = get("Connection: close, X-Mine, authorization\r\nX-Mine: 1\r\nAuthorization: 2\r\nx-mine: 3\r\nOther: 4");
    let request = request(&raw).unwrap();
    assert!(!request.keeps_alive());
    let hops: Vec<_> = request.fields().iter().filter(|field| field.hop).map(|field| field.value.of(&raw)).collect();
    assert_eq!(hops, [b"1", b"3"]);
    assert!(request.strips());
    for plain in ["close, X-Mine", "TE, keep-alive", "upgrade, HTTP2-Settings", "trailer"] {
        assert!(!self::request(&get(&format!("Connection: {plain}"))).unwrap().strips(), "{plain}");
    }
    for ours in ["Via", "x-forwarded-for", "close, host", "sdlb-to"] {
        assert!(self::request(&get(&format!("Connection: {ours}"))).unwrap().strips(), "{ours}");
    }
    assert_eq!(status(&get(&format!("Connection: {}", "a,".repeat(33)))), 400);
}

#[test]
fn keep_alive_by_version() {
    let keeps = |raw: &[u8]| request(raw).unwrap().keeps_alive();
    assert!(keeps(&get("X: y")) && !keeps(&get("Connection: foo , CLOSE")));
    assert!(!keeps(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"));
    assert!(keeps(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n"));
}

#[test]
fn expectations() {
    assert_eq!(status(&get("Expect: nonsense\r\nContent-Length: 5")), 417);
    assert!(request(&get("Expect: 100-Continue\r\nContent-Length: 5")).unwrap().expects_continue);
    assert!(!request(&get("Expect: 100-continue")).unwrap().expects_continue, "nothing to wait with");
    assert!(
        !request(b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            .unwrap()
            .expects_continue
    );
}

// ------------------------------------------------------------------ bodies

/// Decodes a body that arrives in pieces of `size`: content, and what is left behind it.
fn decode(raw: &[u8], length: Length, size: usize) -> Result<(Vec<u8>, Option<usize>), Refused> {
    let mut body = Body::new(length, Limits { head_bytes: 200, fields: 5 });
    let (mut content, mut at, mut given) = (Vec::new(), 0, 0);
    loop {
        match body.next(&raw[at..given])? {
            Piece::Data(piece) => {
                content.extend_from_slice(&raw[at + piece.start..at + piece.end]);
                at += piece.end;
            }
            Piece::End(count) => return Ok((content, Some(at + count))),
            Piece::More if given == raw.len() => return Ok((content, None)),
            Piece::More => {
                at = given;
                given = (given + size).min(raw.len());
            }
        }
    }
}

#[test]
fn chunks_that_could_be_read_differently() {
    for raw in [
        &b"\r\nhello\r\n0\r\n\r\n"[..],
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"00000000000000005\r\nhello\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        b"8000000000000000\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"\t5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello\r\n0\n\n",
        b"5;\r\nhello\r\n0\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"5;a=\0\r\nhello\r\n0\r\n\r\n",
        b"5;a=\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\"c\r\nhello\r\n0\r\n\r\n",
        b"0\r\nX: a\nY: b\r\n\r\n",
        b"0\r\nX: a\rY: b\r\n\r\n",
        b"0\r\nnonsense\r\n\r\n",
        b"0\r\nX: a\r\n b\r\n\r\n",
        b"0\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\nE: 1\r\nF: 1\r\n\r\n",
    ] {
        for size in [1, 2, 3, 1000] {
            let decoded = decode(raw, Length::Chunked, size);
            assert!(decoded.is_err(), "{} in {size}: {decoded:?}", raw.escape_ascii());
        }
    }
    let long = [b"5;".to_vec(), vec![b'x'; 5000], b"\r\nhello\r\n0\r\n\r\n".to_vec()].concat();
    assert!(decode(&long, Length::Chunked, 1000).is_err());
    let many = b"1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\nh\r\n".repeat(200);
    assert!(decode(&many, Length::Chunked, 1000).is_err());
    let trailer = [b"0\r\nX: ".to_vec(), vec![b'x'; 300]].concat();
    assert!(decode(&trailer, Length::Chunked, 7).is_err());
}

#[test]
fn bodies_end_where_they_say_however_they_are_cut() {
    for (raw, length, content, end) in [
        (&b"5\r\nhello\r\n0\r\n\r\nGET"[..], Length::Chunked, &b"hello"[..], Some(15)),
        (b"A\r\nhellohello\r\n00\r\n\r\n", Length::Chunked, b"hellohello", Some(21)),
        (b"0000000000000005\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", Length::Chunked, b"hello!", Some(36)),
        (b"5;a;b=c;d=\"e;\\\"f\"\r\nhello\r\n0;x\r\nX: y\r\n\r\nz", Length::Chunked, b"hello", Some(39)),
        (b"helloGET", Length::Known(5), b"hello", Some(5)),
        (b"hel", Length::Known(5), b"hel", None),
        (b"GET", Length::None, b"", Some(0)),
        (b"hello", Length::UntilClose, b"hello", None),
    ] {
        for size in 1..=raw.len() {
            let decoded = decode(raw, length, size);
            assert_eq!(decoded, Ok((content.to_vec(), end)), "{} in {size}", raw.escape_ascii());
        }
    }
}

#[test]
fn trailers_that_frame_route_or_authenticate_are_dropped() {
    let mut body = Body::new(Length::Chunked, LIMITS);
    let raw = b"0\r\nContent-Length: 9\r\nX-Sum: 1\r\nTransfer-Encoding: x\r\nHost: b\r\nAuthorization: c\r\n\
        Cookie: d\r\nX-Forwarded-For: e\r\nsdlb-to: f\r\nConnection: g\r\nTrailer: h\r\nSet-Cookie: i\r\nY:j\r\n\r\n";
    assert_eq!(body.next(raw), Ok(Piece::End(raw.len())));
    let mut out = Vec::new();
    body.write_trailers(&mut out);
    assert_eq!(out, b"X-Sum: 1\r\nY:j\r\n");
    assert!(body.trailers().iter().any(|field| field.name == Name::SdlbTo));
}

// ------------------------------------------------------------------ responses

fn response(raw: &[u8]) -> Result<Response, Refused> {
    let mut response = Response::default();
    let length = response.advance(raw, &LIMITS)?;
    assert!(length.is_some(), "not complete: {}", raw.escape_ascii());
    Ok(response)
}

#[test]
fn answers_that_cannot_be_trusted() {
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        "HTTP/1.1 200 O\rK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n",
        "HTTP/1.1 fine OK\r\n\r\n",
        "HTTP/1.1 042 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert!(response(raw.as_bytes()).is_err(), "{raw:?}");
    }
    for raw in ["HTTP/1.1 200 \r\n\r\n", "HTTP/1.1 200\r\n\r\n", "HTTP/1.0 999 Ünusual\r\n\r\n"] {
        assert!(response(raw.as_bytes()).is_ok(), "{raw:?}");
    }
}

#[test]
fn lengths_of_answers() {
    let length = |raw: &str, head| response(raw.as_bytes()).unwrap().length(head);
    assert_eq!(length("HTTP/1.1 200 OK\r\n\r\n", false), Length::UntilClose);
    assert_eq!(length("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false), Length::Known(5));
    assert_eq!(length("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", false), Length::Chunked);
    for raw in ["HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 304 N\r\nTransfer-Encoding: chunked\r\n\r\n"] {
        assert_eq!(length(raw, false), Length::None);
    }
    assert_eq!(length("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true), Length::None);
    let interim = response(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n").unwrap();
    assert!(interim.is_interim() && !response(b"HTTP/1.1 101 S\r\n\r\n").unwrap().is_interim());
}
