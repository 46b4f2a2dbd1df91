//! Sites: which certificates stand for which host names.
//!
//! Each site has a TLS configuration of its own, made once, so that one site's certificate or authorities never touch
//! another's. A host belongs to one site; the most specific name wins, as for routes: exact, then the longest wildcard, then
//! `*`, which also takes clients that name no host. What a client may ask for behind its handshake is [`Sites::may_serve`].

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use rustls::{
    DEFAULT_VERSIONS, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::TLS13,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::{
    challenges::{self, Challenges},
    tickets::{Keys, Tickets},
};
use crate::front::Front;

/// Certificates of one chain; more is a mistake.
const CHAIN_MAX: usize = 16;
/// Application protocols that are offered to clients (RFC 7301): a client that only has others is refused.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A site, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// Names it in answers and logs.
    pub key: String,
    /// `example.com`, `*.example.com`, `*`.
    pub hosts: Vec<String>,
    /// Chain and key of each certificate, as PEM.
    pub certificates: Vec<Vec<u8>>,
    /// Authorities of the clients' certificates, as PEM; empty: none is asked for.
    pub client_ca: Vec<u8>,
    /// The handshake fails without one.
    pub client_certificate_required: bool,
    /// Older versions are refused.
    pub tls13_only: bool,
    /// Sessions are not resumed.
    pub no_session_tickets: bool,
    /// What it answers by itself.
    pub front: Front,
}

/// A site that serves.
pub struct Site {
    /// Its key.
    pub key: String,
    hosts: Vec<String>,
    /// What a handshake for it is done with: the suite that costs least, of those that the client has ...
    ours: Arc<ServerConfig>,
    /// ... or the one that the client likes best.
    theirs: Arc<ServerConfig>,
    /// End of the certificate that ends first, Unix seconds.
    pub not_after_unix_s: i64,
    /// What it asks of its clients, with its key; `None`: no certificate.
    terms: Option<Vec<u8>>,
    /// What it answers by itself; `None`: nothing.
    pub front: Option<Arc<Front>>,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("key", &self.key).field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl Site {
    /// What the handshake with this client is done with. All suites are good, and AES-128 with SHA-256 is cheapest for
    /// nearly everybody; but a client that names ChaCha20 first has no AES in its hardware.
    #[must_use]
    pub fn config(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        use rustls::CipherSuite::*;
        // Chrome and OpenSSL begin with a value that means nothing (RFC 8701).
        let known = |suite: &&rustls::CipherSuite| suite.as_str().is_some();
        match hello.cipher_suites().iter().find(known) {
            Some(
                TLS13_CHACHA20_POLY1305_SHA256
                | TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                | TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            ) => self.theirs.clone(),
            _ => self.ours.clone(),
        }
    }
}

/// What is worth telling about a site that was put.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Of the certificate that ends first, Unix seconds.
    pub not_after_unix_s: i64,
    /// One clause each.
    pub warnings: Vec<String>,
}

/// What a connection is known by since its TLS handshake.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// The host name that the client asked for, in lower case.
    pub server_name: Option<Arc<str>>,
    /// The site that it was done with.
    pub site: Arc<Site>,
}

/// All sites, for the handshakes of all workers.
#[derive(Debug, Clone, Default)]
pub struct Sites(Arc<Published>);

#[derive(Debug, Default)]
struct Published {
    hosts: RwLock<Arc<Hosts>>,
    /// Some site asks for certificates of clients. Asked for each request, so without the lock.
    any_asks: AtomicBool,
    /// Some site answers something by itself. The same.
    any_front: AtomicBool,
    challenges: Challenges,
}

#[derive(Debug, Default)]
struct Hosts {
    exact: HashMap<String, Arc<Site>>,
    /// By what stands behind `*.`.
    wildcards: HashMap<String, Arc<Site>>,
    every: Option<Arc<Site>>,
}

