//! What is passed on, what is dropped and what is ours.

use super::{
    wire::{Backend, ask, field, get},
    world::World,
};

#[test]
fn forwarding_fields_are_ours_and_private_ones_never_cross() {
    let backend = Backend::echo();
    let world = World::with(&[&backend.address]);
    let answer = ask(
        world.http,
        get(
            "/a",
            "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Proto: evil\r\nX-Forwarded-Port: 6666\r\n\
             X-Real-IP: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nsdlb-to: evil/1 x\r\nSDLB-Timeout: 1\r\nProxy: evil\r\n\
             X-Request-Id: evil\r\nConnection: x-hop, authorization, x-forwarded-for\r\nX-Hop: evil\r\nTE: evil\r\n\
             Keep-Alive: evil\r\nUpgrade: evil\r\nAuthorization: Basic x\r\nX-Kept:  as it is \r\nVia: 1.0 fred\r\n",
        ),
    );
    let seen = answer.body;
    assert!(!seen.contains("evil") && !seen.contains("6.6.6.6") && !seen.contains("6666"), "{seen}");
    for (name, value) in [
        ("host", "www.example"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "www.example"),
        ("forwarded", "for=127.0.0.1;host=www.example;proto=http"),
        ("authorization", "Basic x"),
        ("x-kept", "as it is"),
    ] {
        assert_eq!(field(&seen, name), Some(value), "{name} in {seen}");
    }
    assert!(seen.contains("Via: 1.0 fred\r\n") && seen.contains("\r\nvia: 1.1 edge-1-"), "{seen}");
    assert!(seen.find("fred") < seen.find("edge-1"), "{seen}");
    assert_eq!(field(&seen, "x-request-id").map(str::len), Some(32));
}

#[test]
fn what_is_matched_is_what_is_forwarded() {
    let backend = Backend::echo();
    let world = World::with(&[&backend.address]);
    for (raw, line) in [
        (
            "GET /a/../%62?x=/../y HTTP/1.1\r\nHost: WWW.Example.:80\r\n\r\n",
            "GET /b?x=/../y HTTP/1.1\r\nhost: www.example:80\r\n",
        ),
        ("GET http://www.example/c HTTP/1.1\r\nHost: www.example\r\n\r\n", "GET /c HTTP/1.1\r\nhost: www.example\r\n"),
        ("GET //b HTTP/1.1\r\nHost: www.example\r\n\r\n", "GET //b HTTP/1.1\r\n"),
        ("GET http://www.example?d HTTP/1.1\r\nHost: www.example\r\n\r\n", "GET /?d HTTP/1.1\r\n"),
    ] {
        let seen = ask(world.http, raw).body;
        assert!(seen.starts_with(line), "{raw} became {seen}");
    }
    for raw in [
        "GET http://other.example/ HTTP/1.1\r\nHost: www.example\r\n\r\n",
        "GET /a%2fb HTTP/1.1\r\nHost: www.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: www..example\r\n\r\n",
    ] {
        assert_eq!(ask(world.http, raw).status, 400, "{raw}");
    }
}

#[test]
fn answers_of_our_own_say_so() {
    let world = World::with(&[]);
    for (raw, status, kind) in [
        (get("/", ""), 503, "nothing-ready"),
        ("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n".to_owned(), 421, "wrong-host"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "malformed-request"),
        (get("/", &format!("Via: {}1.1 other\r\n", "1.1 other, ".repeat(16))), 508, "loop"),
        (get("/", &format!("Range: bytes={}0-1\r\n", "0-1,".repeat(100))), 416, "too-many-ranges"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405, "connect-not-served"),
    ] {
        let answer = ask(world.http, raw);
        assert_eq!(answer.status, status);
        assert!(answer.field("proxy-status").unwrap().starts_with("edge-1; error="), "{answer:?}");
        assert_eq!(answer.field("content-type"), Some("application/problem+json"));
        assert!(answer.body.contains(&format!("https://sdlb.dev/problems/{kind}\"")), "{answer:?}");
        assert!(answer.body.contains(&format!("\"status\":{status}")) && answer.field("date").is_some());
    }
    let answer = ask(world.http, get("/", ""));
    assert_eq!(answer.field("retry-after"), Some("1"));
    let page = ask(world.http, get("/", "Accept: text/html,*/*\r\n"));
    assert!(page.field("content-type").unwrap().starts_with("text/html") && page.body.contains("<h1>503"));
}

#[test]
fn what_has_passed_this_node_before_is_a_loop_and_what_has_passed_its_host_is_not() {
    let backend = Backend::echo();
    let world = World::with(&[&backend.address]);
    let seen = ask(world.http, get("/", "Via: 1.1 edge-1\r\nVia: 1.1 edge-1 (Varnish)\r\n")).body;
    let own = seen.split("\r\n").find_map(|line| line.strip_prefix("via: ")).expect("ours");
    assert!(own.starts_with("1.1 edge-1-"), "{seen}");
    let answer = ask(world.http, get("/", &format!("Via: 1.0 fred, {own}, 1.1 other\r\n")));
    assert_eq!(answer.status, 508);
    assert!(answer.body.contains("https://sdlb.dev/problems/loop\""), "{answer:?}");
}

#[test]
fn a_path_that_nobody_claims_is_404_and_a_host_421() {
    let backend = Backend::echo();
    let mut world = World::new();
    let route = super::support::route("www.example/only", "web", &["1.0.0"]);
    world.put(vec![super::support::instance("i:0", &backend.address)], Some(route));
    assert_eq!(ask(world.http, get("/other", "")).status, 404);
    assert_eq!(ask(world.http, get("/only/below", "")).status, 404);
    assert_eq!(ask(world.http, "GET /only HTTP/1.1\r\nHost: www.example.evil\r\n\r\n").status, 421);
}

#[test]
fn private_fields_of_an_answer_do_not_reach_the_client() {
    let backend = Backend::fixed(
        "HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nsdlb-not-here: 1\r\nKeep-Alive: x\r\nServer: a\r\nContent-Length: 2\r\n\r\nok",
    );
    let world = World::with(&[&backend.address]);
    let answer = ask(world.http, get("/", ""));
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    for name in ["x-hop", "sdlb-not-here", "keep-alive", "connection"] {
        assert_eq!(answer.field(name), None, "{answer:?}");
    }
    assert_eq!(answer.field("server"), Some("a"));
    assert!(answer.field("date").is_some(), "RFC 9110, 6.6.1");
}
