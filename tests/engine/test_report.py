"""The report of a run is made again only from a record that holds."""

import gzip
import json
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.engine.report import gather_results, read_results, read_stored, rewrite_report
from robustlab.errors import ConfigError, RecordError
from robustlab.record.run_folder import RunFolder, write_json
from robustlab.report.html import render_report

RUN_ID = "20261122T021733Z-a1b2c3"
Reader = Callable[[Path, str], Any]
both = pytest.mark.parametrize("read", [read_results, rewrite_report])


@pytest.fixture
def folder(factory: Any, tmp_path: Path) -> RunFolder:
    """A run that has ended."""
    made = RunFolder.create(tmp_path, RUN_ID)
    write_json(made.results, factory.results(factory.control_cell(), run_id=RUN_ID))
    made.ledger.write_text("{}\n")
    made.report.write_text("old")
    made.write_manifest()
    return made


def test_a_report_is_written_anew_and_sealed(folder: RunFolder) -> None:
    path, results = rewrite_report(folder.path.parent, RUN_ID)
    assert (path, results.run_id) == (folder.path, RUN_ID)
    assert folder.report.read_text(encoding="utf-8") == render_report(results)
    assert stat.S_IMODE(folder.report.stat().st_mode) == 0o600
    assert folder.check_manifest() == 3


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("cut sh")])
def test_a_report_that_was_lost_or_changed_is_mended(folder: RunFolder, spoil: Callable[[Path], Any]) -> None:
    spoil(folder.report)
    rewrite_report(folder.path.parent, RUN_ID)
    assert folder.check_manifest() == 3


@both
def test_changed_results_are_not_sealed_again(folder: RunFolder, read: Reader) -> None:
    document = json.loads(folder.results.read_bytes())
    document["cells"][0]["cost"]["attacker"]["micro_usd"] = 1
    write_json(folder.results, document)
    seal = folder.manifest.read_bytes()
    with pytest.raises(RecordError) as caught:
        read(folder.path.parent, RUN_ID)
    assert str(caught.value) == f"{folder.manifest}: results.json has changed; do not trust this run; repeat it"
    assert folder.manifest.read_bytes() == seal
    assert folder.report.read_text() == "old"


@both
def test_any_other_file_is_held_against_the_manifest_too(folder: RunFolder, read: Reader) -> None:
    folder.ledger.write_text("")
    with pytest.raises(RecordError, match=r"ledger\.jsonl has changed; do not trust this run"):
        read(folder.path.parent, RUN_ID)


@both
def test_a_run_that_has_not_ended_is_not_sealed(folder: RunFolder, read: Reader) -> None:
    folder.manifest.unlink()
    with pytest.raises(ConfigError) as caught:
        read(folder.path.parent, RUN_ID)
    assert str(caught.value) == f"run {RUN_ID!r}: has not ended; `robustlab resume {RUN_ID}` goes on with it"
    assert not folder.is_finished


def test_results_of_another_schema_are_not_guessed(folder: RunFolder) -> None:
    folder.results.write_text('{"schema": 2}')
    folder.write_manifest()
    with pytest.raises(RecordError, match=r"results\.json: is not a result of schema 1, .*, or use the version"):
        rewrite_report(folder.path.parent, RUN_ID)


def test_stored_results_are_read_plain_and_gzipped(folder: RunFolder, tmp_path: Path) -> None:
    _, results = read_results(folder.path.parent, RUN_ID)
    packed = tmp_path / "sweep.json.gz"
    packed.write_bytes(gzip.compress(folder.results.read_bytes()))
    assert read_stored(folder.results) == read_stored(packed) == results


@pytest.mark.parametrize(
    ("name", "data", "error", "message"),
    [
        ("absent.json", None, ConfigError, "is no file; name a run, or a results.json"),
        ("x.json", b"{", RecordError, "is not a result of schema 1, got"),
        ("x.json", b'{"schema": 2}', RecordError, "is not a result of schema 1, got"),
        ("x.json.gz", b"plain", RecordError, "is not gzipped, or was cut short; store the results again"),
        ("x.json.gz", gzip.compress(b"x" * 99, mtime=0)[:-9], RecordError, "is not gzipped, or was cut short; store"),
        ("x.json.gz", gzip.compress(b"{", mtime=0), RecordError, "is not a result of schema 1, got"),
    ],
)
def test_what_is_no_stored_result_is_refused(
    tmp_path: Path, name: str, data: bytes | None, error: type[Exception], message: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(error) as caught:
        read_stored(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: {message}")


def test_a_small_file_that_unpacks_to_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustlab.engine.report.MAX_BYTES", 98)
    for path, data in (
        (tmp_path / "x.json.gz", gzip.compress(b" " * 99)),
        (tmp_path / "x.json", b" " * 99),
    ):
        path.write_bytes(data)
        with pytest.raises(RecordError, match=rf"{path.name}: holds more than 98 bytes; name a results\.json"):
            read_stored(path)


@pytest.mark.parametrize("number", ["1" * 31, "NaN", "-Infinity", "1.5e400"])
def test_a_number_that_is_none_is_refused(tmp_path: Path, number: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(f'{{"plan": {{"a": {number}}}}}')
    with pytest.raises(RecordError, match=r"of schema 1, got a number that is none, or beyond all counts; name a"):
        read_stored(path)


@pytest.mark.parametrize(
    "text",
    ["loss was: NaN at step 3", "see: -Infinity War", "org/m:12e345abc", 'a \\"q\\": NaN', "id:" + "1" * 40, "\\\\"],
)
def test_a_text_that_speaks_of_numbers_is_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(f'{{"plan": {{"a": "{text}", "b": [0.{"3" * 40}, 1.5e-7]}}}}')
    with pytest.raises(RecordError, match="of schema 1, got [0-9]+ fault"):
        read_stored(path)
    path.write_text(f'{{"plan": {{"a": "{text}", "b": [NaN]}}}}')
    with pytest.raises(RecordError, match="got a number that is none"):
        read_stored(path)


@pytest.mark.parametrize(("head", "part"), [('"', '\\"'), ('"', "a"), ("[0.", "1"), ("[", "."), ("[", "-")])
def test_what_never_ends_is_refused_in_a_moment(tmp_path: Path, head: str, part: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(head + part * 10**6)
    before = time.process_time()
    with pytest.raises(RecordError, match="is not a result of schema 1"):
        read_stored(path)
    assert time.process_time() - before < 5


def test_runs_and_files_are_gathered_in_their_order(folder: RunFolder, tmp_path: Path) -> None:
    stored = tmp_path / "x.json"
    stored.write_bytes(folder.results.read_bytes())
    found = gather_results(folder.path.parent, [str(stored), RUN_ID])
    assert [path for path, _ in found] == [None, folder.path]
    assert found[0][1] == found[1][1]
    assert folder.report.read_text(encoding="utf-8") != "old", "a run's own report is written anew"


def test_a_run_may_be_named_like_a_file(folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.path.rename(folder.path.with_name("sweep.json"))
    monkeypatch.chdir(tmp_path)
    (found,) = gather_results(tmp_path, ["sweep.json"])
    assert found[0] == tmp_path / "sweep.json"
    with pytest.raises(ConfigError, match="is no file"):
        gather_results(tmp_path, ["other.json"])
    with pytest.raises(ConfigError, match="run 'other': is not in "):
        gather_results(tmp_path, ["other"])
