"""The settings, as commands read them."""

from sluicegate.infrastructure.settings import Settings, doubtful_names, read_settings
from sluicegate.presentation.cli.terminal import write_error


def settings_of_environment() -> Settings:
    """Return the settings, and write a line about each variable that looks like a setting and is none.

    Raises:
        InvalidInputError: If a setting is invalid.
    """
    settings = read_settings()
    for warning in doubtful_names():
        write_error(warning)
    return settings
