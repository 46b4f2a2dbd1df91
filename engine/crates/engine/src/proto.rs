//! The messages of `proto/engine.proto`.
#![allow(missing_docs, clippy::pedantic, reason = "generated; the meanings are in engine.proto")]

include!(concat!(env!("OUT_DIR"), "/sdlb.engine.v1.rs"));
