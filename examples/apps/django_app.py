"""A Django application in one file. Rules name routes as Django does, after a slash.

Run: `python examples/apps/django_app.py 8000`, then `curl -i http://127.0.0.1:8000/items/1/` four times.
"""

import sys
from wsgiref.simple_server import make_server

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, JsonResponse
from django.urls import path

from sluicegate import RateLimitRule

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of an example",  # noqa: S106 - it guards nothing
    MIDDLEWARE=["sluicegate.django.RateLimitMiddleware"],
    SLUICEGATE={
        "rules": {"GET /items/<int:item_id>/": RateLimitRule.parse("3/minute"), "*": RateLimitRule.parse("300/minute")},
        "exempt": ["/health/"],
    },
)
django.setup()


def item(_: HttpRequest, item_id: int) -> JsonResponse:
    """Read an item."""
    return JsonResponse({"item": item_id})


urlpatterns = [path("items/<int:item_id>/", item)]

if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), WSGIHandler()).serve_forever()
