//! This node's own certificate, and mutual TLS with other nodes: 1.3 only, both sides show a certificate of the same
//! authorities.
//!
//! A node's name is the first DNS name of its certificate; others may follow, for those who reach it by them. A parent that
//! connects to a child insists on the child's name. Sessions are not resumed: links live long, and each one that is opened
//! is judged anew. Whoever issues identities later only has to bring these PEM texts.

use std::{fmt, io, sync::Arc};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, ServerConfig,
    client::Resumption,
    pki_types::{CertificateDer, ServerName},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::sites::{self, Provider};
use crate::counters::{Counter, Counters};

/// A parent's requests (RFC 7301): HTTP/2 that nobody but a node speaks.
const REQUESTS: &[u8] = b"sdlb/1";
/// The same to a child whose engine sends nothing before it has read HTTP/2's preface, as HAProxy.
const REQUESTS_PREFACE: &[u8] = b"sdlb/1-preface";
/// A child's gRPC stream to control.
const CONTROL: &[u8] = b"h2";
/// As control bounds it.
const NAME_BYTES_MAX: usize = 64;

/// Ready for handshakes in both directions.
pub struct Identity {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// End of the certificate, Unix seconds.
    pub not_after_unix_s: i64,
    /// One clause each.
    pub warnings: Vec<String>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("not_after_unix_s", &self.not_after_unix_s).finish_non_exhaustive()
    }
}

/// What a node that has connected wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// A parent: to send requests.
    Requests,
    /// A child: to speak with control.
    Control,
}

/// A node that has connected.
#[derive(Debug)]
pub struct Peer<T> {
    /// The link.
    pub stream: server::TlsStream<T>,
    /// As its certificate says.
    pub name: String,
    /// What for.
    pub wants: Wants,
}

/// Why a link was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It showed no certificate.
    NoCertificate,
    /// Its certificate is not of our authorities, or not for this use.
    Certificate,
    /// Its certificate has expired, or is not valid yet.
    Expired,
    /// Its certificate has no name, or that of another node.
    Name,
    /// It does not take our certificate.
    Ours,
    /// It speaks no TLS 1.3, or is no node.
    Other,
}

impl Refused {
    /// Its counter.
    #[must_use]
    pub fn counter(self, counters: &Counters) -> &Counter {
        match self {
            Self::NoCertificate => &counters.link_refused_no_certificate_total,
            Self::Certificate => &counters.link_refused_certificate_total,
            Self::Expired => &counters.link_refused_expired_total,
            Self::Name => &counters.link_refused_name_total,
            Self::Ours => &counters.link_refused_ours_total,
            Self::Other => &counters.link_refused_other_total,
        }
    }

    /// One clause about the other side.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoCertificate => "it presents no certificate",
            Self::Certificate => "its certificate is not from a CA that this node trusts",
            Self::Expired => "its certificate has expired or is not valid yet",
            Self::Name => "its certificate does not contain its name",
            Self::Ours => "it rejects the certificate of this node",
            Self::Other => "it does not speak the nodes' mutual TLS",
        }
    }
}

impl Identity {
    /// Of a node with this name. `pem`: chain and key; `ca_pem`: authorities of the other nodes' certificates.
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong.
    pub fn new(pem: &[u8], ca_pem: &[u8], node: &str, now_unix_s: i64) -> Result<Self, String> {
        let provider = Provider::default().0;
        let own = sites::certified_key(pem, &provider)?;
        let leaf = own.cert.first().ok_or("the file has no certificate")?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| "the certificate cannot be read")?;
        let first = sites::names(&parsed).into_iter().next();
        if !first.as_deref().is_some_and(|first| first.eq_ignore_ascii_case(node)) {
            let found = first.map_or_else(|| "there is none".to_owned(), |first| format!("it is {first:?}"));
            return Err(format!("the first DNS name of the certificate must be the node's, {node:?}; {found}"));
        }
        if ServerName::try_from(node).is_err() {
            return Err(format!("the node's name {node:?} cannot be a DNS name: rename the node"));
        }
        let (not_after_unix_s, warnings) =
            (parsed.validity().not_after.timestamp(), sites::judge_time(&parsed, now_unix_s).into_iter().collect());
        let authorities = Arc::new(sites::roots(ca_pem, "the CAs")?);
        let told = |error: rustls::Error| error.to_string();
        let shown = Arc::new(SingleCertAndKey::from(CertifiedKey { ocsp: None, ..own }));

        let verifier = WebPkiClientVerifier::builder_with_provider(authorities.clone(), provider.clone())
            .build()
            .map_err(|error| format!("the CAs: {error}"))?;
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13]);
        let mut server = builder.map_err(told)?.with_client_cert_verifier(verifier).with_cert_resolver(shown.clone());
        server.alpn_protocols = [REQUESTS, CONTROL].map(<[u8]>::to_vec).to_vec();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
        let mut client = builder.map_err(told)?.with_root_certificates(authorities).with_client_cert_resolver(shown);
        client.alpn_protocols = [REQUESTS, REQUESTS_PREFACE].map(<[u8]>::to_vec).to_vec();
        client.resumption = Resumption::disabled();
        Ok(Self { server: Arc::new(server), client: Arc::new(client), not_after_unix_s, warnings })
    }

    /// The handshake with a node that has connected.
    ///
    /// # Errors
    /// [`Refused`]
    pub async fn accept<T: AsyncRead + AsyncWrite + Unpin>(&self, stream: T) -> Result<Peer<T>, Refused> {
        let stream = TlsAcceptor::from(self.server.clone()).accept(stream).await.map_err(|error| refused(&error))?;
        let session = stream.get_ref().1;
        let wants = match session.alpn_protocol() {
            Some(REQUESTS) => Wants::Requests,
            Some(CONTROL) => Wants::Control,
            _ => return Err(Refused::Other),
        };
        let leaf = session.peer_certificates().and_then(<[_]>::first).ok_or(Refused::NoCertificate)?;
        let name = name_in(leaf).ok_or(Refused::Name)?;
        Ok(Peer { stream, name, wants })
    }

    /// The handshake with a child. A child speaks first (HTTP/2's `SETTINGS`), and not before it has judged our certificate
    /// (RFC 8446, 4.4.2): what is sent before that may be lost. True: this child waits for the preface, so it has not judged
    /// it yet.
    ///
    /// # Errors
    /// [`Refused`]
    pub async fn connect<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        node: &str,
    ) -> Result<(client::TlsStream<T>, bool), Refused> {
        let name = ServerName::try_from(node.to_owned()).map_err(|_| Refused::Name)?;
        let connector = TlsConnector::from(self.client.clone());
        let mut stream = connector.connect(name, stream).await.map_err(|error| refused(&error))?;
        if stream.get_ref().1.alpn_protocol() == Some(REQUESTS_PREFACE) {
            return Ok((stream, true));
        }
        stream.fill_buf().await.map_err(|error| refused(&error))?;
        if stream.get_ref().1.alpn_protocol() == Some(REQUESTS) { Ok((stream, false)) } else { Err(Refused::Other) }
    }
}

/// The node's name.
fn name_in(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let name = sites::names(&parsed).into_iter().next()?;
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    ((1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(good)).then_some(name)
}

/// What the failure of a handshake says.
fn refused(error: &io::Error) -> Refused {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) else {
        return Refused::Other;
    };
    match error {
        rustls::Error::NoCertificatesPresented => Refused::NoCertificate,
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Refused::Expired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Refused::Name,
            _ => Refused::Certificate,
        },
        rustls::Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired,
        ) => Refused::Ours,
        _ => Refused::Other,
    }
}
