"""One file for each outside thing; imported by `sdlb.node.compose` only."""
