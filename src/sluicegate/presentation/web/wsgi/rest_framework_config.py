"""An application of Django's that checks the settings when Django starts, before it imports any view."""

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.start_check import require_settings


class RateLimitConfig(AppConfig):
    """An entry of `INSTALLED_APPS`: a wrong setting stops the server, though views are imported with the first request."""

    name = "sluicegate.rest_framework"
    label = "sluicegate"

    def ready(self) -> None:
        """Check the settings.

        Raises:
            ImproperlyConfigured: If one is wrong, or the rules file is.
        """
        try:
            require_settings(())
        except InvalidInputError as error:
            raise ImproperlyConfigured(f"{error}") from error