impl Sites {
    /// Open challenges of CAs.
    #[must_use]
    pub fn challenges(&self) -> &Challenges {
        &self.0.challenges
    }

    /// The site of a host name in lower case; `None`: the client named none.
    #[must_use]
    pub fn find(&self, host: Option<&str>) -> Option<Arc<Site>> {
        let hosts = self.0.hosts.read().unwrap_or_else(PoisonError::into_inner).clone();
        let named = host.and_then(|host| {
            let suffixes = host.match_indices('.').map(|(at, _)| &host[at + 1..]);
            hosts.exact.get(host).or_else(|| suffixes.filter_map(|suffix| hosts.wildcards.get(suffix)).next())
        });
        named.or(hosts.every.as_ref()).cloned()
    }

    /// Whether a connection may ask for this host (canonical, without port): the site of its handshake must be that of the host,
    /// also when the client named none. A site that asks its clients for certificates binds its hosts on every listener: they
    /// are served only to connections whose handshake was done on its terms. `handshake` `None`: a connection in plaintext.
    #[must_use]
    pub fn may_serve(&self, host: &str, handshake: Option<&Handshake>) -> bool {
        let any_asks = self.0.any_asks.load(Relaxed);
        let Some(handshake) = handshake else {
            return !any_asks || self.find(Some(host)).is_none_or(|site| site.terms.is_none());
        };
        // Nearly always: a certificate was shown for this very host, and no client has to show one.
        if !any_asks && handshake.server_name.as_deref() == Some(host) {
            return true;
        }
        let same = |site: Arc<Site>| handshake.site.key == site.key && handshake.site.terms == site.terms;
        self.find(Some(host)).is_some_and(same)
    }

    /// Whether a site has this host.
    #[must_use]
    pub fn has(&self, host: &str) -> bool {
        self.find(Some(host)).is_some()
    }

    /// What the site of this host answers by itself.
    #[must_use]
    pub fn front(&self, host: &str) -> Option<Arc<Front>> {
        if !self.0.any_front.load(Relaxed) {
            return None;
        }
        self.find(Some(host))?.front.clone()
    }
}

/// Control's side of them.
#[derive(Debug, Default)]
pub struct Registry {
    /// With the number of the put: of two that name one host, the later has it.
    sites: BTreeMap<String, (u64, Arc<Site>)>,
    puts: u64,
    provider: Provider,
    /// What the workers see.
    pub shared: Sites,
    /// Keys of session tickets, for all sites.
    pub keys: Keys,
}

impl Registry {
    /// Puts a site, or leaves what it has. To be made visible by [`Self::publish`].
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong with it.
    pub fn put(&mut self, asked: Asked, now_unix_s: i64) -> Result<Told, String> {
        if asked.key.is_empty() || asked.hosts.is_empty() {
            return Err("it has no key or no hosts".to_owned());
        }
        let (site, warnings) = build(&asked, &self.provider.0, &self.keys, now_unix_s)?;
        if let Some((_, held)) = self.sites.get(&asked.key)
            && held.not_after_unix_s > now_unix_s
            && site.not_after_unix_s <= now_unix_s
        {
            return Err("the new certificate has expired and the one in use has not".to_owned());
        }
        let told = Told { not_after_unix_s: site.not_after_unix_s, warnings };
        self.puts += 1;
        self.sites.insert(asked.key, (self.puts, Arc::new(site)));
        Ok(told)
    }

    /// Replaces the open challenges.
    ///
    /// # Errors
    /// One sentence about the first that cannot be used.
    pub fn challenge(&self, asked: Vec<challenges::Asked>) -> Result<(), String> {
        self.shared.challenges().replace(asked, &self.provider.0)
    }

    /// End of the certificate that a site serves with, Unix seconds; 0: there is no such site.
    #[must_use]
    pub fn not_after_unix_s(&self, key: &str) -> i64 {
        self.sites.get(key).map_or(0, |(_, site)| site.not_after_unix_s)
    }

