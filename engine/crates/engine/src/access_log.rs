//! The access log: JSON lines, written by a thread of its own so that a slow disk never holds traffic up.
//!
//! Each worker gathers lines in a buffer and hands it over when it is full or a moment old; the queue to the writer is
//! bounded, and what does not fit is dropped and counted.
//!
//! Nothing here makes control wait either. Which file it is lies beside the queue, which may be full for as long as a disk
//! or the reader of a pipe stands still; and the writer leaves a pipe that takes nothing when there is another file to
//! write to.

use std::{
    cell::RefCell,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::{counters::Counters, supervise};

/// A worker's buffer is handed over at this size, before it pushes traffic out of the caches ...
const BUFFER_BYTES: usize = 64 << 10;
/// ... or at this age.
const BUFFER_AGE: Duration = Duration::from_millis(100);
/// Buffers on their way to the disk: 8 MiB at most.
const BUFFERS_MAX: usize = 128;
/// Room behind a full buffer for the line that fills it.
const LAST_LINE_BYTES: usize = 4 << 10;
/// Of the writer's thread.
const STACK_BYTES: usize = 128 << 10;
/// Buffers that come back to their worker: one is filled while the other is written.
const BACK_MAX: usize = 2;

/// One worker's end of the log.
pub struct AccessLog {
    sink: Sink,
    buffer: Rc<RefCell<Buffer>>,
}

struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
    /// Those that were written come back here: their memory is there, and warm.
    written: Receiver<Vec<u8>>,
    back: SyncSender<Vec<u8>>,
}

impl Buffer {
    fn new() -> Self {
        let (back, written) = sync_channel(BACK_MAX);
        Self { bytes: Vec::new(), lines: 0, written, back }
    }
}

impl AccessLog {
    /// A worker's end of `sink`.
    #[must_use]
    pub fn new(sink: Sink) -> Self {
        Self { sink, buffer: Rc::new(RefCell::new(Buffer::new())) }
    }

    /// Whether lines are wanted: ask before building one.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.sink.on.load(Relaxed)
    }

    /// Hands a line over, without its line end. Never waits: what the disk cannot take in time is dropped and counted.
    /// To be called on a worker's runtime.
    pub fn write(&self, line: impl AsRef<[u8]>) {
        if !self.is_on() {
            return;
        }
        let mut buffer = self.buffer.borrow_mut();
        let first = buffer.bytes.is_empty();
        if buffer.bytes.capacity() == 0 {
            buffer.bytes.reserve_exact(BUFFER_BYTES + LAST_LINE_BYTES);
        }
        buffer.bytes.extend_from_slice(line.as_ref());
        buffer.bytes.push(b'\n');
        buffer.lines += 1;
        if buffer.bytes.len() >= BUFFER_BYTES {
            self.sink.send(&mut buffer);
        } else if first {
            let (sink, buffer) = (self.sink.clone(), self.buffer.clone());
            tokio::task::spawn_local(async move {
                tokio::time::sleep(BUFFER_AGE).await;
                sink.send(&mut buffer.borrow_mut());
            });
        }
    }

    /// Hands over what is gathered: before the worker ends.
    pub fn flush(&self) {
        self.sink.send(&mut self.buffer.borrow_mut());
    }
}

enum Order {
    /// So many lines, and where the buffer goes back to.
    Write(Vec<u8>, u64, SyncSender<Vec<u8>>),
    /// Control wants another file.
    Look,
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// An open file and its path; `None`: the log is off.
type Log = Option<(File, PathBuf)>;

/// What control wants next.
#[derive(Default)]
struct Wanted {
    log: Option<Log>,
    reopen: bool,
}

impl Wanted {
    fn is_some(&self) -> bool {
        self.log.is_some() || self.reopen
    }
}

/// The way to the writer; shared by all workers and control.
#[derive(Clone)]
pub struct Sink {
    on: Arc<AtomicBool>,
    orders: SyncSender<Order>,
    wanted: Arc<Mutex<Wanted>>,
    counters: Arc<Counters>,
}

impl Sink {
    /// Starts the writer, with the log off.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(counters: Arc<Counters>) -> io::Result<Self> {
        let (orders, queue) = sync_channel(BUFFERS_MAX);
        let wanted: Arc<Mutex<Wanted>> = Arc::default();
        let sink = Self { on: Arc::default(), orders, wanted: wanted.clone(), counters: counters.clone() };
        supervise::spawn("access-log".to_owned(), Some(STACK_BYTES), move || {
            Writer { log: None, wanted, counters }.run(&queue);
        })?;
        Ok(sink)
    }

