"""Whether this machine can do the work: each thing that a run leans on is tried, and what is wrong is said with what to change."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from seedbed.errors import ModelError, SeedbedError
from seedbed.recipe import Recipe

SEEDLING_SHA256 = "1233a11685fb66f028e176f0523abd3dbd703d9e4fe8a45c512ab329a69a531c"
"""Of the shipped model.safetensors."""
LEAST_MEMORY, LEAST_DISK = 2e9, 2e9
"""Bytes below which even a run of the shipped models may not end."""
APART = 0.01
"""Nats of a text of some tokens that the local engine and transformers may differ by, in fp32."""
State = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Check:
    """state: "note" is what a run may do without. found: what was seen. advice: what to change, "" where nothing is wrong."""

    name: str
    state: State
    found: str
    advice: str = ""


def doctor(recipe: Recipe | None = None, out: Path | str = "runs") -> list[Check]:
    """Tries everything out; with a recipe its model and engine too. Raises nothing that it can report."""
    checks = [("packages", _packages), ("memory", _memory), ("disk", lambda: _disk(Path(out))), ("gpu", _gpu), ("seedling", _seedling)]
    checks += [("minilm", _minilm), ("engine local", _local), ("sandbox", _sandbox), ("ray", _ray)]
    if recipe is not None:
        checks += [("model of the recipe", lambda: _model(recipe)), (f"engine {recipe.engine.kind}", lambda: _engine(recipe))]
    return [found for name, check in checks for found in _tried(name, check)]


def _tried(name: str, check: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(check())
    except SeedbedError as error:
        return [Check(name, "bad", type(error).__name__, str(error))]
    except OSError as error:
        return [Check(name, "bad", f"{error.filename or name}: {error.strerror or error}", "Check the path, its permissions and the disk.")]
    except Exception as error:  # a broken installation raises anything
        return [Check(name, "bad", f"{type(error).__name__}: {error}", "Install seedbed and what it needs again, in an environment of its own.")]


def _packages() -> Iterator[Check]:
    """What pyproject.toml asks for, extras that are there included."""
    from packaging.requirements import Requirement

    wrong, seen = [], 0
    for line in requires("seedbed") or []:
        asked = Requirement(line)
        extra = asked.marker is not None and not asked.marker.evaluate({"extra": ""})
        try:
            found = version(asked.name)
        except PackageNotFoundError:
            wrong += [] if extra else [f"{asked.name} is missing"]
            continue
        seen += 1
        if not asked.specifier.contains(found, prereleases=True):
            wrong.append(f"{asked.name} {found} is not {asked.specifier}")
    advice = f"pip install --upgrade seedbed, or these: {'; '.join(wrong)}." if wrong else ""
    yield Check("packages", "bad" if wrong else "good", f"{seen} looked at, {len(wrong)} wrong", advice)


def _memory() -> Iterator[Check]:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").is_file() else []
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), free)  # with what caches would give back
    low = free < LEAST_MEMORY
    yield Check("memory", "bad" if low else "good", f"{free / 1e9:.1f} GB free", "End other programs, or take a larger machine." if low else "")


def _disk(out: Path) -> Iterator[Check]:
    """Room, and whether the file system can lock, rename and keep what a run relies on."""
    place = next(p for p in (out.resolve(), *out.resolve().parents) if p.is_dir())
    free = shutil.disk_usage(place).free
    yield Check(
        "disk", "bad" if free < LEAST_DISK else "good", f"{free / 1e9:.1f} GB free in {place}", "Give another --out." if free < LEAST_DISK else ""
    )
    with tempfile.TemporaryDirectory(dir=place, prefix=".doctor-") as name:
        a, b = Path(name) / "a", Path(name) / "b"
        try:
            with a.open("wb") as file, a.open("rb") as other:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.write(b"x")
                os.fsync(file.fileno())
                try:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    raise OSError("a second lock on one file was granted")
                except BlockingIOError:
                    pass
            a.replace(b)
            yield Check("file system", "good", "locks, renames and flushes")
        except OSError as error:
            yield Check("file system", "bad", str(error), "Two runs in one folder would not be told apart there: give an --out on a local disk.")


def _gpu() -> Iterator[Check]:
    import torch

    for i in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(i)
        made, allowed = torch.ones(64, 64, device=f"cuda:{i}") @ torch.ones(64, 64, device=f"cuda:{i}"), 64.0
        good = bool((made == allowed).all())
        yield Check(
            f"gpu {i}", "good" if good else "bad", f"{card.name}, {card.total_memory / 1e9:.0f} GB", "" if good else "It does not multiply right."
        )
    if not torch.cuda.device_count():
        there = shutil.which("nvidia-smi") is not None and Path("/dev/nvidia0").exists()
        advice = f"There is one that torch {torch.__version__} does not see: install a build of torch for CUDA." if there else ""
        yield Check("gpu", "bad" if there else "note", "none; models run on the processor", advice)


def _seedling() -> Iterator[Check]:
    from seedbed.parts import model_folder
    from seedbed.store import file_hash

    path = model_folder("seedling") / "model.safetensors"
    found = file_hash(path) if path.is_file() else "missing"
    good = found == SEEDLING_SHA256
    advice = "" if good else f"model.safetensors of seedling must have SHA-256 {SEEDLING_SHA256[:12]}...: install seedbed again."
    yield Check("seedling", "good" if good else "bad", f"SHA-256 {found[:12]}", advice)


def _minilm() -> Iterator[Check]:
    from seedbed.lm.embed import MINILM_SHA256, embed, minilm_folder

    minilm_folder()  # raises where the file is missing or another
    a, b, c = embed(["the cat sat on the mat", "a cat was sitting on a mat", "quarterly revenue rose"])
    if not float(a @ b) > float(a @ c) + 0.3:
        raise ModelError("the sentence encoder finds unlike texts alike. Install torch and transformers again.")
    yield Check("minilm", "good", f"SHA-256 {MINILM_SHA256[:12]}, tells texts apart")


def _local() -> Iterator[Check]:
    """Log-likelihoods of the local engine, read in its own way, against a plain pass of transformers' model."""
    import torch

    from seedbed.engines.local import Local
    from seedbed.lm.embeds import PROBES
    from seedbed.lm.load import load
    from seedbed.types import ModelRef, Prompt

    session, lm, worst = Local(precision="fp32").open(ModelRef("seedling")), load("seedling"), 0.0
    for text, after in zip(PROBES, (" there was a dog.", " the capital of France?", " later that day"), strict=True):
        start, end = [lm.bos, *lm.encode(text)], lm.encode(after)
        with torch.inference_mode():
            logs = torch.log_softmax(lm.model(torch.tensor([start + end], device=lm.device), use_cache=False).logits[0].float(), dim=-1)
        plain = sum(float(logs[len(start) - 1 + i, token]) for i, token in enumerate(end))
        worst = max(worst, abs(session.score(Prompt(text, 0), [after])[0][0] - plain))
    advice = "" if worst <= APART else f"It may be {APART} at most: install the versions of constraints.txt."
    yield Check("engine local", "bad" if advice else "good", f"{worst:.1e} nats from transformers at most, {len(PROBES)} texts", advice)


