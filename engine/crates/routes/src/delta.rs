//! A change of the table, as control asks for it.

use crate::{Address, MemberKey, Park, Protocol, Settings, Sticky, TargetKind};

/// Puts a target, or changes its address and protocol.
#[derive(Debug, Clone)]
pub struct TargetPut {
    /// `i:<instance id>` or `n:<node name>`.
    pub key: String,
    /// Instance or node.
    pub kind: TargetKind,
    /// Where it listens.
    pub address: Address,
    /// What it speaks.
    pub protocol: Protocol,
}

/// Puts a member, or changes its capacity.
#[derive(Debug, Clone)]
pub struct MemberPut {
    /// Which.
    pub key: MemberKey,
    /// At least 1.
    pub capacity: u32,
    /// Only when no other member can take the request.
    pub last_resort: bool,
    /// In another zone than this node.
    pub far: bool,
}

/// Sets what holds for a service.
#[derive(Debug, Clone)]
pub struct ServicePut {
    /// Its name.
    pub name: String,
    /// All of it.
    pub settings: Settings,
}

/// Puts what an entry does with a pattern.
#[derive(Debug, Clone)]
pub struct RoutePut {
    /// The pattern.
    pub pattern: String,
    /// The service.
    pub service: String,
    /// Its versions.
    pub picks: Vec<PickPut>,
    /// Whether requests wait.
    pub park: Option<Park>,
    /// What fixes a client's version.
    pub sticky: Sticky,
}

/// A version in a [`RoutePut`].
#[derive(Debug, Clone)]
pub struct PickPut {
    /// The version.
    pub version: String,
    /// Lower tiers first.
    pub tier: u32,
    /// 0: the sum of its ready capacities.
    pub weight: u32,
    /// Sessions that began on it end.
    pub ends_sessions: bool,
}

/// A change of the table. Order inside: targets, members, routes are put, then deleted.
#[derive(Debug, Clone, Default)]
pub struct Delta {
    /// Must be greater than the table's.
    pub epoch: u64,
    /// The whole state: what is not named is deleted.
    pub replace: bool,
    /// Targets to put.
    pub put_targets: Vec<TargetPut>,
    /// Members to put.
    pub put_members: Vec<MemberPut>,
    /// Routes to put.
    pub put_routes: Vec<RoutePut>,
    /// Members to delete.
    pub delete_members: Vec<MemberKey>,
    /// Patterns to delete.
    pub delete_routes: Vec<String>,
    /// Targets to delete.
    pub delete_targets: Vec<String>,
    /// Services to set something for.
    pub put_services: Vec<ServicePut>,
    /// Services for which nothing is set any more.
    pub delete_services: Vec<String>,
}
