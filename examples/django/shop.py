"""A Django project in one file: gunicorn shop:application"""

import os
import time

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

VERSION = os.environ.get("VERSION", "1.0.0")

settings.configure(
    ALLOWED_HOSTS=["example.com"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "for trials only"),
    # The node sets this field itself and drops what a client sent.
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
)


def index(request: HttpRequest) -> HttpResponse:
    headers = {"Content-Type": "text/plain", "X-Worker": str(os.getpid())}
    return HttpResponse(f"shop {VERSION}\n", headers=headers)


def slow(request: HttpRequest) -> HttpResponse:
    time.sleep(2)
    return index(request)


def health(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok\n", content_type="text/plain")


urlpatterns = [path("", index), path("slow", slow), path("health", health)]
application = get_wsgi_application()