def _sandbox() -> Iterator[Check]:
    from seedbed.errors import SandboxError
    from seedbed.sandbox import ready

    try:
        ready()
        yield Check("sandbox", "good", "generated code runs apart")
    except SandboxError as error:  # only tasks of code need one
        yield Check("sandbox", "note", "none", str(error))


def _ray() -> Iterator[Check]:
    try:
        yield Check("ray", "good", version("ray"))
    except PackageNotFoundError:
        yield Check("ray", "note", "not installed", "Only --on ray needs it: pip install 'seedbed[ray]'.")


def _model(recipe: Recipe) -> Iterator[Check]:
    from seedbed.parts import model_identity
    from seedbed.weights import need_weights

    need_weights(recipe)
    yield Check("model of the recipe", "good", f"{recipe.model.name}, fingerprint {model_identity(recipe.lm)}")


def _engine(recipe: Recipe) -> Iterator[Check]:
    """Opens it; engines that are not ours compare themselves with transformers when they are opened."""
    from seedbed.types import ModelRef, Prompt, Sampling

    session = recipe.engine.settings.open(ModelRef(recipe.lm))
    try:
        answers = list(session.complete([(0, Prompt("Once upon a time", 0))], Sampling(0.0, 1.0, 4)))
        facts: dict[str, Any] = dict(session.describe())
    finally:
        getattr(session, "close", lambda: None)()
    said = ", ".join(f"{key} {value}" for key, value in facts.get("parity", {}).items())
    problem = answers[0][1].problem if answers else "it gave no answer"
    yield Check(
        f"engine {recipe.engine.kind}", "bad" if problem else "good", f"answers{f'; parity with transformers: {said}' if said else ''}", problem
    )


def to_json(checks: list[Check]) -> dict[str, Any]:
    return {"good": all(c.state != "bad" for c in checks), "checks": [asdict(c) for c in checks]}
