"""The house: sizes, light imports, true exports, an honest example file."""

from __future__ import annotations

import ast
import csv
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import seedbed

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"


@pytest.mark.parametrize("code", ["import seedbed", "import seedbed.cli", "import seedbed.run", "import seedbed.recipe"])
def test_nothing_heavy_is_imported(code: str) -> None:
    heavy = "torch transformers sklearn matplotlib pyarrow pandas datasets"
    script = f"import sys; {code}; print([m for m in {heavy.split()!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert found == "[]"


def test_import_and_help_load_few_modules() -> None:
    """Time to start is modules to load: today 30 beyond the interpreter's own for `import seedbed`, 281 for `seedbed --help` (0.2 s of CPU)."""
    for code, most in (("import seedbed", 50), ("from seedbed.cli import app\ntry: app(['--help'])\nexcept SystemExit: pass", 400)):
        script = f"import sys; before = len(sys.modules)\n{code}\nprint(len(sys.modules) - before)"
        found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()[-1]
        assert int(found) <= most, code


def test_every_library_that_is_imported_is_declared() -> None:
    """What another library happens to bring may be gone with its next version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    declared = {re.split(r"[^\w.-]", line)[0].replace("-", "_").lower() for line in lines}
    imported = set[str]()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.split(".")[0] for name in names}
    imported -= {*sys.stdlib_module_names, "seedbed"}
    assert {{"sklearn": "scikit_learn"}.get(name, name) for name in imported} <= declared


TRAINING = """
import sys, pathlib
from seedbed.generators.soft import Soft
from seedbed.task import Task
from seedbed.types import Example, Sample
rows = tuple(Example(str(i), {"text": f"play song {i}", "label": "music"}) for i in range(4))
sample = Sample(Task("classification", ("text",), "label", ("music",)), rows[:3], rows[3:], ())
Soft(prompt="nsp", tokens=2, epochs=1).fit(sample, "seedling", 0, pathlib.Path(sys.argv[1]))
print([m for m in ("trl", "sentence_transformers", "pandas", "datasets", "sklearn", "peft") if m in sys.modules])
"""


@pytest.mark.slow
def test_training_loads_no_library_that_it_does_not_need(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", TRAINING, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", [["--help"], ["list"], ["explain", "soft"], ["check", "recipes/helpdesk.toml"]])
def test_light_verbs_load_no_torch(verb: list[str]) -> None:
    script = (
        "import sys\nfrom seedbed.cli import app\n"
        f"try: app({verb!r})\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_public_names_exist_and_are_sorted() -> None:
    assert sorted(seedbed.__all__) == seedbed.__all__
    assert set(dir(seedbed)) == {*seedbed.__all__, "__version__"}
    assert all(getattr(seedbed, name) is not None for name in seedbed.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = seedbed.nothing


def _messages() -> list[str]:
    with (ROOT / "examples/helpdesk.csv").open(newline="", encoding="utf-8") as file:
        return [row["message"] for row in csv.DictReader(file)]


def test_the_example_is_varied() -> None:
    """No run of five words stands in more than 1 % of the rows; lengths and queues vary."""
    messages = _messages()
    assert len(messages) >= 600
    runs: Counter[str] = Counter()
    for message in messages:
        words = re.findall(r"\w+", message.lower())
        runs.update({" ".join(words[i : i + 5]) for i in range(len(words) - 4)})
    assert runs.most_common(1)[0][1] <= 0.01 * len(messages)
    lengths = sorted(len(m.split()) for m in messages)
    assert lengths[len(lengths) // 10] <= 8
    assert lengths[-len(lengths) // 10] >= 35
    assert len(set(messages)) == len(messages)
    with (ROOT / "examples/helpdesk.csv").open(newline="", encoding="utf-8") as file:
        queues = Counter(row["queue"] for row in csv.DictReader(file))
    assert len(queues) == 12
    assert min(queues.values()) < 25 < 75 < max(queues.values())


def test_the_example_names_nobody() -> None:
    for message in _messages():
        assert not re.search(r"\S+@\S+|https?://|www\.", message), message
        assert not re.search(r"\d{4,}|\+\d", re.sub(r"\b(19|20)\d\d\b", "", message)), message
        assert not re.search(r"\b(Mr|Mrs|Ms|Dr|Miss)\.? [A-Z]", message), message
        assert not re.search(r"\b\d+ \w+ (street|road|avenue|lane)\b", message, re.I), message
