//! Between the messages of engine.proto and the values of this engine.

use std::{net::SocketAddr, time::Duration};

use sdlb_routes::{
    Address, Balance, Delta, GRPC_STATUSES, HashBy, MemberKey, MemberPut, Outlier, Park, PickPut, Protocol,
    ProxyProtocol, Refused, RoutePut, ServiceLimits, ServicePut, Settings, Sticky, TargetCounters, TargetKind,
    TargetPut, VersionSnapshot,
};

use crate::{
    front::{Front, Page, Redirect},
    networks::Networks,
    proto,
    rate::Rate,
    settings::{Hardening, Limits, ListenerKind},
    tls::{challenges, identity::Identity, sites},
};

/// A client may save up for a burst of so many seconds, unless it is said how many requests.
const BURST_S: u32 = 2;
/// With less an engine has hardly room for itself.
const MEMORY_MB_MIN: u32 = 32;

/// A delta as the table takes it.
///
/// # Errors
/// [`Refused`] with the part that is missing or malformed.
pub fn delta(delta: proto::Delta) -> Result<Delta, Refused> {
    Ok(Delta {
        epoch: delta.epoch,
        replace: delta.replace,
        put_targets: delta.put_targets.into_iter().enumerate().map(target).collect::<Result<_, _>>()?,
        put_members: delta.put_members.into_iter().map(member).collect::<Result<_, _>>()?,
        put_routes: delta.put_routes.into_iter().map(route).collect::<Result<_, _>>()?,
        delete_members: delta.delete_members.into_iter().map(member_key).collect(),
        delete_routes: delta.delete_routes,
        delete_targets: delta.delete_targets,
        put_services: delta.put_services.into_iter().map(service).collect::<Result<_, _>>()?,
        delete_services: delta.delete_services,
    })
}

fn target((index, put): (usize, proto::Target)) -> Result<TargetPut, Refused> {
    // Its place as well: the key may be what is wrong.
    let refused = |problem: &str| Refused(format!("put_targets[{index}]: target {:?}: {problem}", put.key));
    let kind = match proto::target::Kind::try_from(put.kind) {
        Ok(proto::target::Kind::Instance) => TargetKind::Instance,
        Ok(proto::target::Kind::Node) => TargetKind::Node,
        Err(_) => return Err(refused(&format!("kind {} is not supported in this version", put.kind))),
    };
    let address = Address::parse(&put.address).map_err(|Refused(problem)| refused(&problem))?;
    let protocol = match proto::target::Protocol::try_from(put.protocol) {
        Ok(proto::target::Protocol::Http1) => Protocol::Http1,
        Ok(proto::target::Protocol::H2c) => Protocol::Http2,
        Err(_) => return Err(refused(&format!("protocol {} is not supported in this version", put.protocol))),
    };
    Ok(TargetPut { key: put.key, kind, address, protocol })
}

fn member(put: proto::Member) -> Result<MemberPut, Refused> {
    let key = put.key.ok_or_else(|| Refused("an endpoint has no key".to_owned()))?;
    Ok(MemberPut { key: member_key(key), capacity: put.capacity, last_resort: put.last_resort, far: put.far })
}

