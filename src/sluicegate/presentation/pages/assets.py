"""Read the files of the pages."""

from importlib.resources import files
from typing import Final

BASE_STYLES: Final = "base.css"
CHART_STYLES: Final = "uPlot.min.css"
CHART_LIBRARY: Final = "uPlot.iife.min.js"
CHARTS: Final = "charts.js"
CHART_LICENCE: Final = "uPlot-LICENSE.txt"


def shared_asset(name: str) -> str:
    """Return the text of a file that all pages use."""
    return read_asset("sluicegate.presentation.pages", name)


def read_asset(package: str, name: str) -> str:
    """Return the text of a file in the folder `assets` of a package."""
    return (files(package) / "assets" / name).read_text(encoding="utf-8").strip()
