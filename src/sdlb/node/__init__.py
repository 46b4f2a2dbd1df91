"""Runs the decisions of `sdlb.core` behind asyncio: one loop, the local API, health checks, the engine process."""
