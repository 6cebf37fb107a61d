"""Generated code reaches nothing, ends as a counted failure whatever it tries, and cannot say itself that it passes."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from seedbed import programs, sandbox
from seedbed.errors import ParseError, SandboxError
from seedbed.programs import judge, trial
from seedbed.sandbox import Limits
from seedbed.scores import pass_at_1
from seedbed.scores import programs as pass_rate

SHORT = Limits(cpu_s=1, wall_s=20)


@pytest.fixture
def isolated() -> None:
    """Skips where this machine has no sandbox, saying why."""
    try:
        sandbox.ready()
    except SandboxError as error:
        pytest.skip(str(error))


pytestmark = pytest.mark.usefixtures("isolated")

ATTACKS = {
    "fork bomb": ("import os\nwhile True:\n    os.fork()", "failed", "PermissionError"),
    "threads": ("import threading\nwhile True:\n    threading.Thread(target=input).start()", "failed", "RuntimeError"),
    "10 GB": ("held = bytearray(10 * 2**30)", "memory", "MemoryError"),
    "10 GB bit by bit": ("held = []\nwhile True:\n    held.append(bytearray(2**24))", "memory", "MemoryError"),
    "a key in a file": ("print(open('{key}').read())", "failed", "FileNotFoundError"),
    "a key behind a symlink": ("import os\nos.symlink('{key}', '/tmp/link')\nprint(open('/tmp/link').read())", "failed", "FileNotFoundError"),
    "the environment": ("import os\nprint(os.environ['SEEDBED_TEST_KEY'])", "failed", "KeyError"),
    "a socket": ("import socket\nsocket.socket()", "failed", "PermissionError"),
    "a name of the net": ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:1')", "failed", "URLError"),
    "writing outside": ("open('{folder}/made', 'w')", "failed", "FileNotFoundError"),
    "writing outside behind a symlink": ("import os\nos.symlink('{folder}', '/tmp/out')\nopen('/tmp/out/made', 'w')", "failed", "FileNotFoundError"),
    "writing into the system": ("open('/usr/made', 'w')", "failed", "OSError"),
    "writing beside the system": ("open('/made', 'w')", "failed", "OSError"),
    "writing into the interpreter": ("import os\nopen(os.__file__, 'w')", "failed", "OSError"),
    "filling the disk": ("for i in range(1000):\n    open(f'/tmp/{i}', 'w').write('a' * 2**17)", "failed", "OSError"),
    "an endless loop": ("while True:\n    pass", "timeout", ""),
    "a long sleep": ("import time\ntime.sleep(1000)", "timeout", ""),
    "killing its parent": ("import os\nfor pid in (os.getppid(), 1, {pid}):\n    os.kill(pid, 9)", "failed", "ProcessLookupError"),
    "killing everybody": ("import os\nos.kill(-1, 9)", "failed", "ProcessLookupError"),
    "killing its group": ("import os\nos.kill(0, 9)", "killed", "signal 9"),
    "100 MB of output": ("for i in range(100):\n    print('a' * 2**20)", "output", ""),
    "100 MB of errors": ("import sys\nsys.stderr.write('a' * 10**8)", "output", ""),
    "a background process": ("import subprocess\nsubprocess.Popen(['sleep', '1000'])", "failed", "PermissionError"),
    "a new namespace": ("import ctypes\nassert not ctypes.CDLL(None).unshare(0x10000000)", "failed", "AssertionError"),
    "a crash": ("import ctypes\nctypes.string_at(0)", "killed", "signal 11"),
    "endless recursion": ("def f():\n    return f()\nf()", "failed", "RecursionError"),
    "a package of ours": ("import pydantic", "failed", "ModuleNotFoundError"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_ends_as_a_failure_with_its_reason(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDBED_TEST_KEY", "sk-secret")
    key = tmp_path / "key.txt"
    key.write_text("sk-secret")
    program, reason, error = ATTACKS[name]
    limits = Limits(cpu_s=1, wall_s=2.0) if "sleep" in name else SHORT
    if reason == "memory":  # filling it may take longer than a second on a busy machine
        limits = Limits(cpu_s=15, wall_s=60)
    found = sandbox.run(program.replace("{key}", str(key)).replace("{folder}", str(tmp_path)).replace("{pid}", str(os.getpid())), ["1"], limits)
    assert (found.ok, found.reason, found.error.partition(":")[0]) == (False, reason, error), found
    assert "sk-secret" not in found.stdout + found.stderr
    assert len(found.stdout) <= sandbox.KEPT and len(found.stderr) <= sandbox.KEPT
    assert [p.name for p in tmp_path.iterdir()] == ["key.txt"]


def test_attacks_do_not_stop_the_others() -> None:
    good = trial("def f(x):\n    return x + 1", ["assert f(1) == 2"])
    bad = [trial(text, ["assert f(1) == 2"]) for text, *_ in ATTACKS.values() if "sleep" not in text and "{" not in text]
    assert judge([*bad[:6], good], SHORT)[-1] == ""


def test_the_program_sees_nothing_of_the_user() -> None:
    found = sandbox.run(
        "import os, sys, socket",
        ["dict(os.environ)", "sorted(os.listdir('/'))", "os.listdir('/tmp')", "sys.path", "os.getuid()", "socket.gethostname()"],
    )
    environment, top, own, path, user, host = found.values
    assert set(environment) <= {"PATH", "HOME", "LANG", "PYTHONHASHSEED", "LD_LIBRARY_PATH", "PWD"}
    assert set(top) <= {"dev", "etc", "lib", "lib32", "lib64", "python", "tmp", "usr"}
    assert own == []
    assert not any(str(Path.home()) in part or "site-packages" in part for part in [*path, *environment.values()])
    assert user == 65534
    assert host == "sandbox"


VALUES: list[Any] = [
    None,
    True,
    0,
    -(10**30),
    10**5000,
    1.5,
    math.inf,
    "é\ud800\0",
    b"\xff",
    1 + 2j,
    [1, (2, {3})],
    frozenset({1}),
    {(1, "a"): [None]},
    deque([1]),
]


def test_plain_values_come_back_as_they_were() -> None:
    written = ["10**5000" if value == 10**5000 else repr(value) for value in VALUES]
    found = sandbox.run(
        "from collections import *\nfrom math import inf", [*written, "float('nan')", "Counter('aab')", "True", "object()", "range(3)"]
    )
    assert list(found.values[: len(VALUES)]) == VALUES
    assert list(map(type, found.values[: len(VALUES)])) == list(map(type, VALUES))
    nan, counter, true, *others = found.values[len(VALUES) :]
    assert math.isnan(nan) and counter == {"a": 2, "b": 1} and true is True
    assert [o.kind for o in others] == ["object", "range"]
    assert others[0] != others[0]


TESTS = ["assert f(1) == 11", "assert f(2) == 12", "assert f(3) == 13"]
FORGED = {
    "leaves with 0": "import sys\ndef f(x): sys.exit(0)",
    "leaves with 0 at once": "import os\nos._exit(0)",
    "prints what a harness would": "print('passed')\nprint('{\"values\": [11, 12, 13]}')\nimport os\nos._exit(0)",
    "equals everything": "class Any:\n    def __eq__(self, other): return True\n    def __bool__(self): return True\ndef f(x): return Any()",
    "a number that equals everything": "class Any(int):\n    def __eq__(self, other): return True\ndef f(x): return Any(5)",
    "patches builtins": "import builtins\nbuiltins.eval = lambda *a: 11\nbuiltins.AssertionError = Exception\ndef f(x): return 1",
    "writes the answers itself": (
        "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'{\"values\": [true, true, true]}')\n    except OSError: pass\nos._exit(0)"
    ),
    "looks for what is expected": (
        "import gc, re, sys\nframe, seen = sys._getframe(), []\nwhile frame:\n    seen.append(repr(frame.f_locals))\n    frame = frame.f_back\n"
        "seen += [repr(o) for o in gc.get_objects() if isinstance(o, (dict, list))]\n"
        "if re.search(r'== ?1[123]', ' '.join(seen)):\n    print('FOUND')\ndef f(x): return None"
    ),
    "replaces the json module": "import json\njson.dumps = lambda answer: '{\"values\": [1, 1, 1]}'\ndef f(x): return 0",
    "stays at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 0",
    "too few answers": "import json\njson.dumps = lambda answer: '{\"values\": [11]}'\ndef f(x): return 0",
    "broken answers": "import json\njson.dumps = lambda answer: '{\"values\": [{\"set\": [[1]]}, {}, {\"no\": 1}]}'\ndef f(x): return 0",
    "nested answers": "import json\njson.dumps = lambda answer: '[' * 100000\ndef f(x): return 0",
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_program_cannot_say_that_it_passes(name: str) -> None:
    assert judge([trial(FORGED[name], TESTS)], SHORT)[0] in ("asserts fail", "ended early", "program fails")
    assert "FOUND" not in sandbox.run(FORGED[name], [q for c in trial(FORGED[name], TESTS).claims for q in c.questions]).stdout


HOLDS = {
    "def f(x): return x * x": [
        "assert f(3) == 9",
        "assert f(3) != 8",
        "assert not f(0)",
        "assert f(3)",
        "assert f(2) in (4, 5)",
        "assert 3 < f(2) < 5",
        "assert f(2) and f(3)",
        "assert math.isclose(f(0.5), 0.25)",
        "assert abs(f(0.1) - 0.01) < 1e-9",
        "import math\nassert f(2) == math.sqrt(16)",
        "assert f(2) == f(-2), 'even'",
        "assert (f(3)) is not None",
        "assert [f(1), f(2)] == [1, 4]",
        "assert str(f(2)) == '4'",
        "assert f(2) == max(3, 4)",
        "assert f(3) == sum(i for i in (4, 5))",
    ],
    "def f(n):\n    yield from range(n)": [
        "assert list(f(3)) == [0, 1, 2]",
        "assert set(f(2)) == set([1, 0])",
        "assert sum(f(3)) == 3",
        "assert f(3)",
    ],
    "class P:\n    def __init__(self, a): self.a = a\ndef f(p): return p.a\nnone = None": [
        "assert f(P(2)) == 2",
        "assert P(3).a == 3",
        "assert none is None",
        "assert P(3) != 3",
    ],
    "def max(a): return 7": ["assert max([1]) == 7"],
}


@pytest.mark.parametrize("program", HOLDS)
def test_true_asserts_hold_and_their_contraries_do_not(program: str) -> None:
    tests = HOLDS[program]
    assert judge([trial(program, [test]) for test in tests], SHORT) == [""] * len(tests)
    contrary = [
        f"{head}assert not ({claim.partition(', ')[0] if 'even' in claim else claim})" for head, _, claim in (t.rpartition("assert ") for t in tests)
    ]
    assert judge([trial(program, [test]) for test in contrary], SHORT) == ["asserts fail"] * len(tests)


def test_what_is_expected_never_enters_the_program() -> None:
    claims = trial(
        "def f(x): return x", ["assert f(2) == 5 + 6", "assert math.isclose(f(g(1)), 7.25)", "assert sorted(f('b')) == sorted('a')"]
    ).claims
    assert [c.questions for c in claims] == [("f(2)",), ("f(g(1))",), ("sorted(f('b'))",)]


@pytest.mark.parametrize(
    ("program", "tests", "reason"),
    [
        ("def f(:", TESTS, "program does not parse"),
        ("x" * 30_000, TESTS, "too long"),
        ("(" * 5000, TESTS, "program does not parse"),
        ("a = '\0'", TESTS, "program does not parse"),
        ("def f(x): return x", ["assert f("], "asserts do not parse"),
        ("def f(x): return x", [3], "asserts do not parse"),
        ("def f(x): return x", ["x = f(1)\nassert x == 1"], "asserts of another form"),
        ("def f(x): return x", ["assert all(f(i) == i for i in range(3))"], "asserts of another form"),
    ],
)
def test_what_cannot_be_judged_is_said(program: str, tests: list[str], reason: str) -> None:
    with pytest.raises(ParseError) as caught:
        trial(program, tests)
    assert caught.value.reason == reason


def test_asserts_with_the_same_question_count_once() -> None:
    tests = ["assert f(1) == 1", "assert f(1) != 2", "assert f(2) == 2", "assert 1 == 1"]
    assert trial("def f(x): return x", tests).different == 2


def test_an_emptied_program_has_only_none() -> None:
    program = "A = 3\ndef f(x):\n    def g(): return 1\n    return g()\nclass C:\n    def m(self): return 2\nh = lambda: 5"
    assert sandbox.run(programs.emptied(program), ["A", "f(1)", "C().m()", "h()"]).values == (3, None, None, None)


def test_pass_at_1_counts_programs_and_leaves_out_what_cannot_be_judged() -> None:
    good, odd = "def f(x):\n    return x + 10", ["for i in range(3): assert f(i)"]
    assert pass_at_1([(good, TESTS), ("def f(x): return 11", TESTS), ("no python", TESTS), (good, odd), (good, [])]) == [
        True,
        False,
        False,
        None,
        True,
    ]
    measure = pass_rate([good, "def f(x): return 11", good], [TESTS, TESTS, odd])
    assert (measure.value, measure.n, measure.note) == (50.0, 2, "1 rows have asserts that cannot be judged")


def test_where_nothing_can_be_isolated_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox.ready.cache_clear()
    try:
        with pytest.raises(SandboxError, match=r"bwrap is not installed. Install bubblewrap .*apt-get install bubblewrap.*isolation = \"none\""):
            sandbox.run(f"open('{tmp_path}/made', 'w')")
        measure = pass_rate(["def f(x): return 1"], [TESTS])
        assert measure.value is None and "Install bubblewrap" in measure.note
        broken = tmp_path / "bwrap"
        broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
        broken.chmod(0o755)
        with pytest.raises(SandboxError, match="cannot make one here: bwrap: No permissions to create new namespace"):
            sandbox.ready()
        assert [p.name for p in tmp_path.iterdir()] == ["bwrap"]
        said = sandbox.run("x = 6", ["x * 7", "dict(__import__('os').environ)"], isolation="none")
        assert said.values[0] == 42 and "PWD" not in said.values[1]  # run by our own word: with limits, and with nothing of our environment
    finally:
        sandbox.ready.cache_clear()


def test_without_isolation_limits_still_hold_and_nothing_is_left_behind() -> None:
    assert sandbox.run("x = bytearray(10 * 2**30)", limits=SHORT, isolation="none").reason == "memory"
    assert sandbox.run("while True: pass", limits=SHORT, isolation="none").reason == "timeout"
    program = "import os, time\npid = os.fork()\nif not pid:\n    time.sleep(1000)"
    found = sandbox.run(program, ["pid"], SHORT, "none")
    if found.ok:  # where the user's limit of processes is not held: as root
        stop = time.monotonic() + 20
        while _alive(found.values[0]) and time.monotonic() < stop:
            os.sched_yield()
        assert not _alive(found.values[0])


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
