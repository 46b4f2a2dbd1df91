//! Frames of the control socket: whatever they hold, a delta is applied as a whole or refused as a whole.

use std::{cell::RefCell, collections::BTreeSet, future::Future, pin::pin, sync::Arc, task};

use sdlb_engine::{
    convert, frame,
    proto::{ToEngine, to_engine::Kind},
    tls::sites::Registry,
};
use sdlb_routes::{Ask, Chance, Delta, Draining, MemberKey, Outliers, Shared, Table};

/// A moment at which the certificates of the seeds are valid.
const NOW_UNIX_S: i64 = 1_790_000_000;

/// Everything about a table and what drains that a refused delta could have left a trace in. The rest is immutable.
fn trace(table: &Table, draining: &Draining) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut targets: Vec<_> = table
        .targets()
        .map(|target| format!("{} {:?} {} {:?}", target.key(), target.kind(), target.address(), target.protocol()))
        .collect();
    targets.sort_unstable();
    (table.epoch(), table.route_count(), table.member_count(), targets, draining.counts())
}

fn applied_whole(table: &Table, delta: &Delta) {
    assert_eq!(table.epoch(), delta.epoch);
    let deleted: BTreeSet<&MemberKey> = delta.delete_members.iter().collect();
    for put in delta.put_members.iter().filter(|put| !deleted.contains(&put.key)) {
        let key = &put.key;
        let stamp = format!("{}/{} {}", key.service, key.version, key.pattern);
        let group = table.stamped(stamp.as_bytes()).unwrap();
        assert!(group.members().iter().any(|member| member.key() == key));
    }
    for put in delta.put_routes.iter().filter(|put| !delta.delete_routes.contains(&put.pattern)) {
        assert_eq!(**table.route_of(&put.pattern).unwrap().service(), *delta_service(delta, &put.pattern));
    }
    for key in &deleted {
        let stamp = format!("{}/{} {}", key.service, key.version, key.pattern);
        let members = table.stamped(stamp.as_bytes()).map_or(&[][..], |group| group.members());
        assert!(!members.iter().any(|member| member.key() == *key));
    }
    assert!(delta.delete_routes.iter().all(|pattern| table.route_of(pattern).is_none()));
}

/// The last put of a pattern holds.
fn delta_service<'a>(delta: &'a Delta, pattern: &str) -> &'a str {
    let last = delta.put_routes.iter().rfind(|put| put.pattern == pattern);
    last.map_or("", |put| &put.service)
}

/// What a request could meet.
fn pick(table: &Table) {
    let mut chance = Chance::new(7);
    for host in ["www.example", "a.b.example", "x"] {
        for path in ["/", "/catalog", "/catalog/7"] {
            if let Some(route) = table.route(host, path) {
                let ask = Ask { now_ms: 1_000, avoid: &[], key: None };
                drop(route.pick(route.draw(None), &ask, &mut chance));
                let ask = Ask { avoid: &[1], key: Some(7), ..ask };
                drop(route.pick(route.draw(Some(b"client")), &ask, &mut chance));
                drop(route.terms().enter(1));
            }
            let _ = table.serves_host(host);
        }
    }
}

/// Runs what is always ready.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut task::Context::from_waker(task::Waker::noop())) {
        task::Poll::Ready(value) => value,
        task::Poll::Pending => panic!("bytes in memory are always ready"),
    }
}

thread_local! {
    /// Its cipher suites are slow to set up.
    static SITES: RefCell<Registry> = RefCell::default();
}

/// Frames one behind the other, as control sends them.
pub fn run(mut raw: &[u8]) {
    let shared = Shared::new(|| {});
    let mut table = Arc::new(Table::new(shared));
    let mut draining = Draining::default();
    while let Ok(Some(ToEngine { kind: Some(kind) })) = ready(frame::read::<ToEngine>(&mut raw)) {
        match kind {
            Kind::Delta(delta) => {
                let Ok(delta) = convert::delta(delta) else { continue };
                let before = trace(&table, &draining);
                match table.apply(&delta, &mut draining) {
                    Ok(next) => {
                        applied_whole(&next, &delta);
                        table = Arc::new(next);
                        assert!(table.apply(&delta, &mut draining).is_err(), "epochs only grow");
                    }
                    Err(refused) => {
                        assert_eq!(before, trace(&table, &draining));
                        assert!(!refused.0.is_empty() && refused.0.chars().count() < 16_384, "{}", refused.0.len());
                    }
                }
                pick(&table);
                drop(Outliers::default().look(&table, 20_000));
                drop(draining.take_drained(table.epoch()));
            }
            Kind::Configure(configure) => {
                let _ = convert::limits(configure.limits);
                let identity = convert::identity(configure.identity, &configure.node, NOW_UNIX_S);
                let _ = convert::listeners(configure.listeners, identity.is_ok_and(|identity| identity.is_some()));
            }
            Kind::Sites(sites) => SITES.with_borrow_mut(|registry| {
                for site in sites.put {
                    let _ = registry.put(convert::site(site), NOW_UNIX_S);
                }
                registry.keep(&sites.keep);
                registry.publish();
            }),
            Kind::Challenges(asked) => {
                let _ = SITES.with_borrow(|registry| registry.challenge(convert::challenges(asked)));
            }
            Kind::Shutdown(_)
            | Kind::TicketKeys(_)
            | Kind::HandOver(_)
            | Kind::DrainClients(_)
            | Kind::Ping(_)
            | Kind::Cut(_) => {}
        }
    }
}
