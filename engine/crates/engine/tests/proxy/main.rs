//! The data path of a real engine between raw sockets.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod distrust;
mod headers;
mod health;
mod leaving;
mod limits;
mod members;
mod nodes;
mod parking;
mod pooling;
mod streams;
mod upgrades;
mod wire;
mod world;
