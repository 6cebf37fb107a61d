"""A run's dataset in the formats of other trainers, and its soft prompt as a PEFT adapter. Only the dataset's synthetic rows are read."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from seedbed.errors import ComponentError, StoreError
from seedbed.outcome import not_compared
from seedbed.store import read_json, write_json, write_lines
from seedbed.task import Task

Format = Literal["jsonl", "messages", "alpaca", "peft"]
ASKED = {"pair": "Give the", "qa": "Answer with the", "classification": "Give the", "data2text": "Describe the data: write the", "code": "Write the"}
"""Kind of task -> how Alpaca's instruction begins; the other kinds: "Write the"."""


def export(run: Path, form: Format, out: Path | None = None) -> Path:
    """Writes a finished run's rows as JSON lines, or its soft prompt as a PEFT adapter folder, to `out` (RUN/exports/...); gives the path.

    jsonl: the dataset's columns. messages: a chat, the inputs as user and the target as assistant (plain: the text as assistant).
    alpaca: instruction, input, output. These two hold no probabilities of labels: a line on standard error says so where rows have some.
    peft: the prompt averaged over its sources' contexts, as PROMPT_TUNING (Lester et al. 2021, arXiv:2104.08691). Raises StoreError
    where the run is not finished or `out` is there already, ComponentError where its teacher is no soft prompt.
    """
    if out is not None and out.exists():
        raise StoreError(f"{out} is there already, and would be lost. Remove it, or give another --out.")
    not_compared(run)
    if form == "peft":
        return _adapter(run, out or run / "exports" / "peft")
    rows, task = dataset_rows(run), _task(run)
    labels = sorted({str(r[task.target]) for r in rows}) if task.has_labels and task.target else []
    records: dict[Format, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "jsonl": lambda r: r,
        "messages": lambda r: _chat(task, r),
        "alpaca": lambda r: _alpaca(task, r, labels),
    }
    path = out or run / "exports" / f"{'rows' if form == 'jsonl' else form}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, [records[form](r) for r in rows])
    if form != "jsonl" and labels and any(r["provenance"].get("annotations") for r in rows):
        print(f"note: {form} has each row's label alone. The annotators' probabilities, from which the run's student may have learned, "
              "are in jsonl, provenance.annotations.", file=sys.stderr)  # fmt: skip
    return path


def dataset_rows(run: Path) -> list[dict[str, Any]]:
    """The rows of a finished run's dataset. Raises StoreError where there is none, or it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted((run / "dataset" / "data").glob("*.parquet"))
    if not files:
        raise StoreError(f"{run} has no dataset yet. Run its recipe to the end, or give the folder of a finished run.")
    try:
        rows: list[dict[str, Any]] = [row for file in files for row in pq.read_table(file).to_pylist()]
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{run / 'dataset'} is damaged: {error}. Run the recipe again: finished steps are kept.") from error
    if not all(row.get("synthetic") is True and isinstance(row.get("provenance"), dict) for row in rows):
        raise StoreError(f"{run / 'dataset'} holds a row that no run wrote: not synthetic, or without provenance. Take its file out.")
    return rows


def _task(run: Path) -> Task:
    path = run / "recipe.toml"
    try:
        return TypeAdapter(Task).validate_python(tomllib.loads(path.read_text(encoding="utf-8"))["task"])
    except (OSError, KeyError, ValueError) as error:
        raise StoreError(f"{path} is missing or damaged: {error}. Run the recipe again with --replace: finished steps are kept.") from error


def _shown(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """The values of some columns; more than one carry their names."""
    texts = {n: row[n] if isinstance(row[n], str) else json.dumps(row[n], ensure_ascii=False) for n in names}
    return "\n".join(texts.values() if len(texts) == 1 else (f"{_words(n).capitalize()}: {t}" for n, t in texts.items()))


def _words(column: str) -> str:
    return column.replace("_", " ").strip()


def _chat(task: Task, row: Mapping[str, Any]) -> dict[str, Any]:
    if task.target is None:
        return {"messages": [{"role": "assistant", "content": str(row[task.inputs[0]])}]}
    asked, told = _shown(row, task.inputs), _shown(row, [task.target])
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": told}]}


def _alpaca(task: Task, row: Mapping[str, Any], labels: Sequence[str]) -> dict[str, str]:
    if task.target is None:
        return {"instruction": f"Write one {_words(task.inputs[0])}.", "input": "", "output": str(row[task.inputs[0]])}
    among = f" Allowed: {', '.join(labels)}." if labels else ""
    instruction = f"{ASKED.get(task.kind, 'Write the')} {_words(task.target)}.{among}"
    return {"instruction": instruction, "input": _shown(row, task.inputs), "output": _shown(row, [task.target])}


def _adapter(run: Path, out: Path) -> Path:
    """A folder that `peft.PeftModel.from_pretrained(base, folder)` loads; the base is the model that the prompt was fitted on."""
    manifest = run / "manifest.json"
    steps = read_json(manifest).get("steps", {}) if manifest.is_file() else {}
    if "teacher" not in steps:
        raise StoreError(f"{run} has no fitted teacher. Give the folder of a finished run, for example runs/helpdesk.")
    teacher = run / steps["teacher"]
    if not (teacher / "prompt.json").is_file():
        raise ComponentError(f"{run}: its teacher is no soft prompt, so there is no adapter to export. Allowed here: jsonl, messages, alpaca.")
    facts = read_json(teacher / "prompt.json")
    if facts["form"] == "amortised-lora":
        raise ComponentError(
            f'{run}: its soft prompt stands before a model with an adapter of its own (prompt = "amortised-lora"), and a PEFT folder holds one of '
            f"the two. The adapter is {steps['teacher']}/adapter in the run; a prompt of a frozen model (amortised, mc, nsp) can be exported."
        )
    from safetensors.torch import save_file

    from seedbed.lm.decode import average_prompt

    prompt = average_prompt(teacher)  # (t, d)
    out.mkdir(parents=True, exist_ok=True)
    save_file({"prompt_embeddings": prompt.contiguous()}, out / "adapter_model.safetensors")
    config = {
        "peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "inference_mode": True, "prompt_tuning_init": "RANDOM",
        "base_model_name_or_path": facts["model"],
        "num_virtual_tokens": prompt.shape[0], "token_dim": prompt.shape[1], "num_transformer_submodules": 1,
    }  # fmt: skip
    write_json(out / "adapter_config.json", config)
    return out
