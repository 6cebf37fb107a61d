"""The command line: verbs that read a recipe, call the API and print. Exit status: 0 done, 1 failed, 2 bad usage or recipe."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seedbed import __version__
from seedbed.errors import GateFailed, RecipeError, SeedbedError
from seedbed.printing import print_compared, print_decoder, print_estimate, print_price, print_run, print_scores

if TYPE_CHECKING:
    from seedbed.recipe import Recipe

PLAIN: dict[str, Any] = {"pretty_exceptions_enable": False, "rich_markup_mode": None}  # rich takes `[model]` in a help text for a style
app = typer.Typer(add_completion=False, no_args_is_help=True, help="Grow a training set from a few real examples, and prove it.", **PLAIN)

RecipeFile = Annotated[Path, typer.Argument(help="A recipe (TOML).")]
Sets = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. generator.tokens=32; filter.1 is the first.")]
Format = Literal["jsonl", "messages", "alpaca", "peft"]
AsJson = Annotated[bool, typer.Option("--json", help="Last line of output: one JSON object.")]


def main() -> None:
    """Entry point; errors of seedbed are printed without a traceback."""
    try:
        app()
    except RecipeError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        print(f"{len(error.problems)} problem{'s' * (len(error.problems) > 1)}.", file=sys.stderr)
        sys.exit(2)
    except SeedbedError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"{place}{error.strerror or error}. Check the path, its permissions and the disk; what is finished is kept.", file=sys.stderr)
        sys.exit(1)


@contextmanager
def _interruptible(command: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nStopped. What is finished is kept; go on with the same command:\n  {command}", file=sys.stderr)
        sys.exit(1)


def _version(asked: bool) -> None:
    if asked:
        print(f"seedbed {__version__}")
        raise typer.Exit


@app.callback()
def _options(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None: ...


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="A labelled file: CSV, JSONL(.gz) or Parquet.")],
    task: Annotated[str | None, typer.Option(help="Kind of task; guessed when not given.")] = None,
    inputs: Annotated[str | None, typer.Option(help="Input columns, separated by commas.")] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict.")] = None,
    test: Annotated[Path | None, typer.Option(help="A second labelled file, to measure on; else it is split from the first.")] = None,
    pool: Annotated[Path | None, typer.Option(help="A file of inputs without labels, to be labelled.")] = None,
) -> None:
    """Print a commented recipe guessed from a labelled file."""
    from seedbed.init import recipe_for

    print(recipe_for(file, task, inputs.split(",") if inputs else None, target, test, pool), end="")


@app.command()
def check(recipe: RecipeFile, sets: Sets = [], as_json: AsJson = False) -> None:  # noqa: B006 (typer copies it)
    """Name every problem of a recipe and its data at once."""
    from seedbed.checked import check as look

    try:
        found = look(_load(recipe, sets))
    except RecipeError as error:
        if as_json:
            print(json.dumps({"good": False, "problems": error.problems}))
        raise
    print(f"{recipe}: good. {found.words}.")
    print("".join(f"note: {line}\n" for line in found.notes), end="")
    if as_json:
        print(json.dumps(found.to_json()))


@app.command()
def estimate(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option(help="Folder for run folders: finished steps cost nothing.")] = Path("runs"),
    sets: Sets = [],  # noqa: B006
    ask: Annotated[bool, typer.Option("--ask", help="Send a server a few dozen requests, which it may charge, and measure it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Time, tokens, disk and memory of a run. From small measured pieces of it; of a [model] shape and of a server, computed."""
    from seedbed.estimate import estimate as work_out

    loaded = _load(recipe, sets)
    print("Trying small pieces of it, which may take a minute.", file=sys.stderr)
    found = work_out(loaded, out, ask).to_json()
    print_estimate(found)
    if as_json:
        print(json.dumps(found))


