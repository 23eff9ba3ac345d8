"""The Python library as a peer: a line of JSON in, a line of JSON out.

It uses the library as its users do: its own Token, keys, and Django middleware, with its default
settings. An argument is the JSON of Django's settings for a database; without it that is in memory.
"""

import importlib.util
import json
import sys
import threading
from datetime import datetime, timedelta, timezone
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from socketserver import ThreadingMixIn

import asymmetric_jwt_auth
import django
from django.conf import settings

# Stands in for mysqlclient, which needs a C compiler and headers.
if importlib.util.find_spec("pymysql"):
    importlib.import_module("pymysql").install_as_MySQLdb()

IN_MEMORY = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": "file:interop?mode=memory&cache=shared",
}

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    DATABASES={"default": json.loads(sys.argv[1]) if len(sys.argv) > 1 else IN_MEMORY},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "asymmetric_jwt_auth"],
    MIDDLEWARE=["asymmetric_jwt_auth.middleware.JWTAuthMiddleware"],
    ROOT_URLCONF=__name__,
    # The library needs all of them where there is one; publish changes SIGNING_PUBLIC_KEYS.
    ASYMMETRIC_JWT_AUTH=dict(asymmetric_jwt_auth.default_settings),
    SECRET_KEY="tests only",
    # Not that of the database: what is stored must not depend on it.
    TIME_ZONE="America/Chicago",
    USE_TZ=True,
)
django.setup()

from asymmetric_jwt_auth import keys  # noqa: E402
from asymmetric_jwt_auth.models import JWKSEndpointTrust, PublicKey  # noqa: E402
from asymmetric_jwt_auth.tokens import Token  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402


def hello(request):
    # The middleware sets request.user for good tokens only.
    user = getattr(request, "user", None)
    if user is None:
        return HttpResponse("unauthorized", status=401)
    return HttpResponse(f"hello, {user.username}")


urlpatterns = [path("hello", hello), path("", include("asymmetric_jwt_auth.urls"))]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


def generate(request):
    """Makes a key of the library's own."""
    if request["type"] == "ed25519":
        private = keys.Ed25519PrivateKey.generate()
    else:
        private = keys.RSAPrivateKey.generate(size=request["bits"])
    return describe(private.public_key) | {"private_pem": private.as_pem.decode()}


def describe(public):
    is_rsa = isinstance(public, keys.RSAPublicKey)
    return {
        "public_pem": public.as_pem.decode(),
        "fingerprint": public.fingerprint,
        # The library has none for Ed25519: it raises.
        "jwk": public.as_jwk if is_rsa else None,
    }


def load_public(request):
    error, public = keys.PublicKey.load_serialized_public_key(request["text"].encode())
    return {"error": str(error)} if public is None else describe(public)


def load_private(request):
    password = request.get("password")
    private = keys.PrivateKey.load_pem(request["pem"].encode(), password and password.encode())
    return describe(private.public_key)


def sign(request):
    private = keys.PrivateKey.load_pem(request["private_pem"].encode())
    return {"authorization": Token(request["username"]).create_auth_header(private)}


def add_user(request):
    user, _ = User.objects.get_or_create(username=request["username"])
    PublicKey(user=user, key=request["key"]).save()
    return {}


def create_user(request):
    User.objects.create_user(request["username"], is_active=request.get("active", True))
    return {}


def set_active(request):
    User.objects.filter(username=request["username"]).update(is_active=request["active"])
    return {}


def add_trust(request):
    user = User.objects.get(username=request["username"])
    return {"id": JWKSEndpointTrust.objects.create(user=user, jwks_url=request["url"]).pk}


def publish(request):
    """Publishes these public keys at the library's own URL."""
    keys = [key.encode() for key in request["keys"]]
    settings.ASYMMETRIC_JWT_AUTH["SIGNING_PUBLIC_KEYS"] = keys
    return {"path": "/.well-known/jwks.json"}


def use_keys(request):
    """Notes a use of each key, as the library does it."""
    for key in PublicKey.objects.filter(user__username=request["username"]):
        key.update_last_used_datetime()
    return records(request)


def records(request):
    """What Django has of a user."""
    user = User.objects.get(username=request["username"])
    keys = [
        {"id": key.pk, "key": key.key, "comment": key.comment} | last_use(key)
        for key in user.public_keys.order_by("pk")
    ]
    trusts = [
        {"id": trust.pk, "url": trust.jwks_url} | last_use(trust)
        for trust in JWKSEndpointTrust.objects.filter(user=user)
    ]
    return {"active": user.is_active, "keys": keys, "trusts": trusts}


def last_use(row):
    used = row.last_used_on
    if used is None:
        return {"last_used_on": None}
    # A naive time would raise here.
    micros = (used - datetime.fromtimestamp(0, timezone.utc)) // timedelta(microseconds=1)
    # Some databases compare times as texts: then it must be Django's own spelling.
    same = type(row).objects.filter(pk=row.pk, last_used_on=used)
    not_later = type(row).objects.filter(pk=row.pk, last_used_on__gt=used)
    return {"last_used_on": micros, "found_by_it": same.exists() and not not_later.exists()}


def serve(request):
    server = make_server("127.0.0.1", 0, get_wsgi_application(), Server, Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return {"url": f"http://127.0.0.1:{server.server_port}/hello"}


call_command("migrate", verbosity=0)
ACTIONS = [
    generate,
    load_public,
    load_private,
    sign,
    add_user,
    create_user,
    set_active,
    add_trust,
    publish,
    use_keys,
    records,
    serve,
]
by_name = {action.__name__: action for action in ACTIONS}
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(by_name[request["action"]](request)), flush=True)
