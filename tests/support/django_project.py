"""Django as the tests need it: configured once, with routes of each test's own."""

from typing import Any

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="support.django_project",
        SECRET_KEY="of a test",
        MIDDLEWARE=["sluicegate.django.RateLimitMiddleware"],
        INSTALLED_APPS=[],
        REST_FRAMEWORK={"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES": []},
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )
    django.setup()

urlpatterns: list[Any] = []


class Routes:
    """Routes in the place of a module of them."""

    def __init__(self, *patterns: Any) -> None:
        self.urlpatterns = list(patterns)
