//! Children's control streams on a node listener: told apart from requests by the HTTP/2 preface (RFC 9113, 3.4), and
//! passed on to control untouched.

use std::{io, path::Path, time::Duration};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::{TcpStream, UnixStream},
};

use crate::{conn::DRAIN_REST, counters::Gauged, http2::PREFACE, settings::ListenerKind, worker::Worker};

/// Between two looks at a start that is shorter than the preface.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// An HTTP/1 request.
    Request,
    /// The HTTP/2 preface.
    Preface,
    /// It was closed, did not speak in time, or the engine shuts down.
    Nothing,
}

/// Looks at the first bytes, and leaves them where they are.
pub async fn first_bytes(stream: &TcpStream, worker: &Worker) -> First {
    let ends = worker.ends(ListenerKind::Node);
    let over = async {
        ends.await;
        // Who has just connected is about to send a request.
        tokio::time::sleep(DRAIN_REST).await;
    };
    tokio::select! {
        biased;
        first = tokio::time::timeout(worker.config().limits.idle_timeout, look(stream)) => {
            first.ok().and_then(Result::ok).unwrap_or(First::Nothing)
        }
        () = over => First::Nothing,
    }
}

async fn look(stream: &TcpStream) -> io::Result<First> {
    let mut start = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut start).await? {
            0 => return Ok(First::Nothing),
            length if !PREFACE.starts_with(&start[..length]) => return Ok(First::Request),
            length if length == PREFACE.len() => return Ok(First::Preface),
            // The bytes stay readable, so only time tells whether more have come.
            _ => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// Joins the stream with control's socket until either side ends. Without control it is closed, and so it is by an engine
/// that ends: the child tries again, and finds the next one. `name`: the child's, as its certificate says; "": it has none.
pub async fn run(mut stream: impl AsyncRead + AsyncWrite + Unpin, name: &str, worker: &Worker) {
    if worker.is_ending(ListenerKind::Node) {
        return;
    }
    let config = worker.config();
    let connected = if name.is_empty() {
        UnixStream::connect(&config.control_socket).await
    } else {
        connect_as(name, &config.control_socket, worker.with_chance(|chance| chance.next_u64()))
    };
    let Ok(mut control) = connected else {
        worker.counters.control_streams_refused_total.add();
        return;
    };
    worker.counters.control_streams_total.add();
    let _open = Gauged::new(worker.counters.clone(), |counters| &counters.control_streams_open);
    // How it ended is the business of the two ends.
    let _ = copy_bidirectional(&mut stream, &mut control).await;
}

/// Our end of the connection has an abstract address that tells control whose stream it is. Nothing that a child sends can
/// change it, and only processes that may enter control's folder can have one. `number` keeps addresses apart.
fn connect_as(name: &str, control: &Path, number: u64) -> io::Result<UnixStream> {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new_abstract_name(format!("sdlb-peer/{number:016x}/{name}").as_bytes())?)?;
    // A Unix socket is connected at once or not at all.
    connect(&socket, &SocketAddrUnix::new(control)?)?;
    UnixStream::from_std(socket.into())
}
