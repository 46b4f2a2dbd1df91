//! Whether traffic feels a change of the table: request latencies on a running engine with 10,000 services, first in
//! peace, then under a stream of deltas. `cargo bench -p sdlb-engine --bench delta`; prints, checks nothing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a measurement")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sdlb_engine::proto;
use support::{Engine, entry, instance, member, member_key, route};

const SERVICES: usize = 10_000;
const CLIENTS: usize = 4;
const ROUND: Duration = Duration::from_secs(5);
/// 50,000 changes a minute are about 833 a second.
const BETWEEN_DELTAS: Duration = Duration::from_micros(1_200);

fn main() {
    let backend = backend();
    let engine = Engine::start();
    let (mut control, _) = engine.attach();
    let http = control.listen(vec![entry("http", "127.0.0.1:0")]).unwrap()[0].1;
    memory(&engine, "empty");
    let pattern = |index: usize| format!("example.com/service-{index}*");
    let key = |index: usize, target: &str| member_key(&format!("service-{index}"), "1.0.1", &pattern(index), target);
    let started = Instant::now();
    control
        .apply(proto::Delta {
            replace: true,
            put_targets: vec![instance("i:1", backend), instance("i:2", backend)],
            put_members: (0..SERVICES).map(|index| member(key(index, "i:1"))).collect(),
            put_routes: (0..SERVICES)
                .map(|index| route(&pattern(index), &format!("service-{index}"), &["1.0.1"]))
                .collect(),
            ..Default::default()
        })
        .unwrap();
    println!("{SERVICES} services applied in {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
    memory(&engine, "with all services");

    requests("in peace", http, || thread::sleep(ROUND));
    let mut applied = Vec::new();
    requests("under deltas", http, || {
        let end = Instant::now() + ROUND;
        for index in (0..SERVICES).cycle() {
            if Instant::now() > end {
                break;
            }
            for change in [
                proto::Delta { put_members: vec![member(key(index, "i:2"))], ..Default::default() },
                proto::Delta { delete_members: vec![key(index, "i:2")], ..Default::default() },
            ] {
                let sent = Instant::now();
                control.apply(change).unwrap();
                applied.push(sent.elapsed());
                thread::sleep(BETWEEN_DELTAS);
            }
        }
    });
    println!("{} deltas, from sent to applied by all workers: {}", applied.len(), percentiles(&mut applied));
    memory(&engine, "at the end");
}

/// Runs clients while `meanwhile` runs.
fn requests(name: &str, http: SocketAddr, meanwhile: impl FnOnce()) {
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let stop = stop.clone();
            thread::spawn(move || {
                let mut stream = BufReader::new(TcpStream::connect(http).unwrap());
                stream.get_ref().set_nodelay(true).unwrap();
                let mut times = Vec::new();
                let mut index = client * 7919;
                while !stop.load(Ordering::Relaxed) {
                    index = (index + 31) % SERVICES;
                    let sent = Instant::now();
                    let request = format!("GET /service-{index}/page HTTP/1.1\r\nHost: example.com\r\n\r\n");
                    stream.get_mut().write_all(request.as_bytes()).unwrap();
                    answer(&mut stream);
                    times.push(sent.elapsed());
                    thread::sleep(Duration::from_millis(1));
                }
                times
            })
        })
        .collect();
    meanwhile();
    stop.store(true, Ordering::Relaxed);
    let mut times: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    println!("{} requests {name}: {}", times.len(), percentiles(&mut times));
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("median {:.3}, 99 % {:.3}, 99.9 % {:.3}, longest {:.3} ms", at(0.5), at(0.99), at(0.999), at(1.0))
}

fn memory(engine: &Engine, when: &str) {
    let status = fs::read_to_string(format!("/proc/{}/status", engine.process.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    println!("engine memory, {when}: {}", resident.trim());
}

fn answer(stream: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    let mut length = 0;
    while line.trim_end() != "" {
        line.clear();
        stream.read_line(&mut line).unwrap();
        if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            length = value.trim().parse().unwrap();
        }
    }
    stream.read_exact(&mut vec![0; length]).unwrap();
}

/// Answers 512 bytes to every request.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                stream.get_ref().set_nodelay(true).unwrap();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 512\r\n\r\n{}", "x".repeat(512));
                let mut line = String::new();
                while stream.read_line(&mut line).is_ok_and(|length| length > 0) {
                    if line == "\r\n" && stream.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    address
}
