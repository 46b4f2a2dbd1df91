//! `echo LISTEN`: a gRPC service in clear text that answers any unary call with the message it got. Prints where it listens.
//!
//! On the `h2` crate, on one thread: what stands behind the proxies must cost little itself.

use std::{io, process::ExitCode};

use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use sdlb_bench::run;
use tokio::net::{TcpListener, TcpStream};

const STREAMS_MAX: u32 = 1024;

fn main() -> ExitCode {
    run("echo", |words| {
        let [listen] = words else { return Err(io::Error::other("usage: echo LISTEN")) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind(listen).await?;
            println!("{}", listener.local_addr()?);
            loop {
                tokio::spawn(serve(listener.accept().await?.0));
            }
        })
    })
}

/// Until the client leaves or breaks a rule.
async fn serve(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(mut connection) = server::Builder::new().max_concurrent_streams(STREAMS_MAX).handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, answer))) = connection.accept().await {
        tokio::spawn(async move {
            let _ = call(request, answer).await; // a call that was given up
        });
    }
}

async fn call(request: Request<RecvStream>, mut answer: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        message.extend_from_slice(&part);
    }
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut stream = answer.send_response(head, false)?;
    stream.send_data(message.freeze(), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}