fn service(put: proto::Service) -> Result<ServicePut, Refused> {
    use proto::balance::{Algorithm, By};
    let refused = |problem: String| Refused(format!("service {:?}: {problem}", put.name));
    let proxy_protocol = match put.proxy_protocol() {
        proto::service::ProxyProtocol::Off => ProxyProtocol::Off,
        proto::service::ProxyProtocol::V1 => ProxyProtocol::V1,
        proto::service::ProxyProtocol::V2 => ProxyProtocol::V2,
    };
    let asked = put.balance.unwrap_or_default();
    let name = || match asked.hash_name.as_str() {
        "" => Err(refused("a hash of a cookie or header needs a name".to_owned())),
        name => Ok(name.into()),
    };
    let balance = match Algorithm::try_from(asked.algorithm) {
        Ok(Algorithm::LeastRequests) => Balance::LeastRequests,
        Ok(Algorithm::PeakEwma) => Balance::PeakEwma,
        Ok(Algorithm::Prequal) => Balance::Prequal,
        Ok(Algorithm::RoundRobin) => Balance::RoundRobin,
        Ok(Algorithm::Hash) => Balance::Hash(match By::try_from(asked.hash_by) {
            Ok(By::Client) => HashBy::Client,
            Ok(By::Header) => HashBy::Header(name()?),
            Ok(By::Cookie) => HashBy::Cookie(name()?),
            Ok(By::Path) => HashBy::Path,
            Err(_) => return Err(refused(format!("a hash by {} is not supported in this version", asked.hash_by))),
        }),
        Err(_) => return Err(refused(format!("algorithm {} is not supported in this version", asked.algorithm))),
    };
    let outlier = put.outlier.unwrap_or_default();
    let limits = put.limits.unwrap_or_default();
    let settings = Settings {
        balance,
        hash_load_percent: match asked.hash_load_percent {
            0 => Settings::default().hash_load_percent,
            percent => percent.max(100),
        },
        slow_start_ms: asked.slow_start_ms,
        near_first: asked.near_first,
        limits: ServiceLimits {
            in_flight: limits.in_flight,
            endpoint_in_flight: limits.endpoint_in_flight,
            endpoint_connections: limits.endpoint_connections,
            pending: limits.pending,
            pending_timeout_ms: limits.pending_timeout_ms,
            adaptive: limits.adaptive,
        },
        body_bytes: limits.body_bytes,
        outlier: Outlier {
            success_deviations_percent: outlier.success_deviations_percent,
            latency_factor_percent: outlier.latency_factor_percent,
            ejected_percent_max: outlier.ejected_percent_max,
            interval_ms: outlier.interval_ms,
            requests_min: outlier.requests_min,
        },
        timeout_ms: put.timeout_ms,
        try_timeout_ms: put.try_timeout_ms,
        hedge_ms: put.hedge_ms,
        retries_max: put.retries_max.unwrap_or(u32::MAX),
        keep_encoded_slash: put.keep_encoded_slash,
        proxy_protocol,
    };
    Ok(ServicePut { name: put.name, settings })
}

/// A member's name as this engine knows it.
#[must_use]
pub fn member_key(key: proto::MemberKey) -> MemberKey {
    MemberKey {
        service: key.service.into(),
        version: key.version.into(),
        pattern: key.pattern.into(),
        target: key.target.into(),
    }
}

fn route(put: proto::Route) -> Result<RoutePut, Refused> {
    let sticky = put.sticky.unwrap_or_default();
    let name = || match sticky.name.as_str() {
        "" => Err(Refused(format!("route {:?}: sticky by a cookie or header needs a name", put.pattern))),
        name => Ok(name.into()),
    };
    let sticky = match sticky.by() {
        proto::sticky::By::None => Sticky::None,
        proto::sticky::By::Cookie => Sticky::Cookie(name()?),
        proto::sticky::By::Header => Sticky::Header(name()?),
        proto::sticky::By::Client => Sticky::Client,
        proto::sticky::By::Session => Sticky::Session(name()?),
    };
    let pick = |pick: proto::Pick| PickPut {
        version: pick.version,
        tier: pick.tier,
        weight: pick.weight,
        ends_sessions: pick.ends_sessions,
    };
    Ok(RoutePut {
        picks: put.picks.into_iter().map(pick).collect(),
        park: put.park.map(|park| Park { requests_max: park.requests_max, timeout_ms: park.timeout_ms }),
        sticky,
        pattern: put.pattern,
        service: put.service,
    })
}

/// A member's name as control knows it.
#[must_use]
pub fn to_key(key: &MemberKey) -> proto::MemberKey {
    proto::MemberKey {
        service: key.service.to_string(),
        version: key.version.to_string(),
        pattern: key.pattern.to_string(),
        target: key.target.to_string(),
    }
}

/// Members that drain, as control counts them.
#[must_use]
pub fn to_counts(counts: Vec<(MemberKey, u32)>) -> Vec<proto::MemberCount> {
    counts.into_iter().map(|(key, in_flight)| proto::MemberCount { key: Some(to_key(&key)), in_flight }).collect()
}

