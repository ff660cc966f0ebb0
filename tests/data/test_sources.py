"""The cache holds what was pinned or nothing; the network is a stand-in for pip that copies a hand-made wheel."""

import hashlib
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from robustlab.data import sources
from robustlab.data.sources import cache_root, fetch_source, is_fetched
from robustlab.errors import ConfigError, DataError, RecordError
from robustlab.spec.sources import BuiltinName, BuiltinSource, CsvSource, HubSource, JsonlSource, PypiSource

CONTENT = b"one mild line\nanother\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MEMBER = "example_pkg/data/rows.txt"
WHEEL = "example_pkg-1.2.3-py3-none-any.whl"
REVISION = "c" * 40


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> Path:
    monkeypatch.setenv("ROBUSTLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def source(**changes: str) -> PypiSource:
    fields = {"package": "Example.pkg", "version": "1.2.3", "member": MEMBER, "sha256": SHA256, "licence": "MIT"}
    return PypiSource(kind="pypi", **(fields | changes))


def make_wheel(path: Path, *, member: str = MEMBER, content: bytes = CONTENT, mode: int = 0o100644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    info = zipfile.ZipInfo(member)
    info.external_attr = mode << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, content)
        archive.writestr("example_pkg/__init__.py", "raise SystemExit('never run')")
    return path


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A network with one wheel on it; the list collects the commands."""
    wheel = make_wheel(tmp_path / "index" / WHEEL)
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        folder = Path(command[command.index("-d") + 1])
        (folder / wheel.name).write_bytes(wheel.read_bytes())
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.delenv("ROBUSTLAB_OFFLINE")
    monkeypatch.setattr(subprocess, "run", run)
    return commands


def files_under(folder: Path) -> list[str]:
    """All but the files of locks, which hold no artefact."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith("locks/"))


def test_cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_root() == tmp_path / "cache"
    assert stat.S_IMODE(cache_root().stat().st_mode) == 0o700
    monkeypatch.delenv("ROBUSTLAB_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "robustlab"


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("ROBUSTLAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(RecordError, match="cache: cannot be written: Not a directory"):
        cache_root()


def test_one_member_is_downloaded_once(cache: Path, pip: list[list[str]]) -> None:
    heard: list[str] = []
    path = fetch_source(source(), progress=heard.append)
    assert path == cache / "artefacts" / SHA256 / "rows.txt"
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert fetch_source(source(), progress=heard.append) == path
    assert heard == ["Example.pkg==1.2.3: downloading the wheel"]
    (command,) = pip
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:"} <= set(command)
    assert command[-1] == "Example.pkg==1.2.3"
    assert files_under(cache) == [f"artefacts/{SHA256}/rows.txt"]  # the wheel is gone


def test_a_wheel_that_was_put_there_by_hand_is_read_and_left(cache: Path) -> None:
    make_wheel(cache / "wheels" / WHEEL)
    make_wheel(cache / "wheels" / "example_pkg-1.2.4-py3-none-any.whl", content=b"other")
    assert fetch_source(source()).read_bytes() == CONTENT
    assert (cache / "wheels" / WHEEL).is_file()


def test_offline_no_network_is_tried(cache: Path, pip: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTLAB_OFFLINE", "1")
    with pytest.raises(DataError) as caught:
        fetch_source(source())
    assert str(caught.value) == (
        f"{MEMBER} of Example.pkg==1.2.3: is not in the cache, and ROBUSTLAB_OFFLINE is set; "
        f"unset it, or run `pip download --no-deps Example.pkg==1.2.3` on another machine and put the wheel in "
        f"{cache / 'wheels'}"
    )
    assert pip == []


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("WARNING: Retrying\nERROR: No matching distribution found for Example.pkg==1.2.3\n", "ERROR: No matching"),
        ("/usr/bin/python: No module named pip\n", "No module named pip"),
        (
            "ERROR: Could not reach https://user:hunter2@index.example/simple\n",
            r"https://(?:\*\*\*|<secret>)@index.example",
        ),
        ("", "pip said nothing"),
    ],
)
def test_a_failed_download_says_how_to_supply_the_wheel(
    cache: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, said: str
) -> None:
    monkeypatch.delenv("ROBUSTLAB_OFFLINE")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr=stderr))
    expected = (
        f"cannot be downloaded: .*{said}.*; check the network, or run `pip download --no-deps Example.pkg==1.2.3`"
    )
    with pytest.raises(DataError, match=expected) as caught:
        fetch_source(source(), sleep=lambda _: None)
    assert "hunter2" not in str(caught.value)
    assert files_under(cache) == []


