"""Tars: in memory or as a stream, as `tarfile` reads them, and no damage passes for a whole one."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from hypothesis import given, settings, strategies as st

from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.tars import DAMAGES, member_header, read_members

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


def read(source, limit_of=lambda name: FILE_BYTES):
    return [(name, whole(content)) for name, content in read_members(source, limit_of)]


def whole(content):
    return content if isinstance(content, str) else bytes(content)  # a text says why there is none


def outcome(source):
    """What was read before the damage, and whether there was any."""
    found = []
    try:
        for name, content in read_members(source, lambda name: FILE_BYTES):
            found.append((name, whole(content)))
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


def sparse_tar():
    """GNU's old sparse header: two kilobytes, of which 512 bytes are stored."""
    header = tarfile.TarInfo("a.npy")
    header.size, header.type = 512, tarfile.GNUTYPE_SPARSE
    place, whole = b"%011o\0%011o\0" % (1024, 512), b"%011o\0" % 2048
    block = signed(header.tobuf(tarfile.GNU_FORMAT), {386: place, 483: whole})
    return block + b"x" * 512 + bytes(1024)


def test_a_sparse_file_has_its_zeros():
    tar = sparse_tar()
    expected = [("a.npy", bytes(1024) + b"x" * 512 + bytes(512))]
    assert by_tarfile(tar) == expected
    assert read(tar) == read(io.BytesIO(tar)) == expected


def test_members_of_a_plain_tar_in_memory_are_not_copied():
    tar = make_tar([("a.npy", bytes(700))])
    ((_, content),) = read_members(tar, lambda name: FILE_BYTES)
    assert isinstance(content, memoryview)
    assert content.obj is tar


def test_a_member_that_is_too_large_costs_itself(monkeypatch):
    monkeypatch.setenv("AURAVAE_MAX_FILE_BYTES", "1000")
    tar = make_tar([("a.txt", b"a"), ("b.txt", bytes(1001)), ("c.txt", bytes(1000))])
    for source in (tar, io.BytesIO(tar), gzip.compress(tar)):
        (_, a), (name, reason), (_, c) = read_members(source, lambda name: FILE_BYTES)
        assert (bytes(a), name, len(c)) == (b"a", "b.txt", 1000)
        assert "1001 bytes: more than the limit of 1000; raise it with AURAVAE_MAX_FILE" in reason


def test_a_sparse_member_counts_with_its_zeros(monkeypatch):
    monkeypatch.setenv("AURAVAE_MAX_FILE_BYTES", "2047")
    ((_, reason),) = read_members(io.BytesIO(sparse_tar()), lambda name: FILE_BYTES)
    assert "2048 bytes" in reason


class Counted(io.BytesIO):
    """A stream that counts how often it is read."""

    reads = 0

    def read(self, size=-1):
        self.reads += 1
        assert self.reads < 1000, "an endless loop"
        return super().read(size)


@pytest.mark.parametrize("size", [1 << 40, 1 << 62, (1 << 88) - 1])
@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"g", b"S"])
def test_absurd_sizes_end_with_the_file(kind, size):
    field = b"\x80" + size.to_bytes(11, "big")
    tar = signed(member_header("a.txt", 0), {124: field, 156: kind}) + bytes(512)
    with pytest.raises(DAMAGES):
        read(Counted(tar))
    with pytest.raises(DAMAGES):
        read(tar)
    with pytest.raises(DAMAGES):
        read(gzip.compress(tar))


@pytest.mark.parametrize("kind", [b"L", b"x"])
def test_headers_of_headers_without_end(kind):
    """Each has a name for the next, which `tarfile` reads by calling itself."""
    one = signed(member_header("a.txt", 0), {156: kind})
    with pytest.raises(DAMAGES, match=r"limit|recursion"):
        read(io.BytesIO(one * 100_000))


def test_a_long_header_is_refused_unless_it_is_allowed(monkeypatch):
    tar = make_tar([("n" * 300_000 + ".txt", b"a")])
    for source in (tar, io.BytesIO(tar)):
        with pytest.raises(DAMAGES, match="AURAVAE_MAX_TAR_HEADER_BYTES"):
            read(source)
    monkeypatch.setenv("AURAVAE_MAX_TAR_HEADER_BYTES", "1M")
    assert len(read(io.BytesIO(tar))) == 1


def test_a_header_of_digits_takes_no_time():
    """`tarfile` searches it for a number, from every digit to the last one."""
    record = b"200000 comment=" + b"1" * 199_984 + b"\n"
    header = signed(member_header("x", len(record)), {156: b"x"})
    tar = header + record + bytes(-len(record) % 512) + member_header("a.txt", 0) + bytes(1024)
    with pytest.raises(DAMAGES, match="digits"):
        read(io.BytesIO(tar))
