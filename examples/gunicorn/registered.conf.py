"""gunicorn's master process registers its workers as one instance and drains it before it stops."""

import os

from sdlb.sdk.gunicorn import hooks

bind = f"127.0.0.1:{os.environ.get('PORT', '8001')}"
worker_class = "gthread"
workers = 2
threads = 8
keepalive = 5
when_ready, on_exit = hooks(
    f"shop-{os.environ.get('VERSION', '1.0.0')}",
    routes=["example.com/*"],
    health="/health",
)