/// Limits, with the defaults in place of zeros.
#[must_use]
pub fn limits(asked: Option<proto::Limits>) -> Limits {
    let asked = asked.unwrap_or_default();
    let default = Limits::default();
    let number = |asked: u32, default: usize| if asked == 0 { default } else { asked as usize };
    let time = |asked: u32, default| if asked == 0 { default } else { Duration::from_millis(asked.into()) };
    Limits {
        head_bytes: number(asked.head_bytes, default.head_bytes),
        fields: number(asked.fields, default.fields),
        connect_timeout: time(asked.connect_timeout_ms, default.connect_timeout),
        head_timeout: time(asked.head_timeout_ms, default.head_timeout),
        idle_timeout: time(asked.idle_timeout_ms, default.idle_timeout),
        body_timeout: time(asked.body_timeout_ms, default.body_timeout),
        body_bytes_per_s: match asked.body_bytes_per_s {
            0 => default.body_bytes_per_s,
            bytes => bytes,
        },
        response_timeout: time(asked.response_timeout_ms, default.response_timeout),
        response_idle_timeout: time(asked.response_idle_timeout_ms, default.response_idle_timeout),
        event_stream_idle_timeout: time(asked.event_stream_idle_timeout_ms, default.event_stream_idle_timeout),
        upgrade_idle_timeout: time(asked.upgrade_idle_timeout_ms, default.upgrade_idle_timeout),
        connections: number(asked.connections, default.connections),
        retry_budget_percent: match asked.retry_budget_percent {
            0 => default.retry_budget_percent,
            percent => percent.min(100),
        },
        body_bytes: Some(asked.body_bytes).filter(|bytes| *bytes != 0),
        connections_per_address: Some(asked.connections_per_address).filter(|connections| *connections != 0),
        rate_per_address: Some(asked.requests_per_s_per_address).filter(|per_s| *per_s != 0).map(|per_s| Rate {
            per_s,
            burst: match asked.requests_burst_per_address {
                0 => per_s.saturating_mul(BURST_S),
                burst => burst,
            },
        }),
        handshake_timeout: time(asked.handshake_timeout_ms, default.handshake_timeout),
        handshakes: number(asked.handshakes, default.handshakes),
        http2_streams: if asked.http2_streams == 0 { default.http2_streams } else { asked.http2_streams },
        memory_bytes: match asked.memory_mb {
            0 => None,
            megabytes => Some((megabytes.max(MEMORY_MB_MIN) as usize) << 20),
        },
    }
}

/// A listener as asked for, not yet bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerAsked {
    /// Its name.
    pub key: String,
    /// Where; the port may be 0.
    pub address: SocketAddr,
    /// Who connects.
    pub kind: ListenerKind,
    /// The hardened preset.
    pub public: bool,
    /// How strict it is with clients.
    pub hardening: Hardening,
    /// Clients speak TLS; nodes mutual TLS.
    pub tls: bool,
    /// Proxies in front of it that are believed.
    pub trusted: Networks,
}

/// The listeners. `identity`: this node has one.
///
/// # Errors
/// One sentence that names the listener.
pub fn listeners(asked: Vec<proto::Listener>, identity: bool) -> Result<Vec<ListenerAsked>, String> {
    let all = asked.into_iter().map(listener).collect::<Result<Vec<_>, _>>()?;
    match all.iter().find(|listener| listener.kind == ListenerKind::Node && listener.tls && !identity) {
        Some(listener) => Err(format!("listener {:?}: TLS between nodes needs an identity", listener.key)),
        None => Ok(all),
    }
}

fn listener(asked: proto::Listener) -> Result<ListenerAsked, String> {
    let kind = match asked.kind() {
        proto::listener::Kind::Entry => ListenerKind::Entry,
        proto::listener::Kind::Node => ListenerKind::Node,
    };
    if asked.key.is_empty() {
        return Err(format!("the listener on {:?} has no key", asked.address));
    }
    let address = asked
        .address
        .parse()
        .map_err(|_| format!("listener {:?}: address {:?}: expected IP:port", asked.key, asked.address))?;
    let trusted = Networks::parse(asked.trusted_proxies.iter().map(String::as_str))
        .map_err(|text| format!("listener {:?}: trusted proxy {text:?}: expected a network: 10.0.0.0/8", asked.key))?;
    let hardening = asked.hardening.map_or(Hardening::of(asked.public), |asked| Hardening {
        refuse_encoded_paths: asked.refuse_encoded_paths,
        drop_underscore_fields: asked.drop_underscore_fields,
        replace_request_ids: asked.replace_request_ids,
        handshakes_per_address: asked.handshakes_per_address,
        redirect_to_https: asked.redirect_to_https,
        hsts_s: asked.hsts_s,
    });
    Ok(ListenerAsked { key: asked.key, address, kind, public: asked.public, hardening, tls: asked.tls, trusted })
}

