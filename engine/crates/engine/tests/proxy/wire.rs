//! Raw sockets on both sides of the engine: tests say and see the very bytes.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use super::support::PATIENCE;

/// Longer than anything takes that does come.
pub const QUIET: Duration = Duration::from_millis(400);

pub trait Stream: Read + Write + Send {
    fn end(&self);
    fn patience(&self, time: Duration);
}

impl Stream for TcpStream {
    fn end(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }

    fn patience(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
}

impl Stream for std::os::unix::net::UnixStream {
    fn end(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }

    fn patience(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
}

/// An endpoint: every connection is served by a script on a thread of its own.
#[derive(Clone)]
pub struct Backend {
    pub address: String,
    /// Heads and bodies as they came, of all connections.
    pub seen: Arc<Mutex<Vec<String>>>,
    pub connections: Arc<AtomicUsize>,
}

/// One connection to an endpoint.
pub struct Peer {
    pub stream: Box<dyn Stream>,
    seen: Arc<Mutex<Vec<String>>>,
    place: usize,
    left: Vec<u8>,
}

impl Peer {
    /// The next head.
    pub fn head(&mut self) -> Option<String> {
        let head = read_past(&mut *self.stream, &mut self.left, b"\r\n\r\n")?;
        // Other connections write there as well: remember where.
        let mut seen = self.seen.lock().unwrap();
        self.place = seen.len();
        seen.push(head.clone());
        Some(head)
    }

    /// The next request, with its body as it is on the wire.
    pub fn request(&mut self) -> Option<String> {
        let head = self.head()?;
        let body = if let Some(length) = field(&head, "content-length") {
            self.exactly(length.parse().unwrap())?
        } else if field(&head, "transfer-encoding").is_some() {
            self.chunks()?
        } else {
            String::new()
        };
        let request = head + &body;
        self.seen.lock().unwrap()[self.place].clone_from(&request);
        Some(request)
    }

    pub fn exactly(&mut self, length: usize) -> Option<String> {
        while self.left.len() < length {
            read_more(&mut *self.stream, &mut self.left)?;
        }
        Some(String::from_utf8_lossy(&self.left.drain(..length).collect::<Vec<_>>()).into_owned())
    }

    fn chunks(&mut self) -> Option<String> {
        let mut all = String::new();
        loop {
            let line = read_past(&mut *self.stream, &mut self.left, b"\r\n")?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            all.push_str(&line);
            if size == 0 {
                loop {
                    let line = read_past(&mut *self.stream, &mut self.left, b"\r\n")?;
                    all.push_str(&line);
                    if line == "\r\n" {
                        return Some(all);
                    }
                }
            }
            all.push_str(&self.exactly(size + 2)?);
        }
    }

    /// Reads no longer than this from here on.
    pub fn patience(&mut self, time: Duration) {
        self.stream.patience(time);
    }

    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }
}

impl Backend {
    /// Serves each connection with `script`.
    pub fn start(script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self::serve(address, move || listener.accept().map(|(stream, _)| Box::new(stream) as Box<dyn Stream>), script)
    }

    /// The same on a Unix socket.
    pub fn start_unix(path: &Path, script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let address = format!("unix:{}", path.display());
        Self::serve(address, move || listener.accept().map(|(stream, _)| Box::new(stream) as Box<dyn Stream>), script)
    }

    fn serve(
        address: String,
        accept: impl Fn() -> io::Result<Box<dyn Stream>> + Send + 'static,
        script: impl Fn(Peer) + Send + Sync + 'static,
    ) -> Self {
        let backend = Self { address, seen: Arc::default(), connections: Arc::default() };
        let (seen, connections, script) = (backend.seen.clone(), backend.connections.clone(), Arc::new(script));
        thread::spawn(move || {
            while let Ok(stream) = accept() {
                connections.fetch_add(1, SeqCst);
                let (script, peer) = (script.clone(), Peer { stream, seen: seen.clone(), place: 0, left: Vec::new() });
                thread::spawn(move || script(peer));
            }
        });
        backend
    }

    /// Answers every request with what it was sent.
    pub fn echo() -> Self {
        Self::start(echo)
    }

