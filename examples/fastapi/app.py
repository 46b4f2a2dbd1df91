"""A FastAPI application."""

import asyncio
import os

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

VERSION = os.environ.get("VERSION", "1.0.0")
app = FastAPI()


@app.get("/")
async def index() -> PlainTextResponse:
    return PlainTextResponse(f"shop {VERSION}\n", headers={"X-Worker": str(os.getpid())})


@app.get("/slow")
async def slow() -> PlainTextResponse:
    await asyncio.sleep(2)
    return await index()


@app.get("/health")
async def health() -> PlainTextResponse:
    return PlainTextResponse("ok\n")