/// This node's own certificate, ready for use.
///
/// # Errors
/// One sentence about what is wrong with it.
pub fn identity(asked: Option<proto::Identity>, node: &str, now_unix_s: i64) -> Result<Option<Identity>, String> {
    let Some(asked) = asked else { return Ok(None) };
    let identity = Identity::new(&asked.pem, &asked.ca_pem, node, now_unix_s);
    identity.map(Some).map_err(|error| format!("identity: {error}"))
}

/// What is told about it.
#[must_use]
pub fn to_configured(identity: Option<&Identity>) -> proto::Configured {
    proto::Configured {
        identity_not_after_unix_s: identity.map_or(0, |identity| identity.not_after_unix_s),
        identity_warnings: identity.map_or_else(Vec::new, |identity| identity.warnings.clone()),
        ..Default::default()
    }
}

/// Open challenges of CAs.
#[must_use]
pub fn challenges(asked: proto::Challenges) -> Vec<challenges::Asked> {
    let http = asked.http.into_iter().map(|each| challenges::Asked::Http {
        host: each.host,
        token: each.token,
        content: each.content,
    });
    let tls = asked
        .tls
        .into_iter()
        .map(|each| challenges::Asked::Tls { host: each.host, pem: each.certificate.unwrap_or_default().pem.to_vec() });
    http.chain(tls).collect()
}

/// A site.
#[must_use]
pub fn site(site: proto::Site) -> sites::Asked {
    sites::Asked {
        key: site.key,
        hosts: site.hosts,
        certificates: site.certificates.into_iter().map(|certificate| certificate.pem.to_vec()).collect(),
        client_ca: site.client_ca_pem.to_vec(),
        client_certificate_required: site.client_certificate_required,
        tls13_only: site.tls13_only,
        no_session_tickets: site.no_session_tickets,
        front: Front {
            redirects: site.redirects.into_iter().map(|it| Redirect { prefix: it.prefix, target: it.target }).collect(),
            fields: site.fields.into_iter().map(|it| (it.name, it.value)).collect(),
            pages: site.error_pages.into_iter().map(page).collect(),
        },
    }
}

fn page(page: proto::ErrorPage) -> Page {
    let status = |status: u32| u16::try_from(status).unwrap_or(u16::MAX);
    Page { statuses: status(page.status_from)..=status(page.status_to), html: page.html.to_vec() }
}

/// A row of the statistics.
#[must_use]
pub fn to_group_stats(service: &str, version: &str, counted: &VersionSnapshot) -> proto::GroupStats {
    let asked = counted.asked.as_deref();
    let [status_1xx, status_2xx, status_3xx, status_4xx, status_5xx] = counted.status;
    proto::GroupStats {
        service: service.to_owned(),
        version: version.to_owned(),
        requests: counted.requests,
        status_1xx,
        status_2xx,
        status_3xx,
        status_4xx,
        status_5xx,
        failed: counted.failed,
        retries: counted.retries,
        parked: counted.parked,
        latency_buckets: counted.latency.to_vec(),
        latency_us_sum: counted.latency_us_sum,
        grpc_status: if counted.grpc_status == [0; GRPC_STATUSES] { Vec::new() } else { counted.grpc_status.to_vec() },
        asked: asked.map_or(0, |asked| asked.requests),
        answers: asked.map_or_else(Vec::new, |asked| asked.answers.to_vec()),
        broken: asked.map_or(0, |asked| asked.broken),
        unreached: asked.map_or(0, |asked| asked.unreached),
        grpc_errors: asked.map(|asked| asked.grpc_errors),
        head_buckets: asked.map_or_else(Vec::new, |asked| asked.heads.to_vec()),
        head_us_sum: asked.map_or(0, |asked| asked.head_us_sum),
    }
}

/// A row of the statistics.
#[must_use]
pub fn to_target_stats(target: &str, counters: &TargetCounters) -> proto::TargetStats {
    use std::sync::atomic::Ordering::Relaxed;
    proto::TargetStats {
        target: target.to_owned(),
        requests: counters.requests(),
        connects: counters.connects.load(Relaxed),
        connect_failures: counters.connect_failures.load(Relaxed),
        failures: counters.failures.load(Relaxed),
        in_flight: counters.in_flight(),
        idle_connections: counters.idle_connections(),
    }
}