    /// Answers every request with `answer`.
    pub fn fixed(answer: &'static str) -> Self {
        Self::start(move |mut peer| {
            while peer.request().is_some() {
                peer.say(answer);
            }
        })
    }

    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

pub fn echo(mut peer: Peer) {
    while let Some(request) = peer.request() {
        peer.say(answer(&request));
    }
}

/// A plain 200.
pub fn answer(content: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}", content.len())
}

/// An address that refuses connections.
pub fn refused() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn read_more(stream: &mut dyn Stream, left: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; 65536];
    match stream.read(&mut piece) {
        Ok(count) if count > 0 => {
            left.extend_from_slice(&piece[..count]);
            Some(())
        }
        _ => None,
    }
}

fn read_past(stream: &mut dyn Stream, left: &mut Vec<u8>, end: &[u8]) -> Option<String> {
    loop {
        if let Some(at) = left.windows(end.len()).position(|window| window == end) {
            return Some(String::from_utf8_lossy(&left.drain(..at + end.len()).collect::<Vec<_>>()).into_owned());
        }
        read_more(stream, left)?;
    }
}

/// The value of a field of a head; panics when it comes twice.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let head = head.split("\r\n\r\n").next().unwrap();
    let mut values = head
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(held, _)| held.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim());
    let value = values.next();
    assert_eq!(values.next(), None, "{name} comes twice in {head}");
    value
}

/// A connection to the engine.
pub struct Client {
    pub stream: TcpStream,
    left: Vec<u8>,
}

/// An answer in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, left: Vec::new() }
    }

    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// The next head.
    pub fn head(&mut self) -> Option<String> {
        read_past(&mut self.stream, &mut self.left, b"\r\n\r\n")
    }

    /// The next answer (with a body by length, in chunks, or to the end); `None` when the connection has ended.
    pub fn answer(&mut self) -> Option<Answer> {
        let head = self.head()?;
        let status = head[9..12].parse().unwrap();
        let body = if status < 200 || status == 204 || status == 304 {
            String::new()
        } else if let Some(length) = field(&head, "content-length") {
            self.exactly(length.parse().unwrap())?
        } else if field(&head, "transfer-encoding").is_some() {
            self.chunks()?
        } else {
            self.rest()
        };
        Some(Answer { status, head, body })
    }

    pub fn exactly(&mut self, length: usize) -> Option<String> {
        while self.left.len() < length {
            read_more(&mut self.stream, &mut self.left)?;
        }
        Some(String::from_utf8_lossy(&self.left.drain(..length).collect::<Vec<_>>()).into_owned())
    }

    /// Content of chunks, and the trailers behind it.
    fn chunks(&mut self) -> Option<String> {
        let mut all = String::new();
        loop {
            let line = read_past(&mut self.stream, &mut self.left, b"\r\n")?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            if size == 0 {
                loop {
                    let line = read_past(&mut self.stream, &mut self.left, b"\r\n")?;
                    if line == "\r\n" {
                        return Some(all);
                    }
                    all.push_str(&line);
                }
            }
            all.push_str(&self.exactly(size)?);
            assert_eq!(self.exactly(2)?, "\r\n");
        }
    }

    /// Everything up to the end of the connection, which must come.
    pub fn rest(&mut self) -> String {
        while read_more(&mut self.stream, &mut self.left).is_some() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.left)).into_owned()
    }

    /// Whether the engine has closed, without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.left.is_empty() && matches!(self.stream.read(&mut [0; 1]), Ok(0) | Err(_))
    }
}

/// One request on a connection of its own.
pub fn ask(address: SocketAddr, raw: impl AsRef<[u8]>) -> Answer {
    let mut client = Client::connect(address);
    client.say(raw);
    client.answer().expect("an answer")
}

/// `GET` with more lines.
pub fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: www.example\r\n{lines}\r\n")
}

/// `POST` with a body of a length.
pub fn post(path: &str, lines: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: www.example\r\nContent-Length: {}\r\n{lines}\r\n{body}", body.len())
}

pub fn until(what: &str, test: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !test() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}
