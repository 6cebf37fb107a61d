"""Runs one generated Python program in a process of its own that can reach nothing: bubblewrap's namespaces, a system call filter, limits.

What the process sees: the base interpreter and /usr, read-only; a /tmp of its own in memory; nothing else, not even /proc. It has no network,
no capability, no way to start a process or a thread, an environment without a name of the user's, and the standard library alone (no
site-packages). Memory, CPU time, wall time, output and file sizes are limited.

`run` answers with *values*. A program is given questions (expressions over its own names) and what comes back is plain data that is read here
with `json`. The program shares its process with the code that asks, so it can forge every answer: exit early, print what it likes, patch
builtins, write into the channel itself. It cannot know what is expected, because that never enters its process (see `programs`). To forge a
right answer is to compute it. What remains possible: a program that knows the answers by heart, or finds a hole in the kernel.

Here and not beside `lm`, since scoring a task (`task`, far below) needs it; it imports nothing of the house but its errors.
"""

from __future__ import annotations

import json
import os
import platform
import select
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from seedbed.errors import SandboxError

A = TypeVar("A")
B = TypeVar("B")
Isolation = Literal["sandbox", "none"]
Reason = Literal["passed", "failed", "timeout", "memory", "output", "killed", "ended early"]
MEBIBYTE = 2**20
KEPT = 2000
"""Characters of standard output and error that an outcome keeps."""
INSIDE = Path("/python")
"""Where the interpreter stands for the program: its real place may name the user's home."""
STARVED = 152
"""Exit status of a process that was ended for its CPU time: 128 + SIGXCPU."""
INSTALL = "Install bubblewrap 0.7 or newer (apt-get install bubblewrap, dnf install bubblewrap) on Linux with unprivileged user namespaces"


@dataclass(frozen=True)
class Limits:
    """Of one program. cpu_s: seconds of CPU. wall_s: seconds from its start, for one that sleeps. memory_mib: address space, of which the
    interpreter takes 20. output_kib: standard output, standard error and the answers, each. file_mib: all files in its /tmp."""

    cpu_s: int = 5
    wall_s: float = 30.0
    memory_mib: int = 512
    output_kib: int = 256
    file_mib: int = 16


LIMITS = Limits()


@dataclass(frozen=True)
class Outcome:
    """What became of a program. ok: it ran to its end and every question has an answer, in `values`; then the reason is "passed".

    Else: "failed" (an exception, which `error` names), "timeout", "memory", "output" (too much of it), "killed" (a signal), "ended early"
    (it exited before it was asked, or wrote what is no answer). Why a program is not ok is in part its own word; that it is not, never.
    stdout, stderr: their first 2,000 characters.
    """

    ok: bool
    reason: Reason
    stdout: str = ""
    stderr: str = ""
    error: str = ""
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Opaque:
    """Stands for a value that is no plain data, such as an object of a class of the program's; equal to nothing, itself neither."""

    kind: str

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__


# Runs inside, and is text here so that it can be handed over: nothing of it is ever executed in our own process.
RUNNER = """
import json, os, resource, sys, types
from collections import deque

def plain(value):
    if value is None or type(value) in (bool, float, str):
        return value
    if type(value) is int:
        return value if abs(value) < 1 << 64 else {"int": hex(value)}
    for kind in (list, tuple, set, frozenset, deque):
        if isinstance(value, kind):
            return {kind.__name__: [plain(part) for part in value]}
    if isinstance(value, dict):
        return {"dict": [[plain(key), plain(part)] for key, part in value.items()]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return plain(kind(value))
    return {"opaque": type(value).__name__}

def main(channel):
    work = json.load(sys.stdin)
    for name, soft, hard in work["limits"]:
        resource.setrlimit(getattr(resource, name), (soft, hard))
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        exec(compile(work["program"], "program.py", "exec", dont_inherit=True), module.__dict__)
        answer = {"values": [plain(eval(question, module.__dict__)) for question in work["questions"]]}
        answer = json.dumps(answer)
    except BaseException as error:
        answer = json.dumps({"error": type(error).__name__, "text": str(error)[:200]})
    sys.stdout.flush()
    with open(channel, "w") as file:
        file.write(answer)

main(int(sys.argv[1]))
"""


def run(program: str, questions: Sequence[str] = (), limits: Limits = LIMITS, isolation: Isolation = "sandbox") -> Outcome:
    """The outcome of the program and the values of the expressions, asked in order behind it.

    isolation: "none" runs it as a child process with limits alone: it can read and write whatever the user can.
    Raises SandboxError where isolation is asked for and this machine has none.
    """
    if isolation == "sandbox":
        ready()
    return _run(program, questions, limits, isolation)


