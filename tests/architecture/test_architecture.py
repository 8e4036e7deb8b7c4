"""Rules that the linters cannot express."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sluicegate
import sluicegate.testing

SOURCE = Path(sluicegate.__file__).parent


def modules() -> list[Path]:
    """Return the source files."""
    return sorted(SOURCE.rglob("*.py"))


def test_broad_excepts_stand_only_where_failure_is_answered() -> None:
    """`except Exception` stands where the storage is asked, at once or not, for observers, and nowhere else in a check.

    A handler that ends with a bare `raise` answers nothing, and may stand anywhere.
    """
    found = {
        str(path.relative_to(SOURCE))
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and isinstance(node.type, ast.Name)
        and node.type.id in {"Exception", "BaseException"}
        and not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None)
    }
    decision_path = {name for name in found if name.split("/")[0] in {"application", "domain"}}
    assert decision_path == {
        "application/checker.py",  # what is decided at once
        "application/failure_policy.py",  # what answers in its place
        "application/limiter_face.py",  # what is waited for
        "application/joint_face.py",  # the same for several checks or reservations
        "application/budgets/reservation_face.py",  # the same for reservations
        "application/budgets/sync_reservation_face.py",
        "application/budgets/renewer.py",  # the thread that all holds need
        "application/inspection.py",  # what operators ask
        "application/token_bucket_adapter.py",
        "application/sync_token_bucket_adapter.py",
        "application/notifier.py",
        "application/background_worker.py",
    }


def test_no_module_is_two_ideas_long() -> None:
    """No module has more than 350 lines."""
    assert {path.name: n for path in modules() if (n := len(path.read_text().splitlines())) > 350} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    """No utils, helpers, base, manager, common or core."""
    assert {path.stem for path in modules()} & {"utils", "helpers", "base", "manager", "common", "core"} == set()


def test_the_facade_lists_what_it_exports() -> None:
    """`__all__` is sorted, constants first as ruff has it, and every name in it can be imported."""
    for module in (sluicegate, sluicegate.testing):
        assert list(module.__all__) == sorted(module.__all__, key=lambda name: (not name.isupper(), name))
        for name in module.__all__:
            assert getattr(module, name) is not None


@pytest.mark.parametrize(
    "name", ["asgi", "django", "fastapi", "flask", "httpx", "httpx2", "rest_framework", "storage", "wsgi"]
)
def test_the_modules_for_frameworks_export_what_they_list(name: str) -> None:
    """Each imports nothing but names that others use, and lists them all."""
    docstring, *imports, listed = ast.parse((SOURCE / f"{name}.py").read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(listed, ast.Assign)
    guarded = [node for block in imports if isinstance(block, ast.With) for node in block.body]
    imports = [node for node in imports if getattr(node, "module", "") != "sluicegate.runtime.extras"]
    imported = [alias.name for node in (*imports, *guarded) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(imported) == sorted(ast.literal_eval(listed.value))


def test_importing_it_imports_no_extra() -> None:
    """`import sluicegate` loads no optional library."""
    code = "import sys, sluicegate; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for extra in (
        "redis",
        "starlette",
        "fastapi",
        "typer",
        "rich",
        "uvicorn",
        "grpc",
        "google.protobuf",
        "structlog",
        "yaml",
        "watchfiles",
        "opentelemetry",
        "prometheus_client",
        "pytest",
    ):
        assert f"'{extra}'" not in loaded


def test_the_package_is_typed() -> None:
    """The marker file of PEP 561 is there."""
    assert (SOURCE / "py.typed").exists()


def test_a_missing_extra_is_named() -> None:
    """Who asks for a name whose library is not installed is told what to install."""
    code = "import sys; sys.modules['flask'] = None; from sluicegate import FlaskRateLimit"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "sluicegate.FlaskRateLimit needs flask: pip install 'sluicegate[flask]'" in run.stderr


_LIBRARIES = (
    "asgiref",
    "django",
    "fastapi",
    "flask",
    "hiredis",
    "httpx",
    "httpx2",
    "opentelemetry",
    "prometheus_client",
    "redis",
    "rest_framework",
    "starlette",
    "typer",
)
_BARE = f"import sys; sys.modules.update(dict.fromkeys({_LIBRARIES}));"


def _run_bare(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _BARE + code], capture_output=True, text=True, check=False)


def test_everything_can_be_imported_and_asked_for_without_extras() -> None:
    """`import *` takes what there is, and `hasattr` answers."""
    run = _run_bare(
        "from sluicegate import *; import sluicegate;"
        "print(hasattr(sluicegate, 'RedisStorage'), hasattr(sluicegate, 'rate_limit'), hasattr(sluicegate, 'watch_rules'),"
        " 'FlaskRateLimit' in dir(), TokenBucketAdapter.__name__, rate_limited.__name__)"
    )
    assert run.stdout == "False False True False TokenBucketAdapter rate_limited\n", run.stderr


def test_everything_public_is_taken_where_all_extras_are() -> None:
    """Nothing is left out by mistake."""
    code = "from sluicegate import *; import sluicegate; print(FlaskRateLimit.__name__, len(sluicegate.__all__))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed = re.search(r"(?ms)^__all__ = \[(.*?)^\]", (SOURCE / "__init__.py").read_text())
    assert listed is not None
    assert run.stdout == f"FlaskRateLimit {len(listed[1].split())}\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from sluicegate import RedisStorage", "sluicegate.RedisStorage needs"),
        (
            "sys.modules.pop('redis'); from sluicegate import SyncRedisStorage",
            "sluicegate.SyncRedisStorage needs hiredis: pip install 'sluicegate[redis]'",
        ),
        (
            "import sluicegate; sluicegate.rate_limit",
            "sluicegate.rate_limit needs fastapi: pip install 'sluicegate[fastapi]'",
        ),
        ("import sluicegate.django", "sluicegate.django needs asgiref: pip install 'sluicegate[django]'"),
        ("import sluicegate.fastapi", "sluicegate.fastapi needs fastapi: pip install 'sluicegate[fastapi]'"),
        ("import sluicegate.flask", "sluicegate.flask needs flask: pip install 'sluicegate[flask]'"),
        ("import sluicegate.httpx", "sluicegate.httpx needs httpx: pip install 'sluicegate[httpx]'"),
        ("import sluicegate.httpx2", "sluicegate.httpx2 needs httpx2: pip install 'sluicegate[httpx2]'"),
        ("import sluicegate.metrics", "sluicegate.metrics needs prometheus_client: pip install 'sluicegate[metrics]'"),
        (
            "import sluicegate.opentelemetry",
            "sluicegate.opentelemetry needs opentelemetry: pip install 'sluicegate[otel]'",
        ),
        ("import sluicegate.rest_framework", "needs rest_framework: pip install 'sluicegate[drf]'"),
        (
            "import os; os.environ['SLUICEGATE_STORAGE_URL'] = 'redis://x'; import sluicegate; sluicegate.get_rate_limit()",
            "; pip install 'sluicegate[redis]'",
        ),
        (
            "import os; os.environ['SLUICEGATE_TRACES'] = 'true'; import sluicegate; sluicegate.get_rate_limit()",
            "InvalidInputError: SLUICEGATE_TRACES needs opentelemetry: pip install 'sluicegate[otel]'",
        ),
        (
            "import os; os.environ['SLUICEGATE_TRACES'] = 'true'; import sluicegate; sluicegate.rate_limited('5/minute')",
            "InvalidInputError: SLUICEGATE_TRACES needs opentelemetry: pip install 'sluicegate[otel]'",
        ),
        ("import sluicegate.presentation.cli.main", "the command line needs more parts: pip install 'sluicegate[cli]'"),
    ],
)
def test_each_missing_extra_names_itself(code: str, message: str) -> None:
    """Whatever is asked for, and by whichever way."""
    run = _run_bare(code)
    assert run.returncode != 0
    assert message in run.stderr
