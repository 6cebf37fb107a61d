"""Whether the models that a recipe names are there, asked before hours of work need them. Reads no weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from seedbed.errors import RecipeError, StoreError
from seedbed.parts import OWN_WEIGHTS, SHIPPED, Component, model_folder
from seedbed.recipe import Recipe
from seedbed.store import read_json

UNTUNED = "LM not instruction-tuned: no evidence for or against prompts that instruct"

BLOCKS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
"""What a config.json calls the number of its model's blocks."""


def need_weights(recipe: Recipe) -> None:
    """Raises RecipeError for a model that is a shape, with every model that is neither a folder nor a hub name that can be reached, and for a
    student of more blocks than its model has."""
    if recipe.model.shape:
        raise RecipeError(["[model] shape describes a model without weights: it can be estimated, not run. Remove shape; name alone is the model."])
    if problems := absent(recipe) or too_deep(recipe):
        raise RecipeError(problems)


def absent(recipe: Recipe) -> list[str]:
    """A sentence for each model or embedder, those of nested parts too, that is not there. A hub name's config.json is fetched, unless
    HF_HUB_OFFLINE says not to."""
    return [problem for where, name in dict.fromkeys(_named(recipe)) if (problem := _problem(where, name))]


def too_deep(recipe: Recipe) -> list[str]:
    """A sentence for a student that is to keep more blocks than its model has; none where its config.json is not at hand."""
    student = recipe.student.settings
    layers, name = getattr(student, "layers", None), getattr(student, "model", None)
    if not (isinstance(layers, int) and isinstance(name, str)):
        return []
    try:
        config = read_json(_config(name))
    except (StoreError, OSError, ValueError):  # what is wrong with it is said elsewhere, or when it is loaded
        return []
    config = config.get("text_config") or config
    depth = next((config[key] for key in BLOCKS if isinstance(config.get(key), int)), layers)
    return [f"[student] layers = {layers}: {name!r} has {depth} blocks. Allowed: 1 to {depth}."] if layers > depth else []


def _config(name: str) -> Path:
    """A model's config.json; a hub name's is fetched. Raises what the hub raises."""
    if (folder := model_folder(name)).is_dir():
        return folder / "config.json"
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(name, "config.json"))


def _named(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(setting, model name) of every part that loads a model itself, parts of parts too."""
    own = recipe.engine.kind in OWN_WEIGHTS
    if own and not recipe.model.shape:
        yield "[model] name", recipe.lm
    parts = [("[generator]", recipe.generator), ("[student]", recipe.student)]
    for role, components in (("annotator", recipe.annotators), ("filter", recipe.filters), ("metric", recipe.metrics)):
        parts += [(f"[{role} {i + 1}]", component) for i, component in enumerate(components)]
    for where, component in parts:
        yield from _of(where, component, own)


def _of(where: str, component: Component, own: bool) -> Iterator[tuple[str, str]]:
    """own: whether the recipe's engine loads models itself; a `model` that it is asked for is else its word for it."""
    for name, model in component.models.items():
        if name != "model" or own or getattr(component.settings, "engine", True):
            yield f"{where} {name}", model
    for field in fields(component.settings):
        if isinstance(part := getattr(component.settings, field.name), Component):
            yield from _of(f"{where} {field.name}", part, own)


def _problem(where: str, name: str) -> str:
    if name in SHIPPED:
        return ""
    allowed = f"Allowed: {', '.join(SHIPPED)} (shipped), a folder with config.json and safetensors, or a hub name that this machine can reach."
    folder = Path(name)
    if folder.is_dir():
        return "" if name and (folder / "config.json").is_file() else f"{where} = {name!r}: this folder has no config.json. {allowed}"
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        _config(name)
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
