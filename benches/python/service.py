"""The Python library in a Django project, for gunicorn. The database's file is AJWT_BENCH_DATABASE."""

import os

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["AJWT_BENCH_DATABASE"],
            # Connections stay open between requests.
            "CONN_MAX_AGE": None,
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "asymmetric_jwt_auth"],
    MIDDLEWARE=["asymmetric_jwt_auth.middleware.JWTAuthMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="benchmarks only",
    USE_TZ=True,
    ASYMMETRIC_JWT_AUTH={"TIMESTAMP_TOLERANCE": 300},
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402


def hello(request):
    user = getattr(request, "user", None)
    if user is None:
        return HttpResponse("unauthorized", status=401)
    return HttpResponse(f"hello, {user.username}")


urlpatterns = [path("hello", hello)]


def set_up(username, pem):
    """Makes the tables and a user with a key."""
    from asymmetric_jwt_auth.models import PublicKey
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    user = User.objects.create(username=username)
    PublicKey.objects.create(user=user, key=pem, comment="")


application = get_wsgi_application()
