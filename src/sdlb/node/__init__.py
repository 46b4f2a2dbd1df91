"""Runs the decisions of `sdlb.core` with asyncio: the event loop, the local API, health checks, the engine process."""
