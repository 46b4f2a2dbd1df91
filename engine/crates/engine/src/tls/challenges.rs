//! Open challenges of a CA: a token for a plaintext request (RFC 8555, 8.3), a certificate for a handshake
//! with the protocol `acme-tls/1` (RFC 8737). There are few of them, and mostly none.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::{ClientHello, NoServerSessionStorage},
    sign::SingleCertAndKey,
};

use super::sites::key_of;

/// The protocol of the handshakes (RFC 8737, 6.2).
const PROTOCOL: &[u8] = b"acme-tls/1";
/// Where an ACME server looks for the answer to an HTTP-01 challenge (RFC 8555, 8.3): over plain HTTP. A token follows.
pub const WELL_KNOWN: &[u8] = b"/.well-known/acme-challenge/";

/// All of them, for all workers.
#[derive(Debug, Clone, Default)]
pub struct Challenges(Arc<Published>);

#[derive(Debug, Default)]
struct Published {
    open: RwLock<Arc<Open>>,
    /// There is one. Asked for each request, so without the lock.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Open {
    /// By host and token.
    http: HashMap<(String, String), String>,
    /// By host.
    tls: HashMap<String, Arc<ServerConfig>>,
}

/// A challenge, as control sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// For a plaintext request.
    Http {
        /// In lower case.
        host: String,
        /// The last segment of the path.
        token: String,
        /// The body of the answer.
        content: String,
    },
    /// For a handshake.
    Tls {
        /// In lower case.
        host: String,
        /// Certificate and key, as PEM.
        pem: Vec<u8>,
    },
}

/// Whether a handshake offers nothing but the protocol of challenges.
#[must_use]
pub fn is_proof(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut names| names.next() == Some(PROTOCOL) && names.next().is_none())
}

impl Challenges {
    /// Replaces them by these.
    ///
    /// # Errors
    /// One sentence about the first that cannot be used; the others are.
    pub(super) fn replace(&self, asked: Vec<Asked>, provider: &Arc<CryptoProvider>) -> Result<(), String> {
        let mut open = Open::default();
        let mut result = Ok(());
        for each in asked {
            match each {
                Asked::Http { host, token, content } => drop(open.http.insert((host, token), content)),
                Asked::Tls { host, pem } => match config(&pem, provider) {
                    Ok(config) => drop(open.tls.insert(host, config)),
                    Err(error) => result = result.and(Err(format!("the challenge for {host}: {error}"))),
                },
            }
        }
        let any = !open.http.is_empty() || !open.tls.is_empty();
        *self.0.open.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(open);
        self.0.any.store(any, SeqCst);
        result
    }

    fn open(&self) -> Option<Arc<Open>> {
        let any = self.0.any.load(Relaxed);
        any.then(|| self.0.open.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The body for a plaintext request. `path`: canonical.
    #[must_use]
    pub fn answer(&self, host: &str, path: &[u8]) -> Option<String> {
        let open = self.open()?;
        let token = std::str::from_utf8(path.strip_prefix(WELL_KNOWN)?).ok()?;
        open.http.get(&(host.to_owned(), token.to_owned())).cloned()
    }

    /// What a handshake for this host is done with.
    #[must_use]
    pub fn proof(&self, host: Option<&str>) -> Option<Arc<ServerConfig>> {
        self.open()?.tls.get(host?).cloned()
    }
}

fn config(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Arc<ServerConfig>, String> {
    // Its critical extension is unknown to every other use, so nothing else of it is checked here.
    let held = key_of(pem, provider)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(held)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(host: &str, token: &str) -> Asked {
        Asked::Http { host: host.to_owned(), token: token.to_owned(), content: format!("{token}.proof") }
    }

    #[test]
    fn a_token_is_answered_for_its_host_and_path_alone_and_only_while_it_is_open() {
        let challenges = Challenges::default();
        let provider = super::super::sites::Provider::default().0;
        assert_eq!(challenges.replace(vec![http("a.example", "t")], &provider), Ok(()));
        let path = b"/.well-known/acme-challenge/t";
        assert_eq!(challenges.answer("a.example", path).as_deref(), Some("t.proof"));
        assert_eq!(challenges.answer("b.example", path), None);
        for other in [&b"/.well-known/acme-challenge/"[..], b"/.well-known/acme-challenge/t/", b"/t", b"t"] {
            assert_eq!(challenges.answer("a.example", other), None);
        }
        assert_eq!(challenges.replace(vec![http("a.example", "u")], &provider), Ok(()));
        assert_eq!(challenges.answer("a.example", path), None);
        assert_eq!(challenges.replace(Vec::new(), &provider), Ok(()));
        assert_eq!(challenges.answer("a.example", b"/.well-known/acme-challenge/u"), None);
    }

    #[test]
    fn a_certificate_that_cannot_be_used_is_named_and_keeps_no_other_out() {
        let challenges = Challenges::default();
        let provider = super::super::sites::Provider::default().0;
        let bad = Asked::Tls { host: "b.example".to_owned(), pem: b"x".to_vec() };
        let error = challenges.replace(vec![bad, http("a.example", "t")], &provider).expect_err("PEM");
        assert!(error.starts_with("the challenge for b.example: "), "{error}");
        assert!(challenges.answer("a.example", b"/.well-known/acme-challenge/t").is_some());
        assert!(challenges.proof(Some("b.example")).is_none());
    }
}
