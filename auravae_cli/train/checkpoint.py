"""Checkpoints: the whole state of a run, from which it resumes as if nothing had happened."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from auravae_cli.errors import ConfigError, WeightsError
from auravae_cli.files.atomic import atomic_file
from auravae_cli.files.canonical_json import read_json, write_json
from auravae_cli.train.loop import State
from auravae_cli.train.optimizers import load_moments
from auravae_cli.train.recipe import Recipe, Stage
from auravae_cli.train.trainable import with_blocks

FILE_NAME = "checkpoint.pt"
# May differ between the parts of one run: it changes where things are, not what is computed.
FREE = ("checkpoint_every", "lpips_weights", "data.sources", "compile")
# A recipe cannot change these within a run, since a checkpoint's tensors belong to them.
FIXED = ("architecture.", "space.", "equivariance", "optimizer.kind")
_MODULES = ("autoencoder", "ema", "discriminator")
_OPTIMIZERS = ("optimizers", "discriminator_optimizers")


def write_checkpoint(path: Path, state: State, recipe: Recipe) -> None:
    """Write the state atomically. Raises OutputError."""
    content: dict[str, Any] = {"step": state.step, "recipe": write_json(facts(recipe))}
    for name in _MODULES:
        module = getattr(state, name)
        content[name] = None if module is None else module.state_dict()
    for name in _OPTIMIZERS:
        content[name] = [optimizer.state_dict() for optimizer in getattr(state, name)]
    with atomic_file(path) as file:
        torch.save(content, file)


def read_run(
    path: Path, state: State, recipe: Recipe, is_new_recipe: bool = False
) -> tuple[str, ...]:
    """Fill ``state`` from a run's checkpoint; return the recipe's changes, one line each.

    Raises:
        ConfigError: it was made with another recipe, and not ``is_new_recipe``; or with one of
            another network or optimizer. All differences are listed.
        WeightsError: the file is damaged.
    """
    content, before = _read(path)
    now = facts(recipe)
    before |= {key: _default(key) for key in now if key not in before}
    differing = [
        key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)
    ]
    changes = tuple(f"{key}: {before.get(key)!r} then, {now.get(key)!r} now" for key in differing)
    if differing and not is_new_recipe:
        raise ConfigError(
            f"{path}: made with another recipe; continue with that one, name another folder, or use "
            "--new-recipe to continue with this one:",
            *(f"  {change}" for change in changes),
        )
    if fixed := [c for key, c in zip(differing, changes, strict=True) if key.startswith(FIXED)]:
        raise ConfigError(
            f"{path}: a run continues with its network and its optimizer; for others, name another folder:",
            *(f"  {change}" for change in fixed),
        )
    state.step = _fill(path, content, state)
    return changes


def is_checkpoint(path: Path) -> bool:
    """Return whether a file is a run's checkpoint, by its name or its content; others may be a model's weights."""
    if path.name == FILE_NAME:
        return True
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # torch raises errors of every type on other files
        return False
    return isinstance(content, dict) and {"recipe", *_MODULES} <= content.keys()


def continue_from(path: Path, state: State) -> None:
    """Take over weights, averages and optimizers from another run; ``state``, untrained, keeps its step.

    The network can have more residual blocks than that run's. They start as identity, as in any untrained
    network, and the optimizers start anew.

    Raises WeightsError: not a checkpoint, damaged, or of another network or optimizer.
    """
    _fill(path, _read(path)[0], state, adds_blocks=True)


def _add_blocks(content: dict[str, Any], state: State) -> None:
    """Give a checkpoint the blocks that it lacks from ``state``; its moments then fit no longer."""
    grown: dict[str, Any] = {
        name: with_blocks(content[name], getattr(state, name).state_dict())
        for name in ("autoencoder", "ema")
    }
    if any(len(grown[name]) > len(content[name]) for name in grown):
        content |= grown
        content["optimizers"] = [optimizer.state_dict() for optimizer in state.optimizers]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a checkpoint's content, and the recipe that made it."""
    try:
        content = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
        return content, read_json(content["recipe"])
    except Exception as error:  # torch raises errors of every type on damaged files
        raise WeightsError(
            f"{path}: damaged checkpoint ({error}); remove it to start anew"
        ) from error


def _fill(path: Path, content: dict[str, Any], state: State, adds_blocks: bool = False) -> int:
    """Put a checkpoint's content into ``state``; return the step at which it was written."""
    try:
        if adds_blocks:
            _add_blocks(content, state)
        for name in _MODULES:
            module, saved = getattr(state, name), content[name]
            if module is not None and not _is_new_adversary(name, saved):
                module.load_state_dict(saved)
        for name in _OPTIMIZERS:
            if _is_new_adversary(name, content[name]):
                continue
            for optimizer, saved in zip(getattr(state, name), content[name], strict=True):
                load_moments(optimizer, saved)
        return int(content["step"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: damaged checkpoint (it lacks or has another {error}); remove it to start anew"
        ) from error


def _is_new_adversary(name: str, saved: Any) -> bool:
    """Return whether this belongs to a discriminator that the run did not have before: it starts anew."""
    return name.startswith("discriminator") and not saved


def _default(key: str) -> Any:
    """Return a recipe's default by dotted key; None if there is none."""
    names = [name for name in key.split(".") if not name.isdigit()]
    value: Any = Recipe
    for name in names:
        value = Stage if name == "stages" else getattr(value, name, None)
    return value


def facts(recipe: Recipe) -> dict[str, Any]:
    """Return what determines the result, as flat JSON: dotted key => value."""
    flat = _flat(recipe.to_json(), "")
    return {key: value for key, value in flat.items() if key not in FREE}


def _flat(value: Any, prefix: str) -> dict[str, Any]:
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = enumerate(value)
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in items:
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
