"""What the Python library accepts of what ajwt refuses: the rows on single tokens and keys of the tables in
docs/migrating-from-python.md and docs/security.md."""

import base64
import json
import logging
import sys
import time
import uuid
import warnings

import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "asymmetric_jwt_auth"],
    MIDDLEWARE=["asymmetric_jwt_auth.middleware.JWTAuthMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="tests only",
)
django.setup()
logging.disable()
warnings.simplefilter("ignore")

from asymmetric_jwt_auth import jwks  # noqa: E402
from asymmetric_jwt_auth.keys import Ed25519PrivateKey, PrivateKey, RSAPrivateKey  # noqa: E402
from asymmetric_jwt_auth.models import JWKSEndpointTrust, PublicKey  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import padding, rsa  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: E402
from cryptography.hazmat.primitives.hashes import SHA512  # noqa: E402
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.cache import cache  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402

urlpatterns = [path("", lambda request: HttpResponse(request.user if hasattr(request, "user") else "nobody"))]
client = Client(raise_request_exception=False)


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(key, payload, **header):
    is_rsa = isinstance(key, RSAPrivateKey)
    header = json.dumps({"alg": "RS512" if is_rsa else "EdDSA"} | header)
    payload = payload if isinstance(payload, bytes) else payload.encode()
    text = f"{base64url(header.encode())}.{base64url(payload)}"
    arguments = [padding.PKCS1v15(), SHA512()] if is_rsa else []
    return f"{text}.{base64url(key._key.sign(text.encode(), *arguments))}"


def claims(user, **others):
    return {"username": user.username, "time": int(time.time()), "nonce": uuid.uuid4().hex} | others


def add(name, *keys):
    user = User.objects.create(username=name)
    for key in keys:
        PublicKey.objects.create(user=user, key=key)
    return user


def text(key):
    return key.public_key.as_pem.decode()


def tell(what, token):
    response = client.get("/", headers={"Authorization": f"JWT {token}"})
    if response.status_code != 200:
        verdict = response.status_code
    else:
        verdict = "refused" if response.content == b"nobody" else "accepted"
    print(f"{what}: {verdict}")


def tell_of_set(what, key, *entries):
    user = add(what)
    sets[f"https://a.example/{user.pk}"] = {"keys": list(entries)}
    JWKSEndpointTrust.objects.create(user=user, jwks_url=f"https://a.example/{user.pk}")
    tell(what, sign(key, json.dumps(claims(user)), kid=key.public_key.fingerprint))


def file_of(pem):
    try:
        PrivateKey.load_pem(pem.encode())
        return "read"
    except ValueError:
        return "refused"


def jwk(key):
    try:
        return key.public_key.as_jwk["kty"]
    except NotImplementedError:
        return "an exception"


# The key sets of the URLs that users trust.
sets = {}
jwks._fetch_jwks = sets.__getitem__
call_command("migrate", verbosity=0)
key = Ed25519PrivateKey.generate()
user = add("guido", text(key))
tell("a good token", sign(key, json.dumps(claims(user))))
tell("a bad token", sign(Ed25519PrivateKey.generate(), json.dumps(claims(user))))
tell("a payload that is no JSON", sign(key, "no JSON"))
tell("a time with a fraction", sign(key, json.dumps(claims(user, time=time.time()))))
# Not 1, which is equal to true.
tell("a nonce that is a number", sign(key, json.dumps(claims(user, nonce=7))))
tell("a nonce that is true", sign(key, json.dumps(claims(user, nonce=True))))
tell("a nonce of 5000 bytes", sign(key, json.dumps(claims(user, nonce="n" * 5000))))
twice = json.dumps(claims(user)).replace("{", '{"username": "other", ', 1)
tell("a name twice", sign(key, twice))
tell("padded base64", sign(key, json.dumps(claims(user))) + "==")
tell("a time that is NaN", sign(key, json.dumps(claims(user, time=float("nan")))))
tell("a nonce that is a list", sign(key, json.dumps(claims(user, nonce=["n"]))))
tell("a time that is a list", sign(key, json.dumps(claims(user, time=[int(time.time())]))))
tell("a time that is a text", sign(key, json.dumps(claims(user, time=str(int(time.time()))))))
tell("a lone surrogate", sign(key, json.dumps(claims(user, more="\ud800"))))
tell("a byte order mark", sign(key, b"\xef\xbb\xbf" + json.dumps(claims(user)).encode()))
tell("UTF-16", sign(key, json.dumps(claims(user)).encode("utf-16")))
tell("Infinity", sign(key, json.dumps(claims(user, more=float("inf")))))
members = [("typ", None), ("typ", 1), ("typ", ["JWT"]), ("zip", "DEF"), ("enc", "A256GCM")]
members += [("b64", value) for value in [True, None, 0, "false", False]]
for name, value in members:
    token = sign(key, json.dumps(claims(user)), **{name: value})
    tell(f"{name} {json.dumps(value)}", token)
