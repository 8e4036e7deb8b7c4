"""Find mistakes in the settings when code is imported that will ask the process's limiter, and not with the first request.

Dependencies, decorators and throttles have no start of their own: they are made while the server imports the application. What is
wrong is raised there, so that the server does not start. Nothing is built: a limiter that is built too early would not know
settings that come later, nor survive a fork.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import RuleBook, rules_of
from sluicegate.infrastructure.settings import Settings, identifier_secret, read_settings
from sluicegate.infrastructure.storage_of_settings import build_storage
from sluicegate.infrastructure.traces_of_settings import traces_of

_SHARED_MEMORY: Final = "shm://"


def require_settings(rules: Sequence[RateLimitRule | str]) -> tuple[RateLimitRule, ...]:
    """Return some rules with the policies that they name, as far as the settings tell; policies are unknown without a rules file.

    Raises:
        InvalidInputError: If a setting or the rules file is wrong, or the file has no such policy.
    """
    book = _book_of(read_settings())
    if book is None:
        return tuple([rule for rule in rules if isinstance(rule, RateLimitRule)])
    return rules_of("rules", rules, book.policies) if rules else ()


@lru_cache(maxsize=1)
def _book_of(settings: Settings) -> RuleBook | None:
    """Return the rules of the file that the settings name; None: they name none."""
    if settings.storage_url.startswith(_SHARED_MEMORY):
        from sluicegate.infrastructure.shared_memory.location import location_of_url  # noqa: PLC0415 - not on every system

        location_of_url(settings.storage_url)  # the file is made by who uses it
    else:
        build_storage(settings)  # which connects to nothing
    traces_of(settings)
    KeyFormat(settings.key_prefix, identifier_secret=identifier_secret(settings))
    if not settings.rules_path:
        return None
    from sluicegate.infrastructure.rules_file.reader import read_rule_file  # noqa: PLC0415 - only needed with a rules file

    return read_rule_file(settings.rules_path).rules
