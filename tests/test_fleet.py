"""Many hands: shards without Ray and actors on it give the rows of one machine, whoever dies on the way."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_run import REAL, ROOT, TOY, _snapshot

from seedbed import candidates, fleet
from seedbed import recipe as recipes
from seedbed.errors import ComponentError, EngineError, RecipeError, StoreError
from seedbed.limits import Deadline, Limits
from seedbed.run import run
from seedbed.shards import bounds, make_shard, part_of
from seedbed.show import state_of

QUICK: dict[str, Any] = TOY | {
    "generator": {"kind": "hard", "shots": 2},
    "generate": {"count": 230, "max_tokens": 160, "temperature": 0.7},
    "metric": [],
    "gain": {"seeds": 1, "volumes": []},
    "sample": TOY["sample"] | {"test_share": 0.1},
}
PLAIN = {"kind": "plain", "inputs": ["message"]}
TURNS = QUICK | {"generator": {"kind": "refine"}, "generate": QUICK["generate"] | {"count": 40}}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("here")
    run(recipes.build(QUICK, ROOT), out)
    return out / "tiny"


def test_shards_are_whole_parts_and_all_rows() -> None:
    for count in (1, 499, 500, 501, 12_345, 10_000_000):
        for of in (1, 2, 7, 64):
            ends = [bounds(count, i, of) for i in range(1, of + 1)]
            assert ends[0][0] == 0 and ends[-1][1] == count
            assert all(a[1] == b[0] for a, b in pairwise(ends))
            assert all(start % candidates.PART_ROWS == 0 or start == count for start, _ in ends)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["3", "0/8", "9/8", "a/8", "3/8/1", ""])
def test_a_shard_is_named_as_part_of_all(text: str) -> None:
    assert part_of("3/8") == (3, 8)
    with pytest.raises(RecipeError, match="--shard must be I/N"):
        part_of(text)


def test_shards_join_to_the_bytes_of_one_machine(tmp_path: Path) -> None:
    """In any order, one of them twice, and after the run was asked to join them too early."""
    built = recipes.build(QUICK | {"generate": {"count": 1300, "max_tokens": 40}, "filter": [], "task": PLAIN}, ROOT)
    run(built, tmp_path / "whole")
    for number, rows in ((3, 300), (1, 500), (3, 300)):
        assert make_shard(built, tmp_path / "joined", number, 3)[1:] == (500 * (number - 1), rows)
    assert {name.split("-")[0] for name in state_of(tmp_path / "joined/tiny")["steps"]} == {"teacher"}, "a folder of shards is no step"
    begun = next((tmp_path / "joined/tiny").glob("*.shards")) / "000000500-000001000"
    with pytest.raises(StoreError, match=r"rows 500 to 999 are not finished"):  # nobody began them, and what is there stays
        run(built, tmp_path / "joined")
    begun.mkdir()
    with pytest.raises(StoreError, match=r"rows 500 to 999 are not finished"):
        run(built, tmp_path / "joined")
    make_shard(built, tmp_path / "joined", 2, 2)  # by another division: rows 500 to 1299
    (begun / "../000000500-000001300/engine.json").unlink()  # a job killed before its last word
    make_shard(built, tmp_path / "joined", 2, 2)
    run(built, tmp_path / "joined")
    assert _snapshot(tmp_path / "joined/tiny") == _snapshot(tmp_path / "whole/tiny")


@pytest.mark.slow
def test_shards_go_on_behind_a_run_that_a_limit_cut(tmp_path: Path) -> None:
    raw = QUICK | {"generate": {"count": 1300, "max_tokens": 40}, "filter": [], "task": PLAIN}
    built = recipes.build(raw, ROOT)
    run(built, tmp_path, limits=Limits(tokens=26_000))
    assert [make_shard(built, tmp_path, number, 2)[1:] for number in (1, 2)] == [(500, 0), (500, 800)]
    assert run(built, tmp_path).scores["counts"]["candidates"] == 1300
    more = recipes.build(raw | {"generate": {"count": 1700, "max_tokens": 40}}, ROOT)
    with pytest.raises(StoreError, match="another recipe"):
        make_shard(more, tmp_path, 1, 1)
    assert make_shard(more, tmp_path, 1, 1, replace=True)[1:] == (1300, 400)
    assert run(more, tmp_path).scores["counts"]["candidates"] == 1700


class _Ticks(Limits):
    """Over when the clock has been read so often: each step of a fit reads it once."""

    def deadline(self) -> Deadline:
        return Deadline(4, itertools.count(1).__next__)


@pytest.mark.slow
def test_a_limit_of_minutes_ends_the_fit_of_a_shard_and_the_next_one_goes_on(tmp_path: Path) -> None:
    built = recipes.build(REAL | {"generate": {"count": 8, "max_tokens": 4}}, ROOT)
    assert make_shard(built, tmp_path / "cut", 1, 1, _Ticks())[1:] == (0, 0)
    assert not list((tmp_path / "cut/tiny").glob("*.shards/*/part-*"))
    assert list((tmp_path / "cut/tiny").glob("teacher-*.partial/checkpoint-*"))
    for name in ("cut", "whole"):
        assert make_shard(built, tmp_path / name, 1, 1)[1:] == (0, 8)
    made = [{p.name: p.read_bytes() for p in (tmp_path / name / "tiny").glob("*.shards/*/part-*")} for name in ("cut", "whole")]
    assert made[0] == made[1] and made[0]


def test_what_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    auto = QUICK | {"generate": QUICK["generate"] | {"count": "auto"}}
    with pytest.raises(ComponentError, match="--shard divides rows whose number is known"):
        make_shard(recipes.build(auto, ROOT), tmp_path, 1, 2)
    with pytest.raises(RecipeError, match="money is counted where rows are completed"):
        make_shard(recipes.build(QUICK, ROOT), tmp_path, 1, 2, Limits(cost=1.0), on="ray")
    with pytest.raises(RecipeError, match="no engine of the recipe has a price"):
        make_shard(recipes.build(QUICK, ROOT), tmp_path, 1, 2, Limits(cost=1.0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("flag", "value"), [("--shard", "0/3"), ("--shard", "4/3"), ("--shard", "x"), ("--on", "there")])
def test_a_wrong_place_is_bad_usage(flag: str, value: str) -> None:
    done = subprocess.run([sys.executable, "-m", "seedbed.cli", "run", "recipes/helpdesk.toml", flag, value], capture_output=True, cwd=ROOT)
    assert done.returncode == 2 and flag.encode() in done.stderr


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes of one CPU each on this machine, shared by the tests below."""
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from ray.cluster_utils import Cluster

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (as Ray spells it)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=made.address, log_to_driver=False)
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def test_on_ray_the_bytes_are_the_same(cluster: Any, here: Path, tmp_path: Path) -> None:
    run(recipes.build(QUICK, ROOT), tmp_path, on="ray")
    assert _snapshot(tmp_path / "tiny") == _snapshot(here)


