"""Django's one application of a process, with the middleware inside, for WSGI and ASGI."""

import sys
from types import ModuleType
from typing import Any

import django
from django.conf import settings

from frameworks.routes import ROUTES, rules


def set_up() -> None:
    """Configure Django, once."""
    if settings.configured:
        return
    from django.http import HttpResponse  # noqa: PLC0415 - after the settings
    from django.urls import include, path, re_path  # noqa: PLC0415

    def view(name: str) -> Any:
        return lambda _, **__: HttpResponse(f"served:{name}")

    urls = ModuleType("matrix_urls")
    urls.urlpatterns = [  # type: ignore[attr-defined]
        *(path(_in_its_words(template)[1:], view(name)) for name, template in ROUTES.items()),
        path("sub/", include([re_path(r"^items/(?P<id>[^/]+)$", view("sub"))])),
    ]
    sys.modules["matrix_urls"] = urls
    named = {_in_its_words(endpoint): rule for endpoint, rule in rules().items()}
    named["GET /sub/items/(?P<id>[^/]+)$"] = named.pop("GET /sub/items/<id>")
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="matrix_urls",
        SECRET_KEY="of a test",
        MIDDLEWARE=["sluicegate.django.RateLimitMiddleware"],
        SLUICEGATE={"rules": named},
    )
    django.setup()


def _in_its_words(template: str) -> str:
    return template.replace("{id}", "<id>").replace("{n:int}", "<int:n>").replace("{rest:path}", "<path:rest>")
