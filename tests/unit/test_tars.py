"""Tars: in memory or as a stream, as `tarfile` reads them, and no damage passes for a whole one."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from hypothesis import given, settings, strategies as st

from auravae_cli.tars import DAMAGES, member_header, read_members

NAMES = st.lists(
    st.one_of(
        st.from_regex(r"[a-z0-9]{1,8}(\.[a-z]{1,4}){1,2}", fullmatch=True),
        st.integers(90, 300).map(
            lambda length: "d/" * 20 + "n" * length
        ),  # more than a header holds
        st.sampled_from(["ä/ö.txt", "./a.json", "b/.hidden", "x" * 99, "y" * 100]),
    ),
    max_size=5,
)
FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


def make_tar(members, form=tarfile.PAX_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            try:
                archive.addfile(info, io.BytesIO(content))
            except ValueError:  # too long a name for this format
                continue
    return file.getvalue()


def signed(header, parts):
    """A header with other bytes at some places, and the checksum of all."""
    block = bytearray(header)
    for start, content in {**parts, 148: b" " * 8}.items():
        block[start : start + len(content)] = content
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def read(source, is_wanted=lambda name: True):
    return [(name, bytes(content)) for name, content in read_members(source, is_wanted)]


def outcome(source):
    """What was read before the damage, and whether there was any."""
    found = []
    try:
        for name, content in read_members(source, lambda name: True):
            found.append((name, bytes(content)))
    except DAMAGES:
        return found, True
    return found, False


def by_tarfile(content):
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [
            (m.name, archive.extractfile(m).read())
            for m in archive
            if m.isfile() and not m.name.rpartition("/")[2].startswith(".")
        ]


@given(
    st.one_of(
        st.text(
            st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
            min_size=1,
            max_size=120,
        ),
        st.from_regex(r"[a-z/]{97,101}", fullmatch=True),
    ),
    st.one_of(st.integers(0, 8**12), st.sampled_from([0, 8**11 - 1, 8**11])),
)
def test_headers_are_those_of_tarfile(name, size):
    header = tarfile.TarInfo(name)
    header.size = size  # its mode is 0644, its time and owner are 0
    expected = header.tobuf(tarfile.PAX_FORMAT, errors="surrogatepass")
    assert member_header(name, size) == expected


@given(NAMES, st.lists(st.binary(max_size=1100), min_size=5, max_size=5), FORMATS)
def test_all_ways_read_what_tarfile_reads(names, contents, form):
    tar = make_tar(zip(names, contents, strict=False), form)
    expected = by_tarfile(tar)
    for source in (tar, memoryview(tar), io.BytesIO(tar), gzip.compress(tar, 1)):
        assert read(source) == expected
    assert read(io.BytesIO(gzip.compress(tar, 1))) == expected


@settings(max_examples=300)
@given(st.data())
def test_damage_is_the_same_for_bytes_and_streams(data):
    tar = bytearray(make_tar([("a.npy", bytes(700)), ("b" * 150, b"1"), ("c.json", b"{}")])[:6144])
    if data.draw(st.booleans()):
        del tar[data.draw(st.integers(0, len(tar) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if tar:
            tar[data.draw(st.integers(0, len(tar) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(bytes(tar)) == outcome(io.BytesIO(tar))


@pytest.mark.parametrize("length", [0, 100, 511, 700, 1024, 1536])
def test_a_tar_that_is_cut_off_says_so(length):
    tar = make_tar([("a.npy", bytes(700))])
    for source in (tar[:length], io.BytesIO(tar[:length])):
        found, damaged = outcome(source)
        assert damaged
        assert found == ([("a.npy", bytes(700))] if length >= 1536 else [])


@pytest.mark.parametrize("size", [b"-0000002000\0", (-1024).to_bytes(12, "big", signed=True)])
def test_a_header_of_negative_size_ends_the_reading(size):
    """Without a check, it leads back to itself for ever (CVE-2025-8194)."""
    header = signed(tarfile.TarInfo("a.npy").tobuf(tarfile.GNU_FORMAT), {124: size})
    good = make_tar([("b.npy", b"")])[:512]
    for content in (header * 3, good + header * 3, header + bytes(2048)):
        for source in (content, io.BytesIO(content)):
            found, damaged = outcome(source)
            assert damaged
            assert "a.npy" not in dict(found)


def test_a_sparse_file_has_its_zeros(tmp_path):
    """GNU's old sparse header: two kilobytes, of which 512 bytes are stored."""
    header = tarfile.TarInfo("a.npy")
    header.size, header.type = 512, tarfile.GNUTYPE_SPARSE
    place, whole = b"%011o\0%011o\0" % (1024, 512), b"%011o\0" % 2048
    block = signed(header.tobuf(tarfile.GNU_FORMAT), {386: place, 483: whole})
    tar = block + b"x" * 512 + bytes(1024)
    expected = [("a.npy", bytes(1024) + b"x" * 512 + bytes(512))]
    assert by_tarfile(tar) == expected
    assert read(tar) == read(io.BytesIO(tar)) == expected


def test_members_of_a_plain_tar_in_memory_are_not_copied():
    tar = make_tar([("a.npy", bytes(700))])
    ((_, content),) = read_members(tar, lambda name: True)
    assert isinstance(content, memoryview)
    assert content.obj is tar