def test_rows_of_several_turns_are_the_same(cluster: Any, tmp_path: Path) -> None:
    run(recipes.build(TURNS, ROOT), tmp_path / "here")
    run(recipes.build(TURNS, ROOT), tmp_path / "ray", on="ray")
    assert _snapshot(tmp_path / "here/tiny") == _snapshot(tmp_path / "ray/tiny")


def test_a_hand_that_cannot_work_says_why(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "teacher.py").write_text(
        "from seedbed.generators.hard import Hard, HardTeacher\nfrom dataclasses import dataclass\nimport os\n"
        "class Broken(HardTeacher):\n    def prompt(self, row):\n"
        f"        if os.getpid() != {os.getpid()}: raise ZeroDivisionError('in a hand')\n        return super().prompt(row)\n"
        "@dataclass(frozen=True)\nclass Mine(Hard):\n    def load(self, folder, task, model):\n"
        "        t = super().load(folder, task, model)\n        return Broken(t.model, t.task, t.folder, t.shots, t.k, t.attributes)\n"
    )
    shutil.copy(ROOT / "examples/helpdesk.csv", tmp_path)
    raw = QUICK | {"generator": {"kind": "teacher.py:Mine"}, "sample": QUICK["sample"] | {"path": "helpdesk.csv"}}
    with pytest.raises(EngineError, match=r"a hand failed: ZeroDivisionError\('in a hand'\)"):
        run(recipes.build(raw, tmp_path), tmp_path, on="ray")


def _hands() -> list[int]:
    """Processes of actors, as Ray titles them."""
    lines = ((p.name, (p / "cmdline").read_bytes()) for p in Path("/proc").iterdir() if p.name.isdigit())
    return [int(number) for number, line in lines if line.startswith(b"ray::_Worker")]


@pytest.mark.parametrize("who", ["worker", "node"])
def test_rows_of_the_dead_go_to_others(cluster: Any, here: Path, tmp_path: Path, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of an actor's process, then of a whole node, in the middle of a run."""
    made, nodes = cluster
    killed: list[str] = []
    next_of = fleet.Fleet._next

    def next_and_kill(self: fleet.Fleet) -> Any:
        found = next_of(self)
        if found[1] and not killed:
            killed.append(who)
            if who == "worker":
                os.kill(_hands()[0], signal.SIGKILL)
            else:
                made.remove_node(nodes.pop(), allow_graceful=False)
        return found

    monkeypatch.setattr(fleet.Fleet, "_next", next_and_kill)
    run(recipes.build(QUICK, ROOT), tmp_path, on="ray")
    assert killed == [who]
    assert _snapshot(tmp_path / "tiny") == _snapshot(here)


def test_a_fleet_that_keeps_dying_is_an_error(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "DEATHS", 0)
    raw = QUICK | {"engine": {"kind": "tests/plugins.py:Dies"}}
    with pytest.raises(EngineError, match="hands died one after the other"):
        run(recipes.build(raw, ROOT), tmp_path, on="ray")
