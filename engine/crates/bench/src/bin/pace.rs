//! `pace ADDRESS HOST ROUTES CONNECTIONS RATE SECONDS`: requests at a constant rate, whatever the answers do.
//!
//! A request's time runs from when it was due, not from when a connection was free for it: an answer that is late makes
//! the following ones late, and hides none of them ("coordinated omission"). HTTP/1.1, kept alive, one request on a
//! connection at a time, answers with a Content-Length and status 200 only. Prints `answered, p50, p99` in microseconds;
//! what was due in the first half second counts for nothing.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::TcpStream,
    process::ExitCode,
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use sdlb_bench::{Poll, connect, run};

const CLOCK: u64 = u64::MAX;
const WARM_UP: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(5);
const USAGE: &str = "usage: pace ADDRESS HOST ROUTES CONNECTIONS RATE SECONDS";

fn main() -> ExitCode {
    run("pace", |words| {
        let [address, host, numbers @ ..] = words else { return Err(io::Error::other(USAGE)) };
        let numbers: Vec<u64> = numbers.iter().filter_map(|word| word.parse().ok()).filter(|&n| n > 0).collect();
        let [routes, connections, rate, seconds] = numbers[..] else { return Err(io::Error::other(USAGE)) };
        let mut took = Pace::new(address, host, routes, connections)?.run(rate, seconds)?;
        took.sort_unstable();
        let at = |share: f64| took[((took.len() as f64 * share) as usize).min(took.len() - 1)] as f64 / 1e3;
        println!("{}, {:.1}, {:.1}", took.len(), at(0.5), at(0.99));
        Ok(())
    })
}

/// One connection: since when its request was due, and what has come of the answer.
struct Asked {
    stream: TcpStream,
    due: Option<Instant>,
    answer: Vec<u8>,
}

struct Pace {
    poll: Poll,
    connections: Vec<Asked>,
    free: VecDeque<usize>,
    requests: Vec<Vec<u8>>,
}

impl Pace {
    fn new(address: &str, host: &str, routes: u64, connections: u64) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut made = Vec::new();
        for number in 0..connections {
            let stream = connect(address)?;
            poll.add(&stream, number)?;
            made.push(Asked { stream, due: None, answer: Vec::new() });
        }
        // 7919 is a prime: the routes come in no order.
        let request =
            |n: u64| format!("GET /service-{}/x HTTP/1.1\r\nHost: {host}\r\n\r\n", n * 7919 % routes).into_bytes();
        let requests = (0..1000).map(request).collect();
        Ok(Self { poll, free: (0..made.len()).collect(), connections: made, requests })
    }

    /// Nanoseconds from due to answered, of each request after the warm-up.
    fn run(mut self, rate: u64, seconds: u64) -> io::Result<Vec<u64>> {
        let every = Duration::from_nanos(1_000_000_000 / rate);
        let all = rate * seconds;
        let clock = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        let step = Timespec { tv_sec: every.as_secs() as i64, tv_nsec: i64::from(every.subsec_nanos()) };
        timerfd_settime(&clock, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: step, it_value: step })?;
        self.poll.add(&clock, CLOCK)?;
        let began = Instant::now();
        let (mut sent, mut answered) = (0, 0);
        let mut took = Vec::with_capacity(all as usize);
        let mut ready = Vec::new();
        while answered < all {
            self.poll.wait(&mut ready)?;
            for &number in &ready {
                if number == CLOCK {
                    let _ = rustix::io::read(&clock, &mut [0; 8]); // how often it rang; what is due is known by the time
                } else if let Some(due) = self.read(number as usize)? {
                    answered += 1;
                    if due > began + WARM_UP {
                        took.push(due.elapsed().as_nanos() as u64);
                    }
                }
            }
            let now = Instant::now();
            while sent < all && began + every * (sent as u32 + 1) <= now {
                let Some(free) = self.free.pop_front() else { break };
                sent += 1;
                self.send(free, sent, began + every * sent as u32)?;
            }
            if now > began + Duration::from_secs(seconds) + PATIENCE {
                return Err(io::Error::other(format!(
                    "{} of {all} requests were not answered in time",
                    all - answered
                )));
            }
        }
        if took.is_empty() { Err(io::Error::other("too short: nothing was due after the warm-up")) } else { Ok(took) }
    }

    fn send(&mut self, number: usize, turn: u64, due: Instant) -> io::Result<()> {
        let request = &self.requests[turn as usize % self.requests.len()];
        let asked = &mut self.connections[number];
        asked.due = Some(due);
        asked.stream.write_all(request)
    }

    /// When the request was due, once its answer is complete.
    fn read(&mut self, number: usize) -> io::Result<Option<Instant>> {
        let asked = &mut self.connections[number];
        let mut part = [0; 4096];
        match asked.stream.read(&mut part) {
            Ok(0) => return Err(io::Error::other("a connection was closed")),
            Ok(size) => asked.answer.extend_from_slice(&part[..size]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        if !complete(&asked.answer)? {
            return Ok(None);
        }
        asked.answer.clear();
        self.free.push_back(number);
        Ok(asked.due.take())
    }
}

/// Whether head and body are there.
fn complete(answer: &[u8]) -> io::Result<bool> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    match length {
        Some(length) if head.starts_with("http/1.1 200 ") => Ok(answer.len() >= end + 4 + length),
        _ => Err(io::Error::other(format!("answered: {}", head.lines().next().unwrap_or_default()))),
    }
}
