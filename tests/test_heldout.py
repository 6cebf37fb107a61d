"""heldout_nll: kept rows that say what real rows say make real rows foreseeable."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from seedbed.lm.load import SHIPPED
from seedbed.metrics.heldout import Heldout, _losses
from seedbed.testing import check_metric, tiny_sample
from seedbed.types import Example, Sample


@pytest.fixture(scope="module")
def sample() -> Sample:
    rng, base = random.Random(0), tiny_sample()
    queues = ["the parcel", "my invoice", "this order", "a refund"]
    asks = ["is late again", "was never sent", "has the wrong sum", "should be stopped"]

    def rows(name: str, n: int) -> tuple[Example, ...]:
        return tuple(Example(f"{name}{i}", {"text": f"{rng.choice(queues)} {rng.choice(asks)}, can you look?", "label": "music"}) for i in range(n))

    return replace(base, fit=rows("f", 48), dev=rows("d", 8), test=rows("t", 24))


def renamed(rows: tuple[Example, ...]) -> list[Example]:
    return [replace(e, id=f"k{i}") for i, e in enumerate(rows)]


@pytest.mark.slow
def test_the_fit_rows_themselves_are_as_good_as_real_ones(sample: Sample) -> None:
    [found] = Heldout(epochs=2).measure(sample, renamed(sample.fit), 0)
    assert found.value == pytest.approx(found.real, abs=0.05)
    assert found.low is not None and found.high is not None and found.low < found.real < found.high
    assert found.n == 48


@pytest.mark.slow
def test_rows_that_say_something_else_are_worse(sample: Sample) -> None:
    other = [Example(f"k{i}", {"text": f"rain falls on hill number {i} in the north", "label": "weather"}) for i in range(48)]
    [found] = Heldout(epochs=2).measure(sample, other, 0)
    assert found.value is not None and found.real is not None and found.value > found.real + 0.5


@pytest.mark.slow
def test_dev_rows_are_not_read(sample: Sample) -> None:
    kept = renamed(sample.fit)
    first = Heldout(epochs=1).measure(sample, kept, 0)
    _losses.cache_clear()
    assert Heldout(epochs=1).measure(replace(sample, dev=()), kept, 0) == first


@pytest.mark.slow
def test_the_fit_rows_beside_several_sets_of_rows_are_learned_once(sample: Sample) -> None:
    _losses.cache_clear()
    one, other = (Heldout(epochs=1).measure(sample, renamed(rows), 0)[0] for rows in (sample.fit[:24], sample.fit[24:]))
    assert one.value != other.value and one.real == other.real
    assert _losses.cache_info()[:2] == (1, 3)  # hits, misses


@pytest.mark.slow
def test_other_weights_under_the_same_name_are_read_anew(sample: Sample, tmp_path: Path) -> None:
    folder = shutil.copytree(SHIPPED / "seedling", tmp_path / "mine", ignore=shutil.ignore_patterns("decoder"))
    how, kept = Heldout(model=str(folder), epochs=1, rows=4), renamed(sample.fit)
    first = how.measure(sample, kept, 0)[0]
    weights = load_file(folder / "model.safetensors")
    save_file({name: value / 2 for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    assert how.measure(sample, kept, 0)[0].value != first.value


def test_too_few_rows_are_none_with_the_reason(sample: Sample) -> None:
    [found] = Heldout().measure(sample, [], 0)
    assert found.value is None and "got 0 kept, 48 fit" in found.note


@pytest.mark.slow
def test_rows_longer_than_the_context_are_counted(sample: Sample) -> None:
    long = [replace(e, fields=dict(e.fields) | {sample.task.inputs[0]: "word and more words " * 600}) for e in sample.fit]
    [found] = Heldout(epochs=1).measure(sample, [*sample.fit, *long], 0)
    assert found.value is not None and f"{len(long)} of {2 * len(long)} kept" in found.note


def test_it_conforms() -> None:
    check_metric(Heldout(epochs=1))
