"""Damaged and lying latent files: a clean failure or a sound result, and never a traceback."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

COMMANDS = (["info"], ["info", "--json"], ["decode"], ["decode", "--any-model"], ["flip", "-HV"])
QUICK = settings(
    max_examples=16,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def split(data: bytes):
    """The outer header, ours, and the values of a latent file."""
    length = int.from_bytes(data[:8], "little")
    outer = json.loads(data[8 : 8 + length])
    return outer, json.loads(outer["__metadata__"]["auravae"]), data[8 + length :]


def join(outer, inner, values: bytes) -> bytes:
    outer = outer | {"__metadata__": outer["__metadata__"] | {"auravae": json.dumps(inner)}}
    text = json.dumps(outer).encode()
    return len(text).to_bytes(8, "little") + text + values


def run_all(auravae, data: bytes) -> list[int]:
    """The exit codes of every command; checks that failures are clean and leave nothing."""
    codes = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.safetensors")
        path.write_bytes(data)
        for command in COMMANDS:
            result = auravae(*command, path)
            left = sorted(p.name for p in Path(folder).iterdir() if p != path)
            if result.code == 0:
                assert len(left) == (command[0] != "info")
            else:
                assert result.code in (1, 3)
                assert result.out == b"" and left == []
                assert result.err.count("\n") == 1
            for name in left:
                Path(folder, name).unlink()
            codes.append(result.code)
    return codes


LIES = {
    "no header of ours": lambda o, i: o["__metadata__"].clear(),
    "another tensor": lambda o, i: o.update(z=o.pop("latent")),
    "another dtype": lambda o, i: o["latent"].update(dtype="F64"),
    "no dtype": lambda o, i: o["latent"].pop("dtype"),
    "a dtype of another size": lambda o, i: o["latent"].update(dtype="F32"),
    "another shape": lambda o, i: o["latent"].update(shape=[20, 16, 16]),
    "a flat shape": lambda o, i: o["latent"].update(shape=[5120]),
    "a negative shape": lambda o, i: o["latent"].update(shape=[-16, -16, 20]),
    "a fractional shape": lambda o, i: o["latent"].update(shape=[16.0, 16, 20]),
    "offsets beyond the file": lambda o, i: o["latent"].update(data_offsets=[0, 1 << 40]),
    "a later version": lambda o, i: i.update(format_version=2),
    "no version": lambda o, i: i.pop("format_version"),
    "another representation": lambda o, i: i.update(representation="16xee"),
    "no representation": lambda o, i: i.update(representation="sixteen"),
    "fewer channels": lambda o, i: i.update(representation="8xee"),
    "another size": lambda o, i: i["image_size"].reverse(),
    "a huge size": lambda o, i: i.update(image_size=[1 << 70, 1 << 70]),
    "a size of text": lambda o, i: i.update(image_size="ab"),
    "negative padding": lambda o, i: i["padding"].update(left=-8, right=8),
    "too much padding": lambda o, i: i["padding"].update(left=8),
    "padding as a list": lambda o, i: i.update(padding=[0, 0, 0, 0]),
    "unknown padding": lambda o, i: i["padding"].update(front=0),
    "no orientation": lambda o, i: i.pop("orientation"),
    "another orientation": lambda o, i: i.update(orientation="r"),
    "a factor of zero": lambda o, i: i.update(downsampling_factor=0),
    "a negative factor": lambda o, i: i.update(downsampling_factor=-8),
    "a factor of text": lambda o, i: i.update(downsampling_factor="8"),
    "a clamp of text": lambda o, i: i.update(clamp="wide"),
    "a source of numbers": lambda o, i: i.update(source=7),
    "preparation as a list": lambda o, i: i.update(preparation=[]),
    "no tool version": lambda o, i: i.pop("tool_version"),
    "exif of text": lambda o, i: i.update(exif_orientation="6"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lying_headers_fail_everywhere(auravae, latent, lie):
    outer, inner, values = split(latent.read_bytes())
    LIES[lie](outer, inner)
    data = join(outer, inner, values) if outer["__metadata__"] else join_without(outer, values)
    codes = run_all(auravae, data)
    if lie == "another representation":  # sound by itself, but of another model
        assert codes[:3] == [0, 0, 1] and codes[4] == 0
    else:
        assert codes == [1] * len(COMMANDS)


def join_without(outer, values: bytes) -> bytes:
    text = json.dumps(outer).encode()
    return len(text).to_bytes(8, "little") + text + values


def test_an_honest_header_passes(auravae, latent):
    assert run_all(auravae, join(*split(latent.read_bytes()))) == [0] * len(COMMANDS)


@pytest.mark.parametrize("shape", [[0, 16, 20], [0, 1 << 40, 1 << 40]])
def test_no_values_at_all(auravae, latent, shape):
    outer, inner, _ = split(latent.read_bytes())
    outer["latent"].update(shape=shape, data_offsets=[0, 0])
    assert run_all(auravae, join(outer, inner, b"")) == [1] * len(COMMANDS)


def test_a_source_that_no_encoding_has(auravae, latent):
    outer, inner, values = split(latent.read_bytes())
    inner["source"] = "\ud800.jpg"
    assert run_all(auravae, join(outer, inner, values)) == [0] * len(COMMANDS)


@pytest.mark.parametrize("end", [0, 1, 7, 8, 9, 10, 100, -1, -2])
def test_cut_files_fail_everywhere(auravae, latent, end):
    assert run_all(auravae, latent.read_bytes()[:end]) == [1] * len(COMMANDS)


@QUICK
@given(data=st.data())
def test_changed_bytes_never_give_a_traceback(auravae, latent, data):
    content = bytearray(latent.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        # the header, where all the meaning is, more often than the values
        end = data.draw(st.sampled_from([8, header, header, header, len(content)]))
        content[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    run_all(auravae, bytes(content))


@QUICK
@given(data=st.data())
def test_changed_header_values_never_give_a_traceback(auravae, latent, data):
    outer, inner, values = split(latent.read_bytes())
    table = data.draw(st.sampled_from([inner, inner["padding"], outer["latent"]]))
    key = data.draw(st.sampled_from(sorted(table)))
    table[key] = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(1e400),
            lambda inside: (
                st.lists(inside, max_size=4)
                | st.dictionaries(st.text(max_size=3), inside, max_size=3)
            ),
            max_leaves=4,
        )
    )
    run_all(auravae, join(outer, inner, values))


@QUICK
@given(data=st.binary(max_size=400))
def test_any_bytes_never_give_a_traceback(auravae, work, data):
    assert run_all(auravae, data) == [1] * len(COMMANDS)
