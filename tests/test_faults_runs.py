"""What the fault benchmark does to runs, at counts for a test: damage, a full disk, a clock that jumps back, a second run in the folder."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import faults_runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    faults_runs.carry_out(str(out))
    return faults_runs.snapshot(out)


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "times"), [("damaged", 3), ("disk_full", 1), ("clock", 1), ("twice", 1)])
def test_the_final_rows_are_the_same(fault: str, times: int, whole: dict[str, bytes], tmp_path: Path) -> None:
    if fault == "clock" and not faults_runs.FAKETIME.exists():
        pytest.skip("no clock can be set back: libfaketime is not installed (Debian: libfaketime)")
    found: Counter[str] = getattr(faults_runs, fault)(tmp_path / fault, whole, times)
    assert found.pop("others") == 0 and found.total() == times


def test_other_rows_are_seen(whole: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in whole.items():
        (tmp_path / "tiny" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tiny" / name).write_bytes(content)
    assert not faults_runs.others(tmp_path, whole)
    kept = next(name for name in whole if name.endswith("kept.jsonl"))
    (tmp_path / "tiny" / kept).write_bytes(whole[kept].replace(b"a", b"b", 1))
    assert faults_runs.others(tmp_path, whole)
