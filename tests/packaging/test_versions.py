"""The oldest versions that are allowed are the ones that `make test-versions` runs."""

import re
import tomllib
from pathlib import Path

from versions import FLOORS

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_every_floor_of_the_project_is_one_that_is_tested() -> None:
    """What `make test-versions` installs is what the project allows, to the digit."""
    lines = PROJECT["dependencies"] + [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    allowed = {}
    for line in lines:
        found = re.fullmatch(r"([A-Za-z0-9_-]+)(?:\[[a-z]+\])?>=([0-9.]+)", line)
        if found:
            allowed[found[1].lower()] = found[2]
    for name, version in FLOORS.items():
        assert f"{version}.0.0".startswith(f"{allowed[name]}."), name
        assert set(version.removeprefix(allowed[name])) <= {".", "0"}, name
