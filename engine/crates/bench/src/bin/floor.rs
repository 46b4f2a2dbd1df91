//! `floor LISTEN BACKEND`: passes bytes on without looking at them; what no proxy on sockets and epoll can do for less.
//! Prints where it listens.
//!
//! Each connection gets one of its own to the backend. Two reads, two writes and its part of the waiting are all that a
//! request costs. What one side does not take at once ends the pair: with the small requests and answers of the bench
//! that does not happen.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    process::ExitCode,
};

use sdlb_bench::{Poll, connect, prepare, run};

const BUFFER_BYTES: usize = 16 << 10;
const LISTENER: u64 = u64::MAX;

fn main() -> ExitCode {
    run("floor", |words| match words {
        [listen, backend] => forward(listen, backend),
        _ => Err(io::Error::other("usage: floor LISTEN BACKEND")),
    })
}

/// Sides are numbered: those of pair n are 2n (client) and 2n + 1 (backend). A pair that ended leaves its place empty.
fn forward(listen: &str, backend: &str) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    println!("{}", listener.local_addr()?);
    let mut poll = Poll::new()?;
    poll.add(&listener, LISTENER)?;
    let mut sides: Vec<Option<TcpStream>> = Vec::new();
    let mut ready = Vec::new();
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        poll.wait(&mut ready)?;
        for &number in &ready {
            if number == LISTENER {
                for side in [prepare(listener.accept()?.0)?, connect(backend)?] {
                    poll.add(&side, sides.len() as u64)?;
                    sides.push(Some(side));
                }
                continue;
            }
            let from = number as usize;
            if !pass(&sides, from, &mut buffer) {
                sides[from] = None;
                sides[from ^ 1] = None;
            }
        }
    }
}

/// False: the pair has ended.
fn pass(sides: &[Option<TcpStream>], from: usize, buffer: &mut [u8]) -> bool {
    let (Some(mut here), Some(mut there)) = (sides[from].as_ref(), sides[from ^ 1].as_ref()) else {
        return true; // it ended earlier in this turn
    };
    match here.read(buffer) {
        Ok(0) => false,
        Ok(size) => there.write(&buffer[..size]).is_ok_and(|written| written == size),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