for audience in [None, "", [], {}, 0, False, 5, {"a": 1}, True]:
    tell(f"aud {json.dumps(audience)}", sign(key, json.dumps(claims(user, aud=audience))))
for name, seconds in [("exp", 10), ("nbf", -10), ("iat", -10)]:
    at = time.time() + seconds
    tell(f"{name} with a fraction", sign(key, json.dumps(claims(user, **{name: at}))))
    tell(f"{name} that is a text", sign(key, json.dumps(claims(user, **{name: str(int(at))}))))
tell("not before 10 s ahead", sign(key, json.dumps(claims(user, nbf=int(time.time()) + 10))))
once = sign(key, json.dumps(claims(user)))
tell("a token", once)
tell("the token again", once)
cache.clear()
tell("the token again, after its cache was emptied", once)
tell("issued 10 s ahead", sign(key, json.dumps(claims(user, iat=int(time.time()) + 10))))
control = add("guido\x01", text(key))
tell("a control character", sign(key, json.dumps(claims(control))))
inactive = add("inactive", text(key))
inactive.is_active = False
inactive.save()
tell("a user that is not active", sign(key, json.dumps(claims(inactive))))
for bits, exponent in [(1024, 65537), (2048, 3)]:
    weak = RSAPrivateKey(rsa.generate_private_key(public_exponent=exponent, key_size=bits))
    owner = add(f"{bits} {exponent}", text(weak))
    tell(f"RSA of {bits} bits, exponent {exponent}", sign(weak, json.dumps(claims(owner))))
mixed = add("mixed", "no key", text(key))
tell("a row that is no key before the right one", sign(key, json.dumps(claims(mixed))))
many = add("many", *[text(Ed25519PrivateKey.generate()) for _ in range(40)], text(key))
tell("the last of 41 keys", sign(key, json.dumps(claims(many))))
five = add("five", text(key), *[text(Ed25519PrivateKey.generate()) for _ in range(4)])
tell("the oldest of five keys, and no kid", sign(key, json.dumps(claims(five))))
published, other = RSAPrivateKey.generate(), RSAPrivateKey.generate().public_key.as_jwk
entry = published.public_key.as_jwk
tell_of_set("a key set", published, entry)
tell_of_set("a JWK whose alg is another", published, entry | {"alg": "RS256"})
tell_of_set("a JWK whose key_ops have no verify", published, entry | {"key_ops": ["encrypt"]})
tell_of_set("a JWK with padded numbers", published, entry | {"n": entry["n"] + "=="})
tell_of_set("a kid of two keys, for the first", published, entry, other | {"kid": entry["kid"]})
tell_of_set("a kid of two keys, for the second", published, other | {"kid": entry["kid"]}, entry)
tell_of_set("a key set of 101 keys", published, entry, *[other | {"kid": str(number)} for number in range(100)])
# Under the point of order 1, R = [s]B and s = 0 are a signature of any text.
small = add("small", text(Ed25519PrivateKey.generate()))
point = b"\x01" + bytes(31)
pem = Ed25519PublicKey.from_public_bytes(point).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
PublicKey.objects.filter(user=small).update(key=pem.decode())
unsigned = sign(key, json.dumps(claims(small))).rsplit(".", 1)[0]
tell("a token that nobody signed, under a point of small order", f"{unsigned}.{base64url(point + bytes(32))}")
private = key.as_pem.decode()
print(f"a file of a pair: {file_of(private + text(key))}")
print(f"a file of one line: {file_of(private.replace(chr(10), ''))}")
print(f"the JWK of an RSA key: {jwk(weak)}")
print(f"the JWK of an Ed25519 key: {jwk(key)}")
sys.stdout.flush()
