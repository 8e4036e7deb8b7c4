"""The package works without its extras, and says which one is missing."""

import subprocess
import sys

import pytest

import sluicegate


def _run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def test_importing_the_package_imports_no_redis() -> None:
    """An application that limits in memory neither needs redis-py nor imports it."""
    assert _run("import sys, sluicegate; print('redis' in sys.modules, 'hiredis' in sys.modules)") == "False False\n"


def test_the_names_are_there_when_they_are_asked_for() -> None:
    """`from sluicegate import RedisStorage` works, and so does `import *`."""
    assert _run("from sluicegate import *; print(RedisStorage.__name__, SyncRedisStorage.__name__)").split() == [
        "RedisStorage",
        "SyncRedisStorage",
    ]


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Typing mistakes are told as ever."""
    with pytest.raises(AttributeError, match="no attribute 'RedisStorag'"):
        _ = sluicegate.RedisStorag  # type: ignore[attr-defined]


def test_a_url_that_needs_the_extra_says_so() -> None:
    """Without redis-py the setting's error names the package and how to install it."""
    program = """
import sys
sys.modules["redis"] = None
from sluicegate.infrastructure.storage_of_settings import build_storage
from sluicegate.infrastructure.settings import Settings
try:
    build_storage(Settings(storage_url="redis://h"))
except ValueError as error:
    print(error)
"""
    assert "pip install 'sluicegate[redis]'" in _run(program)
