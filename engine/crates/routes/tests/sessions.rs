//! Sessions on a version, and requests that end with the drain of their member.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use sdlb_routes::{
    Address, Ask, Chance, Delta, Draining, MemberKey, MemberPut, PickPut, Picked, Protocol, RoutePut, Shared, Sticky,
    Table, TargetKind, TargetPut, read_session,
};

const VERSIONS: [&str; 2] = ["1.0.1", "1.0.2"];

fn key(version: &str) -> MemberKey {
    MemberKey { service: "s".into(), version: version.into(), pattern: "/*".into(), target: "i:1".into() }
}

fn delta(epoch: u64, picks: Vec<PickPut>, served: &[&str]) -> Delta {
    let member = |version: &&str| MemberPut { key: key(version), capacity: 1000, last_resort: false, far: false };
    Delta {
        epoch,
        replace: true,
        put_targets: vec![TargetPut {
            key: "i:1".into(),
            kind: TargetKind::Instance,
            address: Address::parse("127.0.0.1:1").unwrap(),
            protocol: Protocol::Http1,
        }],
        put_members: served.iter().map(member).collect(),
        put_routes: vec![RoutePut {
            pattern: "/*".into(),
            service: "s".into(),
            picks,
            park: None,
            sticky: Sticky::Session("sdlb-s".into()),
        }],
        ..Delta::default()
    }
}

fn put(version: &str, tier: u32, weight: u32, ends_sessions: bool) -> PickPut {
    PickPut { version: version.into(), tier, weight, ends_sessions }
}

fn table(picks: Vec<PickPut>) -> Table {
    Table::new(Shared::new(|| ())).apply(&delta(1, picks, &VERSIONS), &mut Draining::default()).unwrap()
}

/// The next request of a client: what it had of its session before, and gets.
fn next(table: &Table, chance: &mut Chance, session: &mut Option<String>) -> String {
    let route = table.route("example.com", "/").unwrap();
    let draw = route.draw(session.as_ref().map(String::as_bytes));
    let picked = route.pick(draw, &Ask { now_ms: 0, avoid: &[], key: None }, chance).unwrap();
    *session = Some(format!("{:016x}", picked.group().session()));
    picked.group().version().to_string()
}

fn begin(table: &Table) -> Picked {
    let route = table.route("example.com", "/").unwrap();
    route.pick(route.draw(None), &Ask { now_ms: 0, avoid: &[], key: None }, &mut Chance::new(1)).unwrap()
}

proptest! {
    /// At two entries that know nothing of each other, while the share grows: no session changes its version, and the new clients at
    /// each entry are placed by the share exactly, however many requests the sessions make in between.
    #[test]
    fn sessions_stay_while_shares_grow(shares in prop::collection::vec(0..=100_u32, 1..6), others in 0..40_usize) {
        let mut shares = shares;
        shares.sort_unstable();
        let mut chance = Chance::new(3);
        let mut sessions: Vec<(String, Option<String>)> = Vec::new();
        for share in shares {
            let new = if share == 0 { put("1.0.2", 1, 0, false) } else { put("1.0.2", 0, share, false) };
            let old = if share == 100 { put("1.0.1", 1, 0, false) } else { put("1.0.1", 0, 100 - share, false) };
            let entries = [table(vec![old.clone(), new.clone()]), table(vec![old, new])];
            for entry in &entries {
                let mut got_new = 0;
                for number in 0..100 {
                    let mut session = None;
                    let version = next(entry, &mut chance, &mut session);
                    got_new += u32::from(version == "1.0.2");
                    if number < others {
                        sessions.push((version, session));
                    }
                    for (version, session) in sessions.iter_mut().rev().take(3) {
                        prop_assert_eq!(&next(&entries[number % 2], &mut chance, session), version);
                    }
                }
                prop_assert!(got_new.abs_diff(share) <= 4, "{got_new} of 100 is not {share}");
            }
        }
    }
}

#[test]
fn a_session_ends_with_its_version_or_when_that_ends_sessions() {
    let both = table(vec![put("1.0.1", 0, 0, false), put("1.0.2", 0, 0, false)]);
    let mut chance = Chance::new(5);
    let mut session = None;
    while next(&both, &mut chance, &mut session) != "1.0.2" {
        session = None;
    }
    let taken_back = table(vec![put("1.0.1", 0, 0, false), put("1.0.2", 1, 0, true)]);
    assert_eq!(next(&taken_back, &mut chance, &mut session.clone()), "1.0.1");
    let last = table(vec![put("1.0.1", 0, 0, false), put("1.0.2", 1, 0, false)]);
    assert_eq!(next(&last, &mut chance, &mut session.clone()), "1.0.2", "it has no share, and is active");
    let gone = Table::new(Shared::new(|| ()));
    let picks = vec![put("1.0.1", 0, 0, false), put("1.0.2", 0, 0, false)];
    let gone = gone.apply(&delta(1, picks, &VERSIONS[..1]), &mut Draining::default()).unwrap();
    assert_eq!(next(&gone, &mut chance, &mut session), "1.0.1", "nothing serves it any more");
    assert_eq!(next(&both, &mut chance, &mut session), "1.0.1", "it began anew");
}

#[test]
fn what_no_entry_has_set_is_no_session() {
    for value in [&b""[..], b"0000000000000000", b"1.0.2", b"zzzzzzzzzzzzzzzz", b"\xff"] {
        assert!(read_session(value) == 0, "{value:?}");
    }
}

/// A draining member ends what began before, and nothing else; so does one that is still in the table.
#[test]
fn a_cut_ends_what_began_before_it() {
    let table = table(vec![put("1.0.1", 0, 0, false)]);
    let picked = begin(&table);
    let mut draining = Draining::default();
    let next = table.apply(&delta(2, vec![], &[]), &mut draining).unwrap();
    assert!(!picked.is_cut(true, || 5));
    assert!(next.cut(&draining, &key("1.0.1"), 10, true));
    assert!(picked.is_cut(true, || 10) && !picked.is_cut(false, || 5) && !picked.is_cut(true, || 11));
    assert!(next.cut(&draining, &key("1.0.1"), 20, false));
    assert!(picked.is_cut(false, || 20) && !picked.is_cut(false, || 21));
    assert!(!next.cut(&draining, &key("1.0.3"), 20, false), "nothing by this name is there");

    let other = begin(&table);
    assert!(table.cut(&Draining::default(), &key("1.0.1"), 30, false) && other.is_cut(false, || 30));
}
