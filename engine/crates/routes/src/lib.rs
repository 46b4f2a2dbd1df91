//! The routing table of an engine: which claim matches a request, and which member gets it.
//!
//! A [`Table`] never changes after it was made. [`Table::apply`] gives the next one, which shares everything that a
//! delta did not touch, so that a change costs what is changed and not what is configured. Each worker thread holds an
//! `Arc<Table>`; what must outlive a table (requests in flight, health, counters) lives behind `Arc`s with atomics that
//! the next table takes over.
//!
//! The path of a request through this crate:
//! 1. entry: [`Table::route`] finds the most specific [`Route`] for host and path; [`Route::draw`] fixes the request's
//!    place in the shares of the versions; [`Route::pick`] takes a member ([`Picked`], which counts as in flight until
//!    dropped). A retry calls `pick` again with the same draw and the targets to avoid.
//! 2. below the entry: [`Table::stamped`] looks the whole stamp up; [`Group::pick`] takes one of that group's members.
//!
//! **Settings** of a service ([`Settings`]: balancing, limits, outliers) hold for all its groups, at entries and below; they live in a
//! [`Service`] that all tables share, so that a change of them touches no group.
//!
//! **Invariant:** no I/O, no clock, no global chance: time in milliseconds and [`Chance`] are passed in.

mod apply;
mod asked;
mod balance;
mod chance;
mod counters;
mod delta;
mod drain;
mod group;
mod load;
mod names;
mod outliers;
mod paths;
mod pattern;
mod places;
mod route;
mod service;
mod stripes;
mod table;
mod target;
mod waiting;

pub use asked::{AskedSnapshot, HEAD_BOUNDS_NS};
pub use chance::{Chance, Draw, Sequence, hash};
pub use counters::{GRPC_STATUSES, LATENCY_BOUNDS_MS, VersionCounters, VersionSnapshot};
pub use delta::{Delta, MemberPut, PickPut, RoutePut, ServicePut, TargetPut};
pub use drain::Draining;
pub use group::{Ask, Bound, Group, Member, MemberKey, Picked};
pub use names::Refused;
pub use outliers::Outliers;
pub use pattern::{HostPattern, PathPattern, Pattern};
pub use route::{Park, Pick, Route, Sticky, read_session};
pub use service::{Balance, Entered, HashBy, Outlier, ProxyProtocol, Service, ServiceLimits, Settings};
pub use stripes::{Striped, count_as};
pub use table::{Shared, Table};
pub use target::{Address, Ejected, Fault, Protocol, Target, TargetCounters, TargetKind};
pub use waiting::Waiter;