def test_another_hash_keeps_nothing(cache: Path, pip: list[list[str]]) -> None:
    pinned = "0" * 64
    with pytest.raises(DataError, match=f"has sha256 {SHA256}, pinned is {pinned}; nothing was kept"):
        fetch_source(source(sha256=pinned))
    assert files_under(cache) == []
    assert len(pip) == 1


def test_a_damaged_cache_is_noticed_and_removed(cache: Path, pip: list[list[str]]) -> None:
    path = fetch_source(source())
    path.write_bytes(CONTENT.replace(b"mild", b"wild"))
    with pytest.raises(DataError, match=rf"rows.txt: has sha256 \w+, pinned is {SHA256}; the damaged file was removed"):
        fetch_source(source())
    assert fetch_source(source()).read_bytes() == CONTENT


def test_a_member_that_is_not_in_the_wheel(pip: list[list[str]]) -> None:
    with pytest.raises(DataError, match=f"none.txt of Example.pkg==1.2.3: is not in {WHEEL}; check the member's path"):
        fetch_source(source(member="example_pkg/none.txt"))


@pytest.mark.parametrize(
    "member",
    ["../rows.txt", "a/../../rows.txt", "/etc/passwd", "a//b", "./a", "a\\..\\b", "C:rows.txt", "folder/", ".."],
)
def test_hostile_member_names_are_refused_before_anything_is_fetched(pip: list[list[str]], member: str) -> None:
    with pytest.raises(DataError, match="is not a plain path inside a wheel; name the member as the wheel lists it"):
        fetch_source(source(member=member))
    assert pip == []


@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o010644])
def test_links_folders_and_pipes_in_a_wheel_are_refused(cache: Path, mode: int) -> None:
    make_wheel(cache / "wheels" / WHEEL, content=b"/etc/passwd", mode=mode)
    with pytest.raises(DataError, match="is a link or a folder in the wheel; name a plain file"):
        fetch_source(source())


def test_a_wheel_without_unix_modes_is_read(cache: Path) -> None:
    make_wheel(cache / "wheels" / WHEEL, mode=0)
    assert fetch_source(source()).read_bytes() == CONTENT


def test_an_oversized_member_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(cache / "wheels" / WHEEL)
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 20)
    with pytest.raises(DataError, match="unpacks to 22 bytes, more than 20; take a smaller file"):
        fetch_source(source())


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def corrupted(data: bytes) -> bytes:
    return data.replace(CONTENT, CONTENT.upper(), 1)


@pytest.mark.parametrize("damage", [cut, corrupted])
def test_a_damaged_wheel(cache: Path, damage: Callable[[bytes], bytes]) -> None:
    wheel = make_wheel(cache / "wheels" / WHEEL)
    wheel.write_bytes(damage(wheel.read_bytes()))
    with pytest.raises(DataError, match=f"{WHEEL}: is not a sound wheel: .*; download it again"):
        fetch_source(source())


@pytest.mark.parametrize("changes", [{"package": "--index-url=x"}, {"version": ">=1"}, {"version": "1 --pre"}])
def test_a_pin_that_pip_would_read_as_something_else(pip: list[list[str]], changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="source of kind pypi: is not an exact pin, got '.*'; write the name and one"):
        fetch_source(source(**changes))
    assert pip == []


