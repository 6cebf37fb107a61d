"""Plays a page: its commands and code run as a reader would run them, and what they print stands beside what the page shows.

- bash: line by line. `seedbed` runs here, `ls` and `head` run, `make` must have the target; what sets up an environment is read, not run.
- python: run, all blocks of a page in one session. When the first line is `# name.py`, the block is that file instead.
- toml: when the first line is `# name.toml`, that file. Others are pieces of a recipe and must fit one.
- text, after one of these: what was printed, where `...` stands for anything. After `<!-- not compared: why -->` it is there to be read.

`python tests/pages.py docs/tour.md` plays a page without a budget, in a fresh folder, and writes what was printed
into it, also where that is not compared.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"(?P<loose><!-- not compared: [^\n]+ -->\n)?^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.M | re.S)
NAMED = re.compile(r"# ([\w./-]+\.(?:py|toml))\n")
HELPDESK = "seedbed run recipes/helpdesk.toml"
SHORT = ["generator.epochs=1", "generator.batch=4", "generate.count=40", "gain.seeds=1", "gain.volumes=[1]", 'filter=[{kind="form"}]']
"""Of the example; one epoch writes no text that a classifier agrees with, so no filter asks for it."""
LESS = {
    "label.toml": ["sample.rows=40", "annotate.count=24", "gain.seeds=1"],
    "side.toml": ["sample.rows=40", "generate.count=16", "annotate.count=16"],
    "ways.toml": ["sample.rows=40", "generate.count=16"],
}
"""Of the recipes of a page."""
READ_ONLY = ("source", "git", "pip", "cd")


@dataclass(frozen=True)
class Shown:
    """An output on a page. start, end: of its text in the page. loose: not compared. got: what was printed."""

    text: str
    start: int
    end: int
    loose: bool
    got: str

    @property
    def same(self) -> bool:
        return bool(re.fullmatch(re.escape(_tidy(self.text)).replace(r"\.\.\.", ".*"), _tidy(self.got), re.S))


def seedbed(arguments: list[str]) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of the command line, run in this process: a new one imports for seconds."""
    from seedbed import cli

    argv, sys.argv = sys.argv, ["seedbed", *arguments]
    out, complaint, status = io.StringIO(), io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaint):
            cli.main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv = argv
    return status, out.getvalue(), complaint.getvalue()


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


@dataclass
class Desk:
    """A folder as a newcomer has it. short: runs of the example get a small budget. log: what `seedbed` was asked for."""

    folder: Path
    short: bool = True
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("recipes", "examples"):
            shutil.copytree(ROOT / name, self.folder / name)
        shutil.copy(ROOT / "examples/helpdesk.csv", self.folder / "tickets.csv")
        (self.folder / "their_folder").mkdir()
        rows = (ROOT / "examples/helpdesk.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        (self.folder / "their_folder/rows.csv").write_text("".join(rows[:101]), encoding="utf-8")

    def play(self, page: str) -> list[Shown]:
        """Runs all blocks of the page's text. Raises AssertionError where a command fails, and what the code raises."""
        space: dict[str, Any] = {"__name__": "__page__"}
        printed, found = "", []
        with self._seated():
            for block in FENCE.finditer(page):
                language, body = block["language"], block["body"]
                if language == "text":
                    found.append(Shown(body, block.start("body"), block.end("body"), bool(block["loose"]), printed))
                elif named := NAMED.match(body):
                    Path(named[1]).write_text(body, encoding="utf-8")
                elif language == "bash":
                    printed = "".join(map(self._command, body.splitlines()))
                elif language == "python":
                    with contextlib.redirect_stdout(io.StringIO()) as out:
                        exec(compile(body, f"line {page[: block.start()].count(chr(10)) + 1} of the page", "exec"), space)
                    printed = out.getvalue()
                elif language == "toml":
                    self._piece(body)
        return found

    @contextlib.contextmanager
    def _seated(self) -> Iterator[None]:
        before = set(sys.modules)
        sys.path.insert(0, str(self.folder))
        columns = os.environ.get("COLUMNS")
        os.environ["COLUMNS"] = "110"
        try:
            with contextlib.chdir(self.folder):
                yield
        finally:
            sys.path.remove(str(self.folder))
            os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
            for name in set(sys.modules) - before:  # a page's own modules; another page may have one of the same name
                if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(self.folder)):
                    del sys.modules[name]

    def _command(self, line: str) -> str:
        """What one line of a bash block prints."""
        command, _, comment = line.partition("  #")
        words = shlex.split(command, comments=True)
        if not words or words[0] in READ_ONLY:
            return ""
        if words[0] == "make":
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), f"the Makefile has no {words[1]!r}"
            return ""
        if words[0] in ("ls", "head"):
            return subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert words[0] == "seedbed", f"nobody knows how to try {line!r}"
        words, target = (words[: words.index(">")], words[words.index(">") + 1]) if ">" in words else (words, "")
        if self.short and words[1] in ("run", "estimate", "preview") and "recipes/helpdesk.toml" in words:
            words += [word for setting in SHORT for word in ("--set", setting)]
        elif self.short and words[1] in ("run", "compare") and words[2] in LESS:
            words += [word for setting in LESS[words[2]] for word in ("--set", setting)]
        elif self.short and "their_folder" in words:
            words += ["--set", "metric=[]", "--set", "gain.seeds=1", "--set", "gain.volumes=[1]"]
        elif self.short and command.startswith("seedbed run tickets.toml"):
            words[1] = "check"  # the same run as the example's, under another name
        wanted = int((re.search(r"fails with (\d)", comment) or ["", "0"])[1])
        status, printed, complaint = self.seedbed(words[1:])
        assert status == wanted, f"{line}: exit status {status}\n{complaint}"
        if target:
            Path(target).write_text(printed, encoding="utf-8")
            printed = ""
        return printed + complaint * (wanted != 0)

    def seedbed(self, arguments: list[str]) -> tuple[int, str, str]:
        """(exit status, standard output, standard error) of the command line, run in this process."""
        self.log.append(shlex.join(arguments))
        return seedbed(arguments)

    def _piece(self, body: str) -> None:
        from seedbed.recipe import build

        raw = tomllib.loads(body)
        whole = tomllib.loads(Path("recipes/helpdesk.toml").read_text(encoding="utf-8"))
        if raw.get("engine", {}).get("kind", "local") != "local" and "generator" not in raw:
            raw["generator"] = {"kind": "hard"}  # the one that every engine can serve
        sample = raw.get("sample", {"path": "tickets.csv"})
        build(whole | raw | {"sample": sample}, Path())


def main(names: list[str]) -> None:
    for name in names:
        page = (ROOT / name).read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            desk = Desk(Path(folder), short=False)
            if "runs/helpdesk" in page and f"\n{HELPDESK}\n" not in page:  # a page that looks at the run of another
                desk.play(f"```bash\n{HELPDESK}\n```\n")
            shown = desk.play(page)
        for block in reversed(shown):
            if block.loose or not block.same:
                page = page[: block.start] + _tidy(block.got) + "\n" + page[block.end :]
        (ROOT / name).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