    /// Turns the log on with this file, or off. The caller opened the file, so that a bad path is known at once.
    pub fn configure(&self, file: Option<(File, PathBuf)>) {
        self.on.store(file.is_some(), Relaxed);
        self.want(|wanted| *wanted = Wanted { log: Some(file), reopen: false });
    }

    /// Opens the file anew: it was moved away.
    pub fn reopen(&self) {
        self.want(|wanted| wanted.reopen = true);
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        // With a full queue the writer looks by itself, before each order.
        let _ = self.orders.try_send(Order::Look);
    }

    /// Waits until everything handed over is written, or a second has passed.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.orders.try_send(Order::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_secs(1));
        }
    }

    fn send(&self, buffer: &mut Buffer) {
        if buffer.bytes.is_empty() {
            return;
        }
        let empty = buffer.written.try_recv().unwrap_or_default();
        let (bytes, lines) = (std::mem::replace(&mut buffer.bytes, empty), std::mem::take(&mut buffer.lines));
        if self.orders.try_send(Order::Write(bytes, lines, buffer.back.clone())).is_err() {
            self.counters.access_log_dropped_total.add_many(lines);
        }
    }
}

/// A pipe without a reader is an error, not a wait; and one whose reader stands still does not hold up the writer. Of a file
/// it says nothing.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;
const ENXIO: i32 = 6;
/// Between two looks at what control wants, while a pipe takes nothing.
const LOOK: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Opens the file of the log for appending. May take as long as a disk that does not answer.
///
/// # Errors
/// Those of the file system.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o640).custom_flags(NONBLOCK).open(path);
    file.map_err(|error| match error.raw_os_error() {
        Some(ENXIO) => io::Error::new(error.kind(), "it is a pipe without a reader"),
        _ => error,
    })
}

struct Writer {
    log: Log,
    wanted: Arc<Mutex<Wanted>>,
    counters: Arc<Counters>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Order>) {
        while let Ok(order) = queue.recv() {
            self.look();
            match order {
                Order::Write(mut bytes, lines, back) => {
                    if !self.write(&bytes) {
                        self.counters.access_log_failed_total.add_many(lines);
                    }
                    bytes.clear();
                    bytes.shrink_to(BUFFER_BYTES + LAST_LINE_BYTES);
                    // It has enough: this one is freed.
                    let _ = back.try_send(bytes);
                }
                Order::Look => {}
                Order::Flush(done) => drop(done.send(())),
            }
        }
    }

    /// Takes the file that control wants.
    fn look(&mut self) {
        let Wanted { log, reopen } = std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(log) = log {
            self.log = log;
        }
        if let (true, Some((file, path))) = (reopen, &mut self.log) {
            match open(path) {
                Ok(new) => *file = new,
                Err(error) => eprintln!("sdlb-engine: access log {}: {error}; the old file stays", path.display()),
            }
        }
    }

    /// All of it, unless it fails, or a pipe takes nothing and control wants another file.
    fn write(&mut self, mut bytes: &[u8]) -> bool {
        let Some((file, _)) = &mut self.log else { return false };
        while !bytes.is_empty() {
            match file.write(bytes) {
                Ok(0) => return false,
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut takes = [PollFd::new(&*file, PollFlags::OUT)];
                    // However it ends: the next write says what is.
                    let _ = poll(&mut takes, Some(&LOOK));
                    if self.wanted.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
        true
    }
}
