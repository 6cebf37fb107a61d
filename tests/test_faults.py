"""What the fault benchmark measures, at a count for a test: a server that fails 30 % of all requests, in eight ways."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("openai")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from faults_requests import Faulty, make
from servers import KINDS

from seedbed.candidates import read_candidates
from seedbed.store import read_parts

ROWS = 250


@pytest.mark.slow
def test_a_server_that_fails_a_third_of_the_time_costs_no_row_and_no_request_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Faulty() as server:
        make(server.url, tmp_path, ROWS)
        texts = [c.text for c in read_candidates(tmp_path / "rows", ROWS)]
        assert set(texts) == server.texts and len(server.texts) == ROWS == server.answered, "nothing lost, nothing twice"
        assert [r["index"] for r in read_parts(tmp_path / "rows")] == list(range(ROWS))
        assert set(server.sent) == set(KINDS)
        assert len(server.requests) == ROWS + sum(server.sent.values()), "a fault costs one request, and nothing else does"
        (tmp_path / "again").mkdir()
        make(server.url, tmp_path / "again", ROWS)
        assert [c.text for c in read_candidates(tmp_path / "again/rows", ROWS)] == texts
        assert server.answered == ROWS, "what is paid for is not asked for again, whatever happens to the run's folder"
