"""The application registers itself: python registered.py"""

import os

import uvicorn
from app import VERSION, app
from fastapi import FastAPI

import sdlb

port = int(os.environ.get("PORT", "8001"))
shop = FastAPI(
    lifespan=sdlb.lifespan(f"shop-{VERSION}", routes=["example.com/*"], port=port, health="/health"),
)
shop.include_router(app.router)

if __name__ == "__main__":
    uvicorn.run(shop, host="127.0.0.1", port=port)
