//! `sdlb-engine`: see `sdlb-engine --help`.

fn main() {}
