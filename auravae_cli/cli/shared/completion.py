"""Completion of values that no list of choices holds. Nothing here imports torch."""

from __future__ import annotations

import os

DEVICES = ("auto", "cpu", "cuda", "mps")


def complete_model(incomplete: str) -> list[str]:
    """Return the models whose names start so; none for a path, which the shell completes itself.

    Only names: typer breaks long descriptions into lines, which shells take for more names.
    """
    from auravae_cli.errors import AuraVaeError
    from auravae_cli.model.spec.registry import known_models

    if os.sep in incomplete:
        return []
    try:
        models = known_models().values()
    except AuraVaeError:  # there is nobody to tell while a line is typed
        return []
    return [model.name for model in models if model.name.startswith(incomplete)]


def complete_hub_model(incomplete: str) -> list[str]:
    """Return those of them that can be downloaded."""
    from auravae_cli.model.spec.registry import known_models

    return [name for name in complete_model(incomplete) if known_models()[name].hub_repo]


def complete_device(incomplete: str) -> list[str]:
    """Return the kinds of devices; a number may follow ``cuda``, as in ``cuda:1``."""
    return [device for device in DEVICES if device.startswith(incomplete)]