@app.command()
def preview(
    recipe: RecipeFile,
    n: Annotated[int, typer.Option("-n", help="Candidates to make.", min=1, max=100)] = 5,
    out: Annotated[Path, typer.Option(help="Folder for run folders: a finished teacher there is used.")] = Path("runs"),
    sets: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """A handful of candidates, fast. With the row filters' verdicts; the run folder is left as it is."""
    from seedbed.preview import preview as look

    found = look(_load(recipe, sets), n, out)
    print(f"From {found.teacher}.\n")
    for candidate, verdict in found.candidates:
        print(f"[{verdict}]\n{candidate.text}\n")
    if found.note:
        print(found.note)
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))


@app.command()
def run(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option(help="Folder for run folders.")] = Path("runs"),
    sets: Sets = [],  # noqa: B006
    replace: Annotated[bool, typer.Option("--replace", help="Make another recipe's results in the same folder anew.")] = False,
    minutes: Annotated[float | None, typer.Option("--max-minutes", help="Stop fitting and generating in time to end after about M minutes.")] = None,
    tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Generate at most T tokens in this call; votes are not counted.")] = None,
    cost: Annotated[float | None, typer.Option("--max-cost", help="Pay at most C in this call, by price_in and price_out of the engines.")] = None,
    on: Annotated[str, typer.Option(metavar="here|ray|ray://HOST:PORT", help="Where rows are completed: this process, or a Ray cluster.")] = "here",
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Make the I-th of N parts of the candidates and no more.")] = None,
    as_json: AsJson = False,
) -> None:
    """From sample to dataset, numbers and report. After a stop the same command goes on."""
    from seedbed.limits import Limits
    from seedbed.run import run as carry_out

    for most, hint in ((minutes, "--max-minutes"), (cost, "--max-cost")):
        if most is not None and not most > 0:
            raise typer.BadParameter(f"must be above 0. Got {most}.", param_hint=hint)
    if on not in ("here", "ray") and not on.startswith("ray://"):
        raise typer.BadParameter(f"must be here, ray or ray://HOST:PORT. Got {on!r}.", param_hint="--on")
    if cost is not None and on != "here":
        raise typer.BadParameter("money is counted where rows are completed: leave --on or --max-cost out.", param_hint="--max-cost")
    loaded = _load(recipe, sets)
    with _interruptible(shlex.join(["seedbed", *sys.argv[1:]])):
        if shard is not None:
            from seedbed.shards import make_shard, part_of

            place, start, made = make_shard(loaded, out, *part_of(shard), Limits(minutes, tokens, cost), on, replace)
            print(f"{place}: {made} rows from {start} on. When all shards are there: the same command without --shard.")
            if as_json:
                print(json.dumps({"folder": str(place), "start": start, "rows": made}))
            return
        done, gate = _with_gate(lambda: carry_out(loaded, out, replace=replace, limits=Limits(minutes, tokens, cost), on=on))
    print_run(done, {"Report": "report.html", "Dataset": "dataset"}, as_json, gate)


