"""Examples as modules, for tests that call their parts."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
APPS = ROOT / "examples" / "apps"


def load_example(name: str) -> ModuleType:
    """Import a file of `examples/apps` without running its last lines.

    Args:
        name: The file's name, such as `worker.py`.
    """
    spec = importlib.util.spec_from_file_location(f"example_{Path(name).stem}", APPS / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
