"""Damage for `fuzz.py`: (random, name, bytes) => bytes that are no longer sound.

Bytes, fields of JSON, numbers and words of TOML, members of archives, headers of arrays: whatever the
name says that it is.
"""

from __future__ import annotations

import io
import json
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**70), 10**30, 0.5, -0.0, 1e300),
    *(float("nan"), float("inf"), "", "x", "\0", "\ud800", "x" * 5000, "\x1b[2J", "-1", "1e999"),
    *([], {}, [[]], [None], {"": None}, [0, 0]),
)
PLACES = (
    "../x",
    "../../x",
    "../../../x",
    "/",
    ".",
    "..",
    "a/../../../x",
    "..\\x",
    "C:\\x",
    "a/b/x",
)


def damage_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bits turned, pieces cut out, repeated, or set."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(content) + 1)
        kind, length = rng.randrange(6), rng.choice((1, 1, 2, 4, 8, 64))
        if kind == 0 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[at : at + length]
        elif kind == 2:
            content[at:at] = content[at : at + length]
        elif kind == 3:
            content[at : at + length] = rng.choice((b"\xff", b"\0", b"{", b"[")) * length
        elif kind == 4:
            content[at : at + 1] = rng.randbytes(length)
        elif rng.random() < 0.2:
            del content[at:]
    return bytes(content)


def damage_tree(rng: random.Random, tree: Any) -> Any:
    """A value, a name or an item of a tree of JSON that is another, gone, or there once more."""
    places = list(_places(tree))
    if not places or rng.random() < 0.02:
        return rng.choice(JUNK)
    for parent, key in rng.sample(places, min(len(places), rng.choice((1, 1, 1, 2, 3)))):
        kind = rng.randrange(8)
        with suppress(KeyError, IndexError):  # it was taken away together with its parent
            if kind == 0:
                del parent[key]
            elif kind == 1 and isinstance(parent, dict):
                parent[rng.choice(["x", "", "name", "../x", "é"])] = parent.pop(key)
            elif kind == 2 and isinstance(parent, list):
                parent.append(parent[key])
            elif kind == 3:
                other, name = rng.choice(places)
                parent[key] = json.loads(json.dumps(other[name]))
            elif kind == 4 and type(parent[key]) is int:
                parent[key] += rng.choice((-1, 1, 255, -parent[key], 2**40))
            elif kind == 5:
                depth = rng.choice((5, 200, 5000))
                parent[key] = _Raw("[" * depth + "]" * depth)
            elif kind == 6 and type(parent[key]) is str:
                parent[key] = rng.choice(PLACES)
            else:
                parent[key] = rng.choice(JUNK)
    return tree


class _Raw(str):
    """Text that stands in JSON as it is."""


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(tree, dict | list):
        return
    for key, item in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        yield from _places(item)


def dump(tree: Any) -> str:
    """JSON, and what is none: Python's own reader takes it all."""
    if isinstance(tree, _Raw):
        return str(tree)
    if isinstance(tree, dict):
        return "{" + ",".join(f"{json.dumps(str(k))}:{dump(v)}" for k, v in tree.items()) + "}"
    return f"[{','.join(map(dump, tree))}]" if isinstance(tree, list) else json.dumps(tree)


def damage_json(rng: random.Random, data: bytes) -> bytes:
    """A line of JSON, mostly by its fields."""
    if rng.random() < 0.2:
        return damage_bytes(rng, data)
    lines = data.splitlines() if data[:2] != b"{\n" else [data]  # one a line, or one in many
    at = rng.randrange(len(lines))
    tree = json.loads(lines[at])
    lines[at] = dump(damage_tree(rng, tree)).encode(errors="surrogatepass")
    return b"\n".join(lines) + b"\n"


def damage_safetensors(rng: random.Random, data: bytes) -> bytes:
    """The header, or the JSON text within it; the length that stands before it stays true."""
    if rng.random() < 0.2:
        return damage_bytes(rng, data)
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    texts = header.get("__metadata__", {})
    inner = [name for name, text in texts.items() if text.startswith("{")]
    if inner and rng.random() < 0.7:
        name = rng.choice(inner)
        texts[name] = damage_json(rng, texts[name].encode()).decode(errors="replace").strip()
    else:
        header = damage_tree(rng, header)
    text = dump(header).encode(errors="surrogatepass")
    return len(text).to_bytes(8, "little") + text + rest