@app.command()
def compare(
    recipe: RecipeFile,
    generator: Annotated[str | None, typer.Option(help="Kinds of generator to compare, separated by commas; beside the recipe's [[arm]]s.")] = None,
    mode: Annotated[str | None, typer.Option(help="generate, annotate, annotate+generate, with commas; each arm's own when not given.")] = None,
    seeds: Annotated[int, typer.Option(help="Redraws of fit and dev.", min=1, max=100)] = 3,
    out: Annotated[Path, typer.Option(help="Folder for run folders.")] = Path("runs"),
    hours: Annotated[float | None, typer.Option(help="Stop after about H hours; unfinished cells say so, and the same command goes on.")] = None,
    sets: Sets = [],  # noqa: B006
    only: Annotated[bool, typer.Option("--estimate", help="Time, tokens and money of each arm, from small trials; nothing else is run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Several ways to grow in one table: which of them help. Arms x modes x seeds at an equal number of kept rows, against the real rows alone."""
    from seedbed import recipe as recipes
    from seedbed.compare import compare as carry_out

    if hours is not None and not hours > 0:
        raise typer.BadParameter(f"must be above 0. Got {hours}.", param_hint="--hours")
    loaded, modes = recipes.load(recipe, sets, generator.split(",") if generator else []), mode.split(",") if mode else []
    if only:
        from seedbed.priced import price

        print("Trying small pieces of each arm, which may take a minute an arm.", file=sys.stderr)
        print_price(priced := price(loaded, modes, seeds, out))
        print(json.dumps(priced) if as_json else "", end="\n" * as_json)
        return
    with _interruptible(shlex.join(["seedbed", *sys.argv[1:]])):
        found = carry_out(loaded, modes, seeds, out, hours, lambda line: print(line, file=sys.stderr, flush=True))
    print_compared(found)
    if as_json:
        print(json.dumps(vars(found) | {"folder": str(found.folder)}))


@app.command()
def evaluate(
    data: Annotated[str, typer.Argument(help="Anybody's rows: a file, a folder, or hub:owner/name[:split].")],
    real: Annotated[str | None, typer.Option(help="The real rows, likewise; split into fit, dev and test. A gain needs 100 of test.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe: the task, how columns are read ([evaluate]), metrics, student.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for run folders.")] = Path("runs"),
    sets: Sets = [],  # noqa: B006
    replace: Annotated[bool, typer.Option("--replace", help="Make another evaluation's results in the same folder anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure rows that any tool made against real ones. Scores, report and card; nothing is generated."""
    from seedbed.evaluate import evaluate as carry_out

    with _interruptible(shlex.join(["seedbed", *sys.argv[1:]])):
        done, gate = _with_gate(lambda: carry_out(data, real, recipe, out, sets=sets, replace=replace))
    print(f"Read {done.data['columns']}. Real: {done.data['real']}.")
    print_run(done, {"Report": "report.html", "Card": "card.md"}, as_json, gate)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A run folder, OUT/<name>.")],
    step: Annotated[str | None, typer.Argument(help="sample, teacher, candidates, answers, annotations, labels, kept, dropped or scores.")] = None,
    n: Annotated[int, typer.Option("-n", help="Rows to show.", min=1)] = 5,
    as_json: AsJson = False,
) -> None:
    """State, numbers and rows of a run. Or the table of a comparison."""
    from seedbed.show import rows_of, state_of

    if step is None:
        state = state_of(folder)
        print(state.get("table", ""), end="")
        for name, what in state.get("steps", {}).items():
            print(f"{name:24} {what}")
        if state.get("scores"):
            print_scores(state["scores"])
        if as_json:
            print(json.dumps(state))
        return
    rows = rows_of(folder, step, n)
    for row in rows:
        print(json.dumps(row, ensure_ascii=False) if as_json else "\n".join(f"{k}: {v}" for k, v in row.items()) + "\n")


@app.command()
def view(folder: Annotated[Path, typer.Argument(help="The folder of a finished run, OUT/<name>.")], as_json: AsJson = False) -> None:
    """Open a run's report in the browser. Prints its path, also where no browser can be opened."""
    from seedbed.show import open_report

    path, opened = open_report(folder)
    print(path)
    if not opened:
        print("No browser can be opened here: open that file in one.", file=sys.stderr)
    if as_json:
        print(json.dumps({"report": str(path), "opened": opened}))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished run, OUT/<name>.")],
    form: Annotated[Format, typer.Option("--format", help="How: rows as JSON lines in one of three forms, or the soft prompt as a PEFT adapter.")],
    out: Annotated[Path | None, typer.Option(help="New file (peft: folder) to write; RUN/exports/... when not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """A run's synthetic rows for other trainers. Or its soft prompt as a PEFT adapter."""
    from seedbed.export import export as write

    path = write(folder, form, out)
    print(path)
    if as_json:
        print(json.dumps({"format": form, "path": str(path)}))


@app.command("pretrain-prompt")
def pretrain_prompt(
    model: Annotated[str, typer.Option(help="A causal language model: seedling, a folder or a hub name.")],
    corpus: Annotated[list[Path] | None, typer.Option(help="Text (.txt, .gz, .xz; blank lines end documents); else the model writes it.")] = None,
    minutes: Annotated[float, typer.Option(help="Time to train now; the same command trains on.", min=0)] = 60.0,
    out: Annotated[Path, typer.Option(help="Folder for the decoder, for [generator] decoder; MODEL/decoder is found by itself.")] = Path("decoder"),
    as_json: AsJson = False,
) -> None:
    """Train an embedding decoder for a language model once. [generator] prompt = "amortised" then adapts it to a few rows."""
    from seedbed.lm.pretrain import pretrain
    from seedbed.written import write_corpus

    with _interruptible(shlex.join(["seedbed", *sys.argv[1:]])):
        found = pretrain(model, corpus or [write_corpus(model, out / "work", say=print)], out, minutes, say=print)
    print_decoder(found, out)
    if as_json:
        print(json.dumps(found))


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished run, OUT/<name>.")],
    recipe: Annotated[
        Path | None, typer.Option(help="The file that the run was made by: real rows are read, and verdicts and numbers worked out again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a run's hashes and claims again. Exit status 1 where something does not match."""
    from seedbed.verify import verify as check_again

    checks = check_again(folder, recipe)
    for c in checks:
        print(f"{'ok' if c.passed else 'NOT CHECKED' if c.passed is None else 'FAILED':12}{c.name:10}{c.why}")
    if as_json:
        print(json.dumps({"folder": str(folder), "checks": [{"name": c.name, "passed": c.passed, "why": c.why} for c in checks]}))
    if any(c.passed is False for c in checks):
        sys.exit(1)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Every component that ships, by role."""
    from seedbed.catalog import CATALOG

    for role, kinds in CATALOG.items():
        print(f"{role:10} {', '.join(kinds)}")
    if as_json:
        print(json.dumps({role: list(kinds) for role, kinds in CATALOG.items()}))


@app.command()
def explain(kind: Annotated[str, typer.Argument(help="A component's name: soft, filter:form or file.py:Class.")], as_json: AsJson = False) -> None:
    """What a component does, and its settings with defaults."""
    from seedbed.show import explanation

    found = explanation(kind)
    print(f"{found['role']} {found['kind']} (version {found['version']})\n\n{found['text']}\n")
    for name, setting in found["settings"].items():
        print(f"  {name} = {json.dumps(setting)}")
    if as_json:
        print(json.dumps(found))


@app.command()
def env(as_json: AsJson = False) -> None:
    """Versions, processor, memory and devices. What a bug report needs."""
    from seedbed.show import environment

    found = environment()
    for name, value in found.items():
        print(f"{name:24} {value}")
    if as_json:
        print(json.dumps(found))


@app.command()
def doctor(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe whose model and engine to try too.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for run folders.")] = Path("runs"),
    sets: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Try everything that a run leans on. Says what to change; exit status 1 where something is broken."""
    from seedbed.doctor import doctor as examine
    from seedbed.doctor import to_json

    checks = examine(_load(recipe, sets) if recipe else None, out)
    for check in checks:
        print(f"{check.state:5} {check.name:20} {check.found}" + (f"\n{'':26} {check.advice}" if check.advice else ""))
    if as_json:
        print(json.dumps(to_json(checks)))
    raise typer.Exit(any(check.state == "bad" for check in checks))


def _with_gate(work: Callable[[], Any]) -> tuple[Any, GateFailed | None]:
    """A run, and the gate that it failed: all is printed, and then the exit status says it."""
    try:
        return work(), None
    except GateFailed as error:
        return error.run, error


def _load(path: Path, sets: list[str]) -> Recipe:
    from seedbed import recipe

    return recipe.load(path, sets)


if __name__ == "__main__":
    main()
