//! From an accepted connection to an established one: bounded in time and number, refused cheaply.

use std::{io, net::IpAddr, rc::Rc, sync::Arc};

use rustls::server::Acceptor;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_rustls::LazyConfigAcceptor;

use super::{
    Stream, challenges,
    sites::{Handshake, Sites},
};
use crate::{
    counters::{Counters, Gauged},
    worker::Worker,
};

/// Why there is none.
enum Failed {
    /// No certificate for that name.
    NoSite,
    /// What the client sent is no TLS, or nothing that both sides have.
    Refused,
    /// It was a CA that wanted a proof, and has it.
    Proved,
}

/// One address may have this part of all handshakes at once: who begins them and does not go on leaves some for others.
const SHARE: usize = 4;

/// Does the handshake; `client`: an address that has no more than its share. `None`: it failed, or there are too many at once;
/// the connection is to be closed.
pub async fn accept(
    stream: TcpStream,
    client: Option<IpAddr>,
    sites: &Sites,
    worker: &Rc<Worker>,
) -> Option<Box<Stream>> {
    let counters: &Arc<Counters> = &worker.counters;
    let config = worker.config();
    if counters.handshakes_now.get() >= config.limits.handshakes as u64 {
        counters.limit_handshakes_total.add();
        return None;
    }
    let share = u32::try_from(config.limits.handshakes.div_ceil(SHARE)).unwrap_or(u32::MAX);
    let slot = client.map(|address| worker.handshakes.enter(address, share));
    if matches!(slot, Some(None)) {
        counters.limit_handshakes_per_address_total.add();
        return None;
    }
    let _one = Gauged::new(counters.clone(), |counters| &counters.handshakes_now);
    match timeout(config.limits.handshake_timeout, shake(stream, sites)).await {
        Ok(Ok(stream)) => {
            counters.handshakes_total.add();
            if stream.is_resumed() {
                counters.handshakes_resumed_total.add();
            }
            return Some(Box::new(stream));
        }
        Ok(Err(Failed::Proved)) => counters.handshakes_total.add(),
        Ok(Err(Failed::NoSite)) => counters.handshakes_unknown_name_total.add(),
        Ok(Err(Failed::Refused)) => counters.handshakes_failed_total.add(),
        Err(_) => counters.timeout_handshake_total.add(),
    }
    None
}

async fn shake(stream: TcpStream, sites: &Sites) -> Result<Stream, Failed> {
    // rustls bounds a ClientHello in pieces to 64 KiB.
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(failed)?;
    let proof = {
        let hello = hello.client_hello();
        let name = hello.server_name().filter(|_| challenges::is_proof(&hello)).map(str::to_ascii_lowercase);
        name.and_then(|name| sites.challenges().proof(Some(&name)))
    };
    if let Some(config) = proof {
        let mut stream = hello.into_stream(config).await.map_err(failed)?;
        let _ = stream.shutdown().await;
        return Err(Failed::Proved);
    }
    let found = {
        let hello = hello.client_hello();
        let server_name: Option<Arc<str>> = hello.server_name().map(|name| name.to_ascii_lowercase().into());
        let site = sites.find(server_name.as_deref());
        site.map(|site| (site.config(&hello), Handshake { server_name, site }))
    };
    let Some((config, handshake)) = found else {
        refuse_name(hello);
        return Err(Failed::NoSite);
    };
    let stream = hello.into_stream(config).await.map_err(failed)?;
    Ok(Stream::new(stream, handshake))
}

fn failed(_: io::Error) -> Failed {
    Failed::Refused
}

/// `unrecognized_name` (RFC 6066, 3), as one try: who attacks need not hear it.
fn refuse_name(hello: tokio_rustls::StartHandshake<TcpStream>) {
    const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
    let _ = hello.io.try_write(&ALERT);
}
