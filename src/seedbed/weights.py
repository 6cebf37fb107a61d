"""Whether the models that a recipe names are there, asked before hours of work need them. Reads no weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from seedbed.errors import RecipeError
from seedbed.parts import OWN_WEIGHTS, SHIPPED, Component
from seedbed.recipe import Recipe

UNTUNED = "LM not instruction-tuned: no evidence for or against prompts that instruct"


def need_weights(recipe: Recipe) -> None:
    """Raises RecipeError for a model that is a shape, and with every model that is neither a folder nor a hub name that can be reached."""
    if recipe.model.shape:
        raise RecipeError(["[model] shape describes a model without weights: it can be estimated, not run. Remove shape; name alone is the model."])
    if problems := absent(recipe):
        raise RecipeError(problems)


def absent(recipe: Recipe) -> list[str]:
    """A sentence for each model or embedder that is not there. A hub name's config.json is fetched, unless HF_HUB_OFFLINE says not to."""
    return [problem for where, name in dict.fromkeys(_named(recipe)) if (problem := _problem(where, name))]


def _named(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(setting, model name) of every part that loads a model itself."""
    if recipe.engine.kind in OWN_WEIGHTS and not recipe.model.shape:
        yield "[model] name", recipe.lm
    parts = [("[generator]", recipe.generator), ("[student]", recipe.student)]
    for role, components in (("annotator", recipe.annotators), ("filter", recipe.filters), ("metric", recipe.metrics)):
        parts += [(f"[{role} {i + 1}]", component) for i, component in enumerate(components)]
    for where, component in parts:
        yield from _of(where, component)


def _of(where: str, component: Component) -> Iterator[tuple[str, str]]:
    """A `model` beside an `engine` of its own is that engine's word for it."""
    settings = component.settings
    for field in ("embedder",) if hasattr(settings, "engine") else ("embedder", "model"):
        if isinstance(name := getattr(settings, field, None), str):
            yield f"{where} {field}", name


def _problem(where: str, name: str) -> str:
    if name in SHIPPED:
        return ""
    allowed = f"Allowed: {', '.join(SHIPPED)} (shipped), a folder with config.json and safetensors, or a hub name that this machine can reach."
    folder = Path(name)
    if folder.is_dir():
        return "" if name and (folder / "config.json").is_file() else f"{where} = {name!r}: this folder has no config.json. {allowed}"
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        hf_hub_download(name, "config.json")
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        return f"{where} = {name!r}: there is no such folder, and the hub does not give it ({type(error).__name__}). {allowed}"
    return ""


def untuned(recipe: Recipe) -> str:
    """UNTUNED where a generator that instructs asks a model without a chat template, else ""; of a server's model nothing is known."""
    generator = recipe.generator.settings
    if not getattr(generator, "instructs", False) or getattr(generator, "engine", None) or recipe.engine.kind not in OWN_WEIGHTS:
        return ""
    from seedbed.lm.load import chat_template

    return "" if chat_template(recipe.lm) else UNTUNED
