"""Where the tests find real data; tests that need it skip, saying so, where it is absent."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" not in os.environ:  # vectors that the tests keep are not the user's; workers and commands that the tests start share them
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="seedbed-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

os.environ["BROWSER"] = "true"  # of `seedbed view` on a page: a program that shows nothing

ROOT = Path(__file__).resolve().parent.parent


def shared_data() -> Path:
    """The folder of real evaluation sets, or a skip."""
    folder = Path(os.environ.get("SEEDBED_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set SEEDBED_SHARED to the folder that holds data/")
    return folder


@pytest.fixture
def root() -> Path:
    return ROOT


SLOW = (
    "docs",
    "run",
    "local",
    "finetune",
    "folds",
    "faults_runs",
    "amortised",
    "limits",
    "writers",
    "browser",
    "compare",
    "report",
    "soft",
    "annotate",
    "scale",
)
"""The files that took longest, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: of workers that take whole files, none ends alone with a long one."""
    place = {f"test_{name}.py": i for i, name in enumerate(SLOW)}
    items.sort(key=lambda item: (place.get(item.path.name, len(SLOW)), -item.path.stat().st_size, item.path))
