"""Few inputs of what benchmarks/fuzz.py tries a million times: a value or a typed error, soon, and never a traceback."""

from __future__ import annotations

import random

import pytest
from fuzzing import SEEDS, STRUCTURED, TARGETS
from hypothesis import HealthCheck, given, settings


@pytest.mark.parametrize("name", STRUCTURED)
def test_nearly_right_inputs(name: str) -> None:
    law, strategies = STRUCTURED[name]
    quiet = settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    quiet(given(**strategies)(law))()


@pytest.mark.parametrize("name", TARGETS)
def test_bytes(name: str) -> None:
    """The seeds, and seeds with a few bytes changed, cut and joined."""
    rng = random.Random(name)
    for seed in SEEDS[name]:
        TARGETS[name](seed)
    for _ in range(40 if name in ("toml", "commands") else 150):
        data = bytearray(rng.choice(SEEDS[name]))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            data[at : at + rng.randint(0, 3)] = rng.choice(
                [bytes([rng.randrange(256)]), b"", b'"', b"\n", b"[", b"}", b"\\", data[: rng.randrange(len(data) + 1)]]
            )
        TARGETS[name](bytes(data))