def damage_npy(rng: random.Random, data: bytes) -> bytes:
    """The header's text: type, order, shape."""
    start = 10 + int.from_bytes(data[8:10], "little")
    if rng.random() < 0.4 or data[:6] != b"\x93NUMPY":
        return damage_bytes(rng, data)
    text = damage_words(rng, data[10:start]).ljust(start - 10)
    return data[:8] + len(text).to_bytes(2, "little") + text + data[start:]


def damage_words(rng: random.Random, data: bytes) -> bytes:
    """A number or a word of a text that is another."""
    starts = [
        i for i in range(1, len(data)) if data[i : i + 1].isalnum() > data[i - 1 : i].isalnum()
    ]
    if not starts or rng.random() < 0.2:
        return damage_bytes(rng, data)
    start = stop = rng.choice(starts)
    while data[stop : stop + 1].isalnum():
        stop += 1
    words = [b"0", b"-1", b"1e999", b"nan", b"inf", b"0x" + b"f" * 5000, b"9" * 5000, b"true"]
    words += [b'""', b"[]", b"[" * 3000, b"{}", b"{a = " * 3000, b"2020-01-01", b"x.y", b"99999"]
    words += [data[s : s + 8] for s in rng.sample(starts, min(2, len(starts)))]
    return data[:start] + rng.choice(words) + data[stop:]


def damage_zip(rng: random.Random, data: bytes) -> bytes:
    """A member, with a true checksum afterwards, so that what reads it is reached."""
    if rng.random() < 0.3:
        return damage_bytes(rng, data)
    output = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(output, "w") as changed:
        infos = archive.infolist()
        victim = rng.choice(infos)
        for info in infos:
            content, name = archive.read(info), info.filename
            if info is victim:
                kind = rng.randrange(6)
                if kind == 0:
                    continue
                if kind == 1:
                    name = rng.choice(["x.npy", "../x", "/x", "a/../../x.npy", infos[0].filename])
                else:
                    content = damage(rng, name, content)
            method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            changed.writestr(name, content, method)
    return output.getvalue()


def damage_tar(rng: random.Random, data: bytes) -> bytes:
    """A member's content or name."""
    if rng.random() < 0.3:
        return damage_bytes(rng, data)
    output = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive, tarfile.open(None, "w", output) as new:
        members = archive.getmembers()
        victim = rng.choice(members)
        for member in members:
            file = archive.extractfile(member)
            content = file.read() if file else b""
            if member is victim:
                kind = rng.randrange(6)
                if kind == 0:
                    member.name = rng.choice(
                        ["../x.npy", "/x.npy", "a/../../x.npy", "x\n.npy", "é"]
                    )
                elif kind == 1:
                    member.type, member.linkname = rng.choice((tarfile.SYMTYPE, b"9")), "../x"
                else:
                    content = damage(rng, member.name, content)
                member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return output.getvalue()


BY_SUFFIX: dict[str, Callable[[random.Random, bytes], bytes]] = {
    ".json": damage_json,
    ".jsonl": damage_json,
    ".safetensors": damage_safetensors,
    ".latent": damage_safetensors,
    ".npy": damage_npy,
    ".npz": damage_zip,
    ".pt": damage_zip,
    ".tar": damage_tar,
    ".toml": damage_words,
}


def damage(rng: random.Random, name: str, data: bytes) -> bytes:
    """A file's or a member's content, as its name says what it is; our note in .npz is JSON."""
    if name == "auravae.npy":
        start = 10 + int.from_bytes(data[8:10], "little")
        note = np.frombuffer(damage_json(rng, data[start:]), np.uint8)
        buffer = io.BytesIO()
        np.save(buffer, note)
        return buffer.getvalue()
    return BY_SUFFIX.get(Path(name).suffix, damage_bytes)(rng, data)
