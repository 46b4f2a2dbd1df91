"""One file for each external system; imported by `sdlb.node.compose` only."""
