"""Settings from the environment, and the limiter that they make."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sluicegate import InvalidInputError, RateLimitProtocol, container
from sluicegate.infrastructure.settings import Settings, read_settings


def test_the_defaults_need_no_server() -> None:
    """An empty environment is the embedded storage, 50 ms, and open."""
    assert read_settings({}) == Settings()
    assert Settings().storage_url == "memory://"


def test_every_variable_is_read() -> None:
    """The variables of the contract, and those about proxies."""
    settings = read_settings(
        {
            "SLUICEGATE_STORAGE_URL": "valkey+sentinel://10.0.0.1:26379/main",
            "SLUICEGATE_RULES": "rules.toml",
            "SLUICEGATE_DEADLINE_MS": "25",
            "SLUICEGATE_ON_STORAGE_ERROR": "local",
            "SLUICEGATE_KEY_PREFIX": "shop",
            "SLUICEGATE_TRUSTED_PROXIES": "10.0.0.0/8, unix,",
            "SLUICEGATE_FORWARDED_HEADER": "X-Forwarded-For",
            "SLUICEGATE_TRUSTED_HOPS": "2",
        }
    )
    assert settings.trusted_proxies == ("10.0.0.0/8", "unix")
    assert (settings.forwarded_header, settings.trusted_hops) == ("x-forwarded-for", 2)
    assert (settings.rules_path, settings.deadline_ms, settings.on_storage_error) == ("rules.toml", 25, "local")
    assert (settings.key_prefix, settings.storage_url[:15]) == ("shop", "valkey+sentinel")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SLUICEGATE_STORAGE_URL", "http://x", "SLUICEGATE_STORAGE_URL: begins with 'http'"),
        ("SLUICEGATE_STORAGE_URL", "localhost:6379", "SLUICEGATE_STORAGE_URL: begins with"),
        ("SLUICEGATE_DEADLINE_MS", "soon", "SLUICEGATE_DEADLINE_MS='soon': expected whole milliseconds, 1 to 60000"),
        ("SLUICEGATE_TRUSTED_HOPS", "two", "SLUICEGATE_TRUSTED_HOPS='two': expected a whole number"),
        ("SLUICEGATE_TRUSTED_HOPS", "-1", "SLUICEGATE_TRUSTED_HOPS='-1'"),
        ("SLUICEGATE_DEADLINE_MS", "0", "SLUICEGATE_DEADLINE_MS='0'"),
        ("SLUICEGATE_DEADLINE_MS", "60001", "SLUICEGATE_DEADLINE_MS='60001'"),
        ("SLUICEGATE_DEADLINE_MS", "9" * 5000, "SLUICEGATE_DEADLINE_MS="),
        ("SLUICEGATE_DEADLINE_MS", "\u0665\u0660", "SLUICEGATE_DEADLINE_MS="),
        (
            "SLUICEGATE_ON_STORAGE_ERROR",
            "open",
            "SLUICEGATE_ON_STORAGE_ERROR='open': expected one of allow, local, deny",
        ),
    ],
)
def test_a_wrong_value_names_its_variable(variable: str, value: str, message: str) -> None:
    """One line, and an operator knows which."""
    with pytest.raises(InvalidInputError) as caught:
        read_settings({variable: value})
    assert message in str(caught.value)


def test_a_password_is_not_repeated() -> None:
    """A URL with a wrong scheme is not shown whole."""
    with pytest.raises(InvalidInputError) as caught:
        read_settings({"SLUICEGATE_STORAGE_URL": "rediss+x://user:s3cret@host"})
    assert "s3cret" not in str(caught.value)


async def test_the_wired_limiter_is_one_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """`get_rate_limit` gives the same object each time, and it checks."""
    for variable in ("SLUICEGATE_STORAGE_URL", "SLUICEGATE_RULES"):
        monkeypatch.delenv(variable, raising=False)
    container.get_rate_limit.cache_clear()
    limiter = container.get_rate_limit()
    assert limiter is container.get_rate_limit()
    assert isinstance(limiter, RateLimitProtocol)
    result = await limiter.is_allowed(endpoint="GET /", identifier="a")
    assert result.value.allowed  # type: ignore[union-attr]
    container.get_rate_limit.cache_clear()


async def test_the_rules_file_of_the_environment_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """Two checks against a rule of one a day: the second is denied."""
    rules = tmp_path / "rules.toml"  # type: ignore[operator]
    rules.write_text('[policies]\nonce = "1/day per ip"\n[endpoints]\n"GET /" = "once"\n')
    monkeypatch.setenv("SLUICEGATE_RULES", str(rules))
    container.get_rate_limit.cache_clear()
    limiter = container.get_rate_limit()
    answers = [await limiter.is_allowed(endpoint="GET /", identifier="a") for _ in range(2)]
    assert [answer.value.allowed for answer in answers] == [True, False]  # type: ignore[union-attr]
    container.get_rate_limit.cache_clear()


def test_threads_that_ask_together_get_one_limiter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of either kind: else each thread would count in buckets of its own, and watch the rules file."""
    builds: list[object] = []
    build = container.build_rate_limit

    def build_slowly(*arguments: object, **named: object) -> object:
        builds.append(None)
        threading.Event().wait(0.05)
        return build(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(container, "build_rate_limit", build_slowly)
    for get in (container.get_rate_limit, container.get_sync_rate_limit):
        container.get_rate_limit.cache_clear()
        container.get_sync_rate_limit.cache_clear()
        builds.clear()
        with ThreadPoolExecutor(4) as pool:
            limiters = [future.result() for future in [pool.submit(get) for _ in range(4)]]
        assert len({id(limiter) for limiter in limiters}) == 1
        assert len(builds) == 1
    container.get_rate_limit.cache_clear()
    container.get_sync_rate_limit.cache_clear()
