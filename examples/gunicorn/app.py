"""A WSGI application."""

import os
import time

VERSION = os.environ.get("VERSION", "1.0.0")


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(2)
    body = f"shop {VERSION}\n".encode()
    headers = [
        ("Content-Type", "text/plain"),
        ("Content-Length", str(len(body))),
        ("X-Worker", str(os.getpid())),
    ]
    start_response("200 OK", headers)
    return [body]