def each(work: Callable[[A], B], jobs: Sequence[A]) -> list[B]:
    """work(job) of each, as many at a time as there are cores, in threads: their time is spent waiting for other processes."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(work, jobs))


@cache
def ready() -> None:
    """Tries a program out, once. Raises SandboxError, which says why none can be isolated here and what to do."""
    unsafe = 'or, where you trust what is generated, set isolation = "none" on the part that runs it'
    if sys.platform != "linux" or platform.machine() not in CALLS:
        where = f"{sys.platform} on {platform.machine()}"
        raise SandboxError(f"generated code runs in a sandbox, which works on Linux on {' and '.join(CALLS)}. Got {where}. Run it there, {unsafe}.")
    if not shutil.which("bwrap"):
        raise SandboxError(f"generated code runs in a sandbox, and the program bwrap is not installed. {INSTALL}, {unsafe}.")
    found = _run("", ["6 * 7"], LIMITS, "sandbox")
    if found.values != (42,):
        said = (found.stderr.strip() or found.error or found.reason).splitlines()[-1]
        raise SandboxError(f"generated code runs in a sandbox, and bwrap cannot make one here: {said}. {INSTALL}, {unsafe}.")


def _run(program: str, questions: Sequence[str], limits: Limits, isolation: Isolation) -> Outcome:
    work = {"program": program, "questions": list(questions), "limits": _limits(limits)}
    with tempfile.TemporaryDirectory(prefix="seedbed-") as folder, _Files() as files:
        files.write("in", json.dumps(work).encode("ascii"))
        files.write("rules", RULES if isolation == "sandbox" else b"")
        command = [*_python(isolation), "-c", RUNNER, str(files["answer"])]
        if isolation == "sandbox":
            command = [*_bwrap(limits), "--seccomp", str(files["rules"]), "--", *command]
        child = subprocess.Popen(
            command,
            stdin=files["in"],
            stdout=files["out"],
            stderr=files["err"],
            pass_fds=[files["answer"], files["rules"]],
            env=_environment(isolation),
            cwd=folder,
            start_new_session=True,
        )
        in_time = _wait(child, limits.wall_s)
        stdout, stderr = (files.read(name, 4 * KEPT).decode("utf-8", "replace")[:KEPT] for name in ("out", "err"))
        full = max(map(files.size, ("out", "err", "answer"))) >= limits.output_kib * 1024
        said = files.read("answer", limits.output_kib * 1024)
    ok, reason, error, values = _judge(child.returncode, in_time, full, said, len(questions))
    return Outcome(ok, reason, stdout, stderr, error, values)


def _wait(child: subprocess.Popen[bytes], wall_s: float) -> bool:
    """Whether it ended by itself; if not it is killed, and all of the sandbox with it, because bwrap dies with its processes."""
    handle = os.pidfd_open(child.pid)  # Popen.wait(timeout) sleeps up to 50 ms too long, as long as a whole program takes
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        in_time = bool(poll.poll(wall_s * 1000))
    finally:
        os.close(handle)
        os.killpg(child.pid, 9)  # even when it ended: without a sandbox something may go on in its group
        child.wait()
    return in_time


def _judge(status: int, in_time: bool, full: bool, said: bytes, asked: int) -> tuple[bool, Reason, str, tuple[Any, ...]]:
    """(ok, reason, error, values)."""
    if not in_time or status in (STARVED, -24):
        return False, "timeout", "", ()
    if full:
        return False, "output", "", ()
    if status < 0 or status > 128:
        return False, "killed", f"signal {-status if status < 0 else status - 128}", ()
    try:
        answer = json.loads(said)
        values = None if "error" in answer else tuple(_value(v) for v in answer["values"])
        error, text = str(answer.get("error", "")), str(answer.get("text", ""))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False, "ended early", "", ()
    if values is None:
        reason: Reason = {"MemoryError": "memory", "SystemExit": "ended early"}.get(error, "failed")  # type: ignore[assignment]
        return False, reason, f"{error}: {text}"[:KEPT], ()
    return (True, "passed", "", values) if len(values) == asked else (False, "ended early", "", ())


def _value(told: Any) -> Any:
    """What `plain` of the runner wrote. Raises ValueError, TypeError, KeyError or RecursionError for what it cannot have written."""
    if not isinstance(told, dict):
        return told
    ((kind, parts),) = told.items()
    if kind == "dict":
        return {_value(key): _value(part) for key, part in parts}
    if kind == "int":
        return int(parts, 16)
    if kind == "bytes":
        return bytes.fromhex(parts)
    if kind == "complex":
        return complex(*parts)
    if kind == "opaque":
        return Opaque(str(parts)[:100])
    return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}[kind](map(_value, parts))


class _Files:
    """Files in memory, without a name that anybody could open: what a program writes ends at its file size limit and never fills a pipe."""

    def __enter__(self) -> _Files:
        self.handles = {name: os.memfd_create(name) for name in ("in", "out", "err", "answer", "rules")}
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles.values():
            os.close(handle)

    def __getitem__(self, name: str) -> int:
        return self.handles[name]

    def write(self, name: str, content: bytes) -> None:
        os.pwrite(self.handles[name], content, 0)

    def size(self, name: str) -> int:
        return os.fstat(self.handles[name]).st_size

    def read(self, name: str, most: int) -> bytes:
        return os.pread(self.handles[name], most, 0)


def _limits(limits: Limits) -> list[tuple[str, int, int]]:
    """(name, soft, hard). NPROC holds for users other than root; the call filter holds for all."""
    size = limits.output_kib * 1024
    single = [("RLIMIT_AS", limits.memory_mib * MEBIBYTE), ("RLIMIT_FSIZE", size), ("RLIMIT_NOFILE", 64), ("RLIMIT_NPROC", 0), ("RLIMIT_CORE", 0)]
    return [("RLIMIT_CPU", limits.cpu_s, limits.cpu_s + 1), *((name, most, most) for name, most in single)]


def _python(isolation: Isolation) -> list[str]:
    """The base interpreter without site-packages and user settings."""
    base = Path(sys.base_prefix)
    own = base / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    inside = own if isolation == "none" or base.is_relative_to("/usr") else INSIDE / own.relative_to(base)
    return [str(inside), "-s", "-S", "-P", "-B", "-X", "utf8"]


def _environment(isolation: Isolation) -> dict[str, str]:
    """All there is. The hash seed makes the order of sets the same each time."""
    libraries = {"LD_LIBRARY_PATH": str((INSIDE if isolation == "sandbox" else Path(sys.base_prefix)) / "lib")}
    outside = Path(sys.base_prefix).is_relative_to("/usr")
    return {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"} | ({} if outside else libraries)


def _bwrap(limits: Limits) -> list[str]:
    """bwrap and all its options but the call filter."""
    base = Path(sys.base_prefix)
    named = ["user", "pid", "ipc", "uts", "net", "cgroup-try"]
    found = shutil.which("bwrap") or "bwrap"  # from our PATH, not from the program's
    command = [found, *(f"--unshare-{space}" for space in named), "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    command += ["--cap-drop", "ALL", "--new-session", "--die-with-parent", "--ro-bind", "/usr", "/usr"]
    for name in ("/lib", "/lib32", "/lib64"):
        path = Path(name)
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), name]
        elif path.is_dir():
            command += ["--ro-bind", name, name]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    if not base.is_relative_to("/usr"):
        command += ["--ro-bind", str(base), str(INSIDE)]
    for device in ("/dev/null", "/dev/urandom"):
        command += ["--dev-bind", device, device]
    return [*command, "--size", str(limits.file_mib * MEBIBYTE), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"]


CALLS: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {"socket": 41, "socketpair": 53, "clone": 56, "fork": 57, "vfork": 58, "ptrace": 101, "add_key": 248, "request_key": 249, "keyctl": 250}
        | {"unshare": 272, "perf_event_open": 298, "setns": 308, "bpf": 321, "userfaultfd": 323},
    ),
    "aarch64": (
        0xC00000B7,
        {"unshare": 97, "ptrace": 117, "socket": 198, "socketpair": 199, "add_key": 217, "request_key": 218, "keyctl": 219, "clone": 220}
        | {"perf_event_open": 241, "setns": 268, "bpf": 280, "userfaultfd": 282},
    ),
}
"""machine -> (its number in audit.h, system calls that a program is refused)."""
BOTH = {"io_uring_setup": 425, "clone3": 435}
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050001, 0x80000000
"""SECCOMP_RET_ALLOW; _ERRNO | EPERM; _KILL_PROCESS."""


def _rules(machine: str) -> bytes:
    """A seccomp filter in classic BPF: another architecture's calls kill (they have other numbers), the listed ones fail with EPERM."""
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    audit, calls = CALLS[machine]
    refused = sorted({**calls, **BOTH}.values())
    steps = [(load, 0, 0, 4), (equal, 1, 0, audit), (give, 0, 0, KILL), (load, 0, 0, 0), (at_least, 0, 1, 0x40000000), (give, 0, 0, KILL)]  # x32
    steps += [(equal, len(refused) - i, 0, number) for i, number in enumerate(refused)]
    steps += [(give, 0, 0, ALLOW), (give, 0, 0, REFUSE)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


RULES = _rules(platform.machine()) if platform.machine() in CALLS else b""