    /// Deletes the sites that are not named.
    pub fn keep(&mut self, keys: &[String]) {
        let keys: std::collections::HashSet<&String> = keys.iter().collect();
        self.sites.retain(|key, _| keys.contains(key));
    }

    /// Lets the workers see the sites as they are now.
    pub fn publish(&self) {
        let mut hosts = Hosts::default();
        let mut sites: Vec<_> = self.sites.values().collect();
        sites.sort_unstable_by_key(|(put, _)| *put);
        for (_, site) in sites {
            for host in &site.hosts {
                match host.strip_prefix("*.") {
                    _ if host == "*" => hosts.every = Some(site.clone()),
                    Some(suffix) => drop(hosts.wildcards.insert(suffix.to_owned(), site.clone())),
                    None => drop(hosts.exact.insert(host.clone(), site.clone())),
                }
            }
        }
        // Before the sites: a request must never find a site that asks, and a mark that says there is none.
        let any_asks = self.sites.values().any(|(_, site)| site.terms.is_some());
        let any_front = self.sites.values().any(|(_, site)| site.front.is_some());
        let shared = &self.shared.0;
        shared.any_front.store(any_front, SeqCst);
        shared.any_asks.fetch_or(any_asks, SeqCst);
        *shared.hosts.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(hosts);
        shared.any_asks.store(any_asks, SeqCst);
    }
}

/// Algorithms: one object for all sites.
#[derive(Debug)]
pub(super) struct Provider(pub Arc<CryptoProvider>);

impl Default for Provider {
    fn default() -> Self {
        use aws_lc_rs::cipher_suite::*;
        // Those of the default, the cheapest first.
        let cipher_suites = vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ];
        // What is recorded today may be decrypted by a quantum computer later: a client that has both gets the hybrid.
        let kx_groups = vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ];
        Self(Arc::new(CryptoProvider { cipher_suites, kx_groups, ..aws_lc_rs::default_provider() }))
    }
}

/// The certificates of a site: the first one whose kind of key the client can check. If there is none, any: then the handshake
/// fails for want of what both sides have, and the client is told so (`handshake_failure`), not that it has no access.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |held: &&Arc<CertifiedKey>| held.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(fits).or(self.0.first()).cloned()
    }
}

fn build(
    asked: &Asked,
    provider: &Arc<CryptoProvider>,
    keys: &Keys,
    now_unix_s: i64,
) -> Result<(Site, Vec<String>), String> {
    asked.front.check()?;
    let mut warnings = Vec::new();
    let mut not_after_unix_s = i64::MAX;
    let mut certified = Vec::new();
    for pem in &asked.certificates {
        let held = certified_key(pem, provider)?;
        let leaf = held.cert.first().ok_or("the file has no certificate")?;
        not_after_unix_s = not_after_unix_s.min(judge(leaf, &asked.hosts, now_unix_s, &mut warnings)?);
        certified.push(Arc::new(held));
    }
    if certified.is_empty() {
        return Err("it has no certificate".to_owned());
    }
    let versions = if asked.tls13_only { &[&TLS13][..] } else { DEFAULT_VERSIONS };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let builder = match client_roots(&asked.client_ca)? {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
            let verifier = if asked.client_certificate_required { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|error| format!("the clients' CAs: {error}"))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates(certified)));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // Tickets only: what one engine remembers, another does not have.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if asked.no_session_tickets {
        config.send_tls13_tickets = 0; // by default there is no ticketer
    } else {
        config.ticketer = Arc::new(Tickets::new(keys.clone(), sealed_for(asked)));
    }
    let theirs = Arc::new(config.clone());
    config.ignore_client_order = true;
    let (key, hosts) = (asked.key.clone(), asked.hosts.clone());
    let terms = (!asked.client_ca.is_empty()).then(|| sealed_for(asked));
    let front = (!asked.front.is_empty()).then(|| Arc::new(asked.front.clone()));
    let site = Site { key, hosts, ours: Arc::new(config), theirs, not_after_unix_s, terms, front };
    Ok((site, warnings))
}

