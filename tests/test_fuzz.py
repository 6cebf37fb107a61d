"""Few inputs of what benchmarks/fuzz.py tries a million times: a value or a typed error, soon, and never a traceback.

The laws of fuzzing.py assert; here it is seen that they judged inputs that can be read and inputs that cannot.
"""

from __future__ import annotations

import random

import pytest
from fuzzing import SEEDS, STRUCTURED, TARGETS, counted
from hypothesis import HealthCheck, given, settings


@pytest.mark.slow
@pytest.mark.parametrize("name", STRUCTURED)
def test_nearly_right_inputs(name: str) -> None:
    law, strategies = STRUCTURED[name]
    quiet = settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    counted.clear()
    quiet(given(**strategies)(law))()
    assert (counted.total() >= 60 and len(counted) > 1) or name == "fields", counted


@pytest.mark.parametrize("name", TARGETS)
def test_bytes(name: str) -> None:
    """The seeds, and seeds with a few bytes changed, cut and joined."""
    counted.clear()
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
    assert any(outcome.endswith(("read", "status 0")) for outcome in counted), f"all of it was refused: {counted}"
    assert any(outcome.endswith(("refused", "status 1", "status 2")) for outcome in counted), f"nothing was refused: {counted}"
