//! A plain HTTP upstream and client, for tests.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use super::PATIENCE;

/// An upstream that answers `hello` to each request once it is let go on.
pub struct Backend {
    pub address: SocketAddr,
    arrived: mpsc::Receiver<()>,
    answer: mpsc::Sender<()>,
}

impl Backend {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell_arrived, arrived) = mpsc::channel();
        let (answer, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (tell_arrived, wait) = (tell_arrived.clone(), wait.clone());
                thread::spawn(move || serve(stream.unwrap(), &tell_arrived, &wait));
            }
        });
        Self { address, arrived, answer }
    }

    pub fn arrived(&self) {
        self.arrived.recv_timeout(PATIENCE).expect("the request reaches the upstream");
    }

    pub fn arrived_within(&self, patience: Duration) -> bool {
        self.arrived.recv_timeout(patience).is_ok()
    }

    pub fn has_arrived(&self) -> bool {
        self.arrived.try_recv().is_ok()
    }

    pub fn answer(&self) {
        self.answer.send(()).unwrap();
    }
}

fn serve(stream: TcpStream, arrived: &mpsc::Sender<()>, go_on: &Mutex<mpsc::Receiver<()>>) {
    let mut reader = BufReader::new(stream);
    while read_head(&mut reader).is_some() {
        let _ = arrived.send(());
        if go_on.lock().unwrap().recv().is_err() {
            return;
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        if reader.get_mut().write_all(answer).is_err() {
            return;
        }
    }
}

/// Lines up to the empty one. `None`: the connection has ended.
pub fn read_head(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Some(lines);
        }
        lines.push(line);
    }
}

pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn send(address: SocketAddr, extra: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self(BufReader::new(stream));
        client.again(extra);
        client
    }

    pub fn again(&mut self, extra: &str) {
        // One that is turned away may be closed before this is through.
        let _ = write!(self.0.get_mut(), "GET /some/page HTTP/1.1\r\nHost: example.com\r\n{extra}\r\n");
    }

    /// Status line and fields, and the body.
    pub fn answer(&mut self) -> (Vec<String>, String) {
        let head = read_head(&mut self.0).expect("an answer");
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    pub fn ended(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 1]), Ok(0) | Err(_))
    }
}
