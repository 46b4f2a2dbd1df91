//! One control connection: frames in and out, each on a task of its own, so that a control that neither reads nor writes
//! holds nothing up.

use std::{io, time::Duration};

use bytes::Bytes;
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    frame,
    proto::{FromEngine, ToEngine, from_engine},
};

/// Frames that wait for a control that does not read; past this it is cut off, and gets the whole state when it is back.
const FRAMES_MAX: usize = 16_384;

/// What arrived on a session.
pub struct Arrival {
    /// The session's number: what an older one sends late is not heard.
    pub session: u64,
    /// `Ok(None)`: it was closed.
    pub message: io::Result<Option<ToEngine>>,
}

/// An open session; dropping it closes the connection.
pub struct Session {
    /// Its number.
    pub number: u64,
    frames: mpsc::Sender<Bytes>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

/// How long the last frames may take.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

impl Session {
    /// Starts both tasks on this runtime.
    #[must_use]
    pub fn start(number: u64, stream: UnixStream, arrivals: mpsc::Sender<Arrival>) -> Self {
        let (read_half, write_half) = stream.into_split();
        let (frames, queue) = mpsc::channel(FRAMES_MAX);
        let reader = tokio::task::spawn_local(read_all(number, read_half, arrivals));
        let writer = tokio::task::spawn_local(write_all(write_half, queue));
        Self { number, frames, reader, writer }
    }

    /// Queues a message. False: control does not read, the session is to be dropped.
    #[must_use]
    pub fn send(&self, kind: from_engine::Kind) -> bool {
        self.frames.try_send(frame::encode(&FromEngine { kind: Some(kind) })).is_ok()
    }

    /// Sends what is queued, then closes.
    pub async fn close(mut self) {
        // The writer ends when the queue is closed and empty.
        self.frames = mpsc::channel(1).0;
        let _ = tokio::time::timeout(CLOSE_WITHIN, &mut self.writer).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

async fn read_all(session: u64, mut stream: OwnedReadHalf, arrivals: mpsc::Sender<Arrival>) {
    loop {
        let message = frame::read(&mut stream).await;
        let over = !matches!(message, Ok(Some(_)));
        if arrivals.send(Arrival { session, message }).await.is_err() || over {
            return;
        }
    }
}

async fn write_all(mut stream: OwnedWriteHalf, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(frame) = queue.recv().await {
        // A broken connection shows at the reader.
        if stream.write_all(&frame).await.is_err() {
            return;
        }
    }
}
