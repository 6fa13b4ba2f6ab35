"""Where a model runs is decided once: a dry run says what a real run takes."""

from __future__ import annotations

import pytest

from auravae_cli import load_codec
from auravae_cli.errors import DeviceError
from auravae_cli.forecast.run_setting import find_setting
from auravae_cli.model.cpu import bfloat16, native
from auravae_cli.model.placement import Placement, place


@pytest.mark.parametrize("model", ["linear", "small"])
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("device", ["auto", "cpu", "cpu:0"])
def test_a_dry_run_places_a_model_as_a_real_one_does(model: str, dtype: str, device: str) -> None:
    setting = find_setting(model, ("decoder",), device, dtype, None)
    codec = load_codec(model, parts=("decoder",), device=device, dtype=dtype)
    where = setting.where
    assert (where.device, where.dtype, where.batch_size, where.engine) == (
        *(codec.device, codec.compute_dtype, codec.batch_size, codec.engine),
    )
    assert where.is_on_cpu and where.batch_size == 1


@pytest.mark.parametrize(("is_tied", "has_kernels"), [(True, True), (True, False), (False, True)])
def test_automatic_is_bfloat16_where_a_cpu_has_kernels_for_it(
    monkeypatch: pytest.MonkeyPatch, is_tied: bool, has_kernels: bool
) -> None:
    monkeypatch.setattr(native, "kernels", object)
    monkeypatch.setattr(bfloat16, "kernels", lambda: object() if has_kernels else None)
    found = place("cpu", "auto", is_tied)
    assert (found.dtype, found.engine) == (
        *("bfloat16" if is_tied and has_kernels else "float32", native.NATIVE),
    )
    assert place("cpu", "float32", is_tied) == Placement(engine=native.NATIVE)


def test_larger_batches_are_for_gpus() -> None:
    assert [Placement(device).batch_size for device in ("cpu", "cuda", "cuda:1", "mps")] == [
        *(1, 8, 8, 8),
    ]


def test_kernels_in_c_are_for_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "kernels", object)
    engines = {dtype: place("cpu", dtype).engine for dtype in ("auto", "float32", "float16")}
    assert engines == {"auto": native.NATIVE, "float32": native.NATIVE, "float16": native.PLAIN}


@pytest.mark.parametrize("device", ["cpu", "nonsense:7"])
def test_what_is_not_to_be_had_is_refused_by_a_dry_run_too(device: str) -> None:
    with pytest.raises(DeviceError, match="dtype 'int8': expected auto or one of"):
        find_setting("small", ("decoder",), device, "int8", None)
    with pytest.raises(DeviceError):
        find_setting("small", ("decoder",), "nonsense:7", "auto", None)