/// What a ticket of this site is worth only for.
fn sealed_for(asked: &Asked) -> Vec<u8> {
    let authorities = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, &asked.client_ca);
    let mut text = asked.key.clone().into_bytes();
    text.push(u8::from(asked.client_certificate_required));
    text.extend_from_slice(authorities.as_ref());
    text
}

pub(super) fn certified_key(pem: &[u8], provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let held = key_of(pem, provider)?;
    match held.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(held),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err("the private key does not belong to the first certificate".to_owned())
        }
        Err(error) => Err(format!("the first certificate cannot be read: {error}")),
    }
}

/// Chain and key, without a look into the certificates.
pub(super) fn key_of(pem: &[u8], provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(pem).take(CHAIN_MAX + 1).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("the certificate is not PEM: {error}"))?;
    match chain.len() {
        0 => return Err("the file has no certificate".to_owned()),
        1..=CHAIN_MAX => {}
        _ => return Err(format!("there are more than {CHAIN_MAX} certificates in one chain")),
    }
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "the file has no private key")?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| "the private key has an unsupported type; use ECDSA (P-256, P-384), RSA or Ed25519")?;
    Ok(CertifiedKey::new(chain, key))
}

/// The end of a certificate; what somebody should know about it goes into `warnings`.
fn judge(
    leaf: &CertificateDer<'_>,
    hosts: &[String],
    now_unix_s: i64,
    warnings: &mut Vec<String>,
) -> Result<i64, String> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| "the first certificate cannot be read".to_owned())?;
    warnings.extend(judge_time(&parsed, now_unix_s));
    let names = names(&parsed);
    for host in hosts.iter().filter(|host| *host != "*" && !names.iter().any(|name| covers(name, host))) {
        warnings.push(format!("its certificate does not name {host}"));
    }
    Ok(parsed.validity().not_after.timestamp())
}

/// What is wrong with its time.
pub(super) fn judge_time(certificate: &X509Certificate<'_>, now_unix_s: i64) -> Option<String> {
    let validity = certificate.validity();
    if validity.not_after.timestamp() <= now_unix_s {
        Some(format!("its certificate has expired at {}", validity.not_after))
    } else if validity.not_before.timestamp() > now_unix_s {
        Some(format!("its certificate is not valid before {}", validity.not_before))
    } else {
        None
    }
}

/// Its DNS names, in their order and in lower case.
pub(super) fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| {
        if let GeneralName::DNSName(name) = name { Some(name.to_ascii_lowercase()) } else { None }
    };
    names.value.general_names.iter().filter_map(dns).collect()
}

/// RFC 6125, 6.4.3: a wildcard stands for one label.
fn covers(name: &str, host: &str) -> bool {
    let behind = |text: &str| text.split_once('.').map(|(_, rest)| rest.to_owned());
    name == host || name.strip_prefix("*.").is_some_and(|suffix| behind(host).as_deref() == Some(suffix))
}

fn client_roots(pem: &[u8]) -> Result<Option<RootCertStore>, String> {
    if pem.is_empty() { Ok(None) } else { roots(pem, "the clients' CAs").map(Some) }
}

/// Authorities, as PEM. `which`: what they are called.
pub(super) fn roots(pem: &[u8], which: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("{which} are not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("one of {which}: {error}"))?;
    }
    if roots.is_empty() {
        return Err(format!("there is no certificate among {which}"));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;

    use super::*;

    #[test]
    fn a_client_that_has_both_gets_the_hybrid_key_exchange() {
        let groups: Vec<_> = Provider::default().0.kx_groups.iter().map(|group| group.name()).collect();
        let first = [NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1];
        assert_eq!(groups, first);
    }
}
