"""How a call gets its model: loaded already, or by a name and how to load it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from auravae_cli.errors import UsageError
from auravae_cli.machine.progress import Phase, begin
from auravae_cli.model.codec import Codec, load_codec

if TYPE_CHECKING:
    from auravae_cli.store.settings import StoreSettings


class Loading(TypedDict, total=False):
    """How a model is loaded where only its name is given: see `load_codec`."""

    device: str
    dtype: str
    memory: int | None
    symmetrize: bool | str


def codec_of(
    model: str | Codec, parts: tuple[str, ...], loading: Loading, progress: Any = None
) -> Codec:
    """Return the model. Raises ModelError, and UsageError if a loaded one contradicts the request."""
    if isinstance(model, str):
        begin(progress, Phase(f"loading {model}"))
        return load_codec(model, parts=parts, **loading)
    if loading:
        raise UsageError(f"{', '.join(loading)}: said of a model that is loaded already", "model")
    return model


def loading_for(store: StoreSettings | None, model: str | Codec, loading: Loading) -> Loading:
    """Return ``loading``, in the store's number format if no other is named: ``auto`` depends on the machine.

    A format that networks do not compute in is left to `prepare_store`, which says what differs.
    """
    if store is None or not isinstance(model, str) or loading.get("dtype", "auto") != "auto":
        return loading
    from auravae_cli.model.placement import ITEM_SIZES

    is_known = store.compute_dtype in ITEM_SIZES
    return {**loading, "dtype": store.compute_dtype} if is_known else loading