def test_two_processes_fetch_at_once(cache: Path) -> None:
    make_wheel(cache / "wheels" / WHEEL)
    code = (
        "import sys; from robustlab.data.sources import fetch_source; from robustlab.spec.sources import PypiSource;"
        "print(fetch_source(PypiSource.model_validate_json(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, source().model_dump_json()]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for _ in range(2)]
    outputs = {process.communicate()[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert outputs == {str(cache / "artefacts" / SHA256 / "rows.txt")}
    assert files_under(cache / "artefacts") == [f"{SHA256}/rows.txt"]


HUB_BYTES = '{"prompt": "é", "n": 1}\n{"prompt": "b", "n": null}\n'.encode()
HUB_SHA256 = hashlib.sha256(HUB_BYTES).hexdigest()


def hub(sha256: str = HUB_SHA256) -> HubSource:
    pins = {"revision": REVISION, "sha256": sha256, "licence": "unknown"}
    return HubSource(kind="hub", dataset="owner/name", config=None, split="train", **pins)


@pytest.fixture
def hub_rows(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Rows of a stand-in for the hub."""
    rows: list[dict[str, Any]] = [{"prompt": "é", "n": 1}, {"prompt": "b", "n": None}]
    monkeypatch.delenv("ROBUSTLAB_OFFLINE")
    monkeypatch.setattr(sources, "_load_hub", lambda _: iter(rows))
    return rows


def test_a_hub_set_becomes_a_checked_jsonl_file(cache: Path, hub_rows: list[dict[str, Any]]) -> None:
    heard: list[str] = []
    assert not is_fetched(hub())
    path = fetch_source(hub(), progress=heard.append)
    assert path.read_bytes() == HUB_BYTES
    assert is_fetched(hub())
    hub_rows.clear()
    assert fetch_source(hub(), progress=heard.append) == path
    assert heard == ["owner/name@cccccccccccc train: downloading"]
    path.write_bytes(b"{}\n")
    with pytest.raises(DataError, match=f"pinned is {HUB_SHA256}; the damaged file was removed; fetch it again"):
        fetch_source(hub())
    assert not path.exists()


def test_hub_rows_other_than_the_pinned_ones_are_refused(cache: Path, hub_rows: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError) as caught:
        fetch_source(hub(sha256="0" * 64))
    assert str(caught.value) == (
        f"owner/name@cccccccccccc train: has rows of sha256 {HUB_SHA256}, pinned is {'0' * 64}; "
        "nothing was kept; check the revision and the split, or pin what was got if you trust it"
    )
    assert files_under(cache) == []
    hub_rows.append({"prompt": "c", "n": 2})
    with pytest.raises(DataError, match=f"pinned is {HUB_SHA256}; nothing was kept"):
        fetch_source(hub())
    assert files_under(cache) == []


def test_a_hub_set_offline(cache: Path) -> None:
    expected = "owner/name@c{12} train: is not in the cache, and ROBUSTLAB_OFFLINE is set; unset it, or copy .*hub/"
    with pytest.raises(DataError, match=expected):
        fetch_source(hub())


@pytest.mark.parametrize("value", [b"image", float("nan"), "\ud800"])
def test_a_hub_set_that_json_cannot_hold(hub_rows: list[dict[str, Any]], value: object) -> None:
    hub_rows.append({"value": value})
    with pytest.raises(DataError, match="has rows that JSON cannot hold; take a set of text and numbers"):
        fetch_source(hub())


@pytest.fixture
def fake_datasets(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The library ``datasets`` without its import time."""

    class DatasetsError(Exception):
        pass

    fake = SimpleNamespace(exceptions=SimpleNamespace(DatasetsError=DatasetsError))
    monkeypatch.delenv("ROBUSTLAB_OFFLINE")
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return fake


def test_the_hub_is_asked_for_one_commit_and_no_code(fake_datasets: SimpleNamespace) -> None:
    asked: list[object] = []
    fake_datasets.load_dataset = lambda *args, **options: asked.append((args, options)) or [{"a": 1}]
    fetch_source(hub(sha256=hashlib.sha256(b'{"a": 1}\n').hexdigest()))
    options = {"split": "train", "revision": REVISION, "trust_remote_code": False}
    assert asked == [(("owner/name", None), options)]


@pytest.mark.parametrize("kind", [OSError, ValueError, "DatasetsError"])
def test_a_hub_set_that_cannot_be_had(cache: Path, fake_datasets: SimpleNamespace, kind: Any) -> None:
    error = fake_datasets.exceptions.DatasetsError if kind == "DatasetsError" else kind

    def fail(*_: object, **__: object) -> None:
        raise error("token hunter2")

    fake_datasets.load_dataset = fail
    with pytest.raises(DataError, match=f"cannot be downloaded: {error.__name__}; check the network, the id") as caught:
        fetch_source(hub())
    assert "hunter2" not in str(caught.value)
    assert files_under(cache) == []


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_local_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows").write_bytes(CONTENT)
    schema: Any = {"jsonl": JsonlSource, "csv": CsvSource}[kind]
    assert fetch_source(schema(kind=kind, path="rows", sha256=SHA256)) == Path("rows")
    with pytest.raises(DataError, match=f"rows: has sha256 {SHA256}, pinned is {'0' * 64}; take the file that was"):
        fetch_source(schema(kind=kind, path="rows", sha256="0" * 64))
    with pytest.raises(ConfigError, match="none: is not a file; name a file that exists") as caught:
        fetch_source(schema(kind=kind, path="none", sha256=SHA256))
    assert caught.value.exit_code == 2


def test_a_csv_without_a_path_asks_for_the_flag() -> None:
    with pytest.raises(ConfigError, match="--data: is missing: the source has no path of its own; name the file with"):
        fetch_source(CsvSource(kind="csv", path=None, sha256=SHA256))


@pytest.mark.parametrize("name", get_args(BuiltinName))
def test_builtin_sets_are_there(name: Any) -> None:
    assert fetch_source(BuiltinSource(kind="builtin", name=name)).is_file()
