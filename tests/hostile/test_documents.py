"""YAML, CSV, JSON, policies, price cards, ledgers and labels from strangers, through the commands that read them."""

import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.data import official
from robustlab.data.layouts import read_csv, read_json_list, read_jsonl, read_labelled_csv, read_lines
from robustlab.data.official import read_official_csv
from robustlab.data.references import load_references
from robustlab.engine import report
from robustlab.engine.report import read_stored
from robustlab.record.journal import GENESIS, read_journal
from robustlab.spec.base import canonical_json, content_hash
from tests.hostile.conftest import Room
from tests.report.conftest import results

N = 20_000
YAML: dict[str, tuple[bytes, str]] = {
    "an object of Python": (b"a: !!python/object/apply:os.system ['touch ../sentinel']", "has the tag"),
    "a name of Python": (b"!!python/name:os.system", "has the tag"),
    "a module of Python": (b"a: !!python/module:trap", "has the tag"),
    "a tag by directive": (b"%TAG ! tag:yaml.org,2002:python/\n---\na: !object/apply:os.system [x]", "has the tag"),
    "a bomb of aliases": (
        b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (98 + i, 98 + i, 97 + i, 97 + i) for i in range(20)),
        "uses the anchor or alias 'a'; write it out",
    ),
    "an alias of itself": (b"a: &a [*a]", "uses the anchor or alias 'a'; write it out"),
    "a merge of aliases": (b"x: &x {a: 1}\ny:\n  <<: *x", "uses the anchor or alias 'x'; write it out"),
    "a merge": (b"kind: budget\n<<: {a: 1}", "is not a known key"),
    "20,000 brackets": (b"a: " + b"[" * N, "nests deeper than 32 levels"),
    "20,000 braces": (b"{a: " * N, "nests deeper than 32 levels"),
    "20,000 steps": (b"- " * N, "nests deeper than 32 levels"),
    "20,000 question marks": (b"? " * N, "nests deeper than 32 levels"),
    "a number of 5,000 digits": (b"kind: budget\nmax_usd: " + b"9" * 5000, "has 5000 digits, 30 at most"),
    "a number that is none": (b"kind: .nan", "must be a finite number, got .nan"),
    "a number without end": (b"kind: budget\ntotal_usd: -.inf", "must be a finite number, got -.inf"),
    "one key twice": (b"kind: budget\nkind: budget", "appears twice, first in line 1; keep one"),
    "a key that is a list": (b"? [a, b]\n: c", "has a key that is not text"),
    "a NUL": (b"a: x\0y", "holds the character '\\x00', which YAML does not allow"),
    "a NUL in quotes": (b'a: "\\0"', "holds a character that is not text; remove it"),
    "half a surrogate": (b'a: "\\ud800"', "holds a character that is not text; remove it"),
    "UTF-16": ("kind: budget".encode("utf-16"), "is not UTF-8 at byte 0; save the file as UTF-8"),
    "Latin-1": (b"a: \xe9", "is not UTF-8 at byte 3"),
    "two documents": (b"a: 1\n---\na: 2", "found another document; keep one document in a file"),
    "nothing": (b"", "is empty"),
    "a mark alone": (b"\xef\xbb\xbf", "is empty"),
    "an open quote": (b'a: "' + b"x" * N, "close the quote or the bracket"),
    "ten thousand faults": (b"a: 1\n" * 10_000, "appears twice"),
    "a pickle": (b"\x80\x04\x95", "is not UTF-8 at byte 0"),
}


@pytest.mark.parametrize("name", YAML)
def test_yaml_with(room: Room, name: str) -> None:
    data, problem = YAML[name]
    (room.work / "budgets").mkdir()
    (room.work / "budgets" / "x.yaml").write_bytes(data)
    ended = room.run("check", "budgets/x.yaml")
    assert ended.code == 2
    assert problem in ended.err
    assert len(ended.err) < 40_000


def test_yaml_of_more_than_8_mb(room: Room) -> None:
    (room.work / "x.yaml").write_bytes(b"a: " + b"x" * 8_000_000)
    ended = room.run("gate", "x.json", "--policy", "x.yaml")
    assert ended.code == 2
    assert "is 8,000,003 bytes long; keep it under 8,000,000" in ended.err


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_yaml_that_is_no_file(room: Room, make: Callable[[Path], None]) -> None:
    make(room.work / "x.yaml")
    ended = room.run("gate", "x.json", "--policy", "x.yaml")
    assert (ended.code, "is not a regular file" in ended.err) == (2, True)


def test_a_fault_cannot_steer_the_terminal(room: Room) -> None:
    (room.work / "budgets").mkdir()
    (room.work / "budgets" / "x.yaml").write_text(
        '"\\e[31m\\e]0;owned\\a\\u202E\\x9b2J[bold]": "\\e[2J"\nkind: "\\e[1m"'
    )
    ended = room.run("check", "budgets/x.yaml")
    assert ended.code == 2
    assert not set(ended.err) & set("\x1b\x07\u202e\x9b")
    assert "[bold]" in ended.err


SECRET = "hf_canary0123456789canary0123456789"
ADDRESS = "endpoint: {base_url: 'https://%s', key_variable: %s}"
SECRETS = {
    "a key in place of its variable's name": ADDRESS % ("example.org/v1", f"'{SECRET}'"),
    "a password in an address": ADDRESS % (f"me:{SECRET}@example.org/v1", "null"),
    "a token in an address": ADDRESS % (f"example.org/v1?token={SECRET}", "null"),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_file_that_holds(room: Room, name: str) -> None:
    (room.work / "targets").mkdir()
    (room.work / "targets" / "x.yaml").write_text(f"kind: openai\n{SECRETS[name]}\n")
    ended = room.run("check", "targets/x.yaml")
    assert ended.code == 2
    assert SECRET not in ended.err


NESTED = b"[" * 200_000


def respelt(plain: dict[str, Any], number: str) -> bytes:
    """Results with another number wherever money stands."""
    return re.sub(r'micro_usd": \d+', f'micro_usd": {number}', json.dumps(plain)).encode()


RESULTS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "200,000 brackets": lambda plain: NESTED,
    "brackets in the plan": lambda plain: (
        json.dumps(plain | {"plan": {"a": 0}}).encode().replace(b'"a": 0', b'"a":' + NESTED)
    ),
    "a number that is none": lambda plain: json.dumps(plain | {"plan": {"a": float("nan")}}).encode(),
    "money that is none": lambda plain: respelt(plain, "NaN"),
    "money without end": lambda plain: respelt(plain, "1e400"),
    "a number of 5,000 digits": lambda plain: json.dumps(plain).replace('"seed": 0', f'"seed": {"9" * 5000}').encode(),
    "a list": lambda plain: b"[]",
    "text": lambda plain: b'"results"',
    "nothing": lambda plain: b"",
    "UTF-16": lambda plain: json.dumps(plain).encode("utf-16"),
    "half a surrogate": lambda plain: json.dumps(plain | {"run_id": "\ud800"}).encode(),
    "a pickle": lambda plain: b"\x80\x04\x95",
    "schema 2": lambda plain: json.dumps(plain | {"schema": 2}).encode(),
    "keys that there are not": lambda plain: json.dumps(plain | {"__class__": "os.system"}).encode(),
    "a list for a cell": lambda plain: json.dumps(plain | {"cells": [[]]}).encode(),
    "wrong types everywhere": lambda plain: json.dumps(dict.fromkeys(plain, 7)).encode(),
}


@pytest.fixture(scope="session")
def plain() -> dict[str, Any]:
    """Results that are sound."""
    dumped: dict[str, Any] = results().model_dump(mode="json")
    return dumped


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("packed", [False, True])
def test_results_with(room: Room, plain: dict[str, Any], name: str, packed: bool) -> None:
    data = RESULTS[name](plain)
    path = room.work / ("x.json.gz" if packed else "x.json")
    path.write_bytes(gzip.compress(data) if packed else data)
    policy = Path(__file__).parents[2] / "docs" / "policies" / "example.yaml"
    policies = sorted(policy.parent.glob("*.yaml"))
    for words in (["report", str(path)], ["gate", str(path), "--policy", str(policies[0])]):
        ended = room.run(*words)
        assert ended.code == 1
        assert ended.err.startswith(f"{path}: is not a result of schema 1, got ")
        assert len(ended.err) < 2000


def bomb(size: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
        for _ in range(size >> 20):
            file.write(b" " * (1 << 20))
    return packed.getvalue()


def test_results_that_unpack_to_much(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_BYTES", 4 << 20)
    (room.work / "x.json.gz").write_bytes(bomb(8 << 20))
    assert "holds more than 4,194,304 bytes" in room.refused(lambda: read_stored(room.work / "x.json.gz"))


@pytest.mark.parametrize(
    "data",
    [b"plain", b"\x1f\x8b", zlib.compress(b"{}"), gzip.compress(b"{}", mtime=0)[:-4]],
    ids=["plain", "two bytes", "zlib", "cut"],
)
def test_results_that_are_not_gzipped(room: Room, data: bytes) -> None:
    (room.work / "x.json.gz").write_bytes(data)
    assert "is not gzipped, or was cut short" in room.refused(lambda: read_stored(room.work / "x.json.gz"))


def chained(*payloads: dict[str, Any]) -> bytes:
    """A ledger whose chain holds, whatever its records say: the chain has no key."""
    lines, prev = [], GENESIS
    for seq, payload in enumerate(payloads):
        record = {"seq": seq, "time": "2026-11-22T00:00:00.000000+00:00", **payload, "prev": prev}
        record["hash"] = content_hash(record)
        prev = record["hash"]
        lines.append(canonical_json(record).encode() + b"\n")
    return b"".join(lines)


CHARGE = {"record": "charge", "account": "attacker", "node": "n", "phase": "p", "purse": "b", "price_key": "k"}
LEDGERS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{}\n" * 10,
    "a record of 200,000 brackets": NESTED + b"\n",
    "a number of 5,000 digits": b'{"seq": ' + b"9" * 5000 + b"}\n",
    "a NUL": b"\0" * 1000 + b"\n",
    "a million empty lines": b"\n" * 1_000_000,
    "half a record": chained({"kind": "x"})[:-10],
    "a sequence that is text": chained({"kind": "x"}).replace(b'"seq":0', b'"seq":"0"'),
    "charges that are none": chained(CHARGE, {"record": 7}, {"record": None}, {"record": {"a": 1}}),
    "a charge without numbers": chained(CHARGE | {"micro_usd": "much", "quantities": []}),
    "a charge beyond all money": chained(CHARGE | {"micro_usd": 10**300, "quantities": {"wall_ns": 10**300}}),
    "times that are none": chained({"kind": "session", "time": "never"}, {"kind": "clock_jump", "by_ns": "x"}),
    "custody that is none": chained({"kind": "custody", "event": 7, "artefact": ["../../x"], "sha256": None}),
    "a path for an artefact": chained({"kind": "custody", "event": "created", "artefact": "../../etc/passwd"}),
    "a release of nothing": chained({"kind": "session"}, {"kind": "session", "pid": -1, "host": {"a": []}}),
}


@pytest.mark.parametrize("name", LEDGERS)
def test_a_ledger_with(room: Room, name: str) -> None:
    folder = room.runs / "theirs"
    (folder / "resume").mkdir(parents=True)
    (folder / "ledger.jsonl").write_bytes(LEDGERS[name])
    for words in (
        ["ledger", "verify", "theirs"],
        ["ledger", "export", "theirs", "--out", "runs/x.csv"],
        ["ledger", "price", "theirs"],
        ["list", "runs"],
        ["custody", "theirs"],
    ):
        ended = room.run(*words)
        assert ended.code in (0, 1, 2)
        assert "Traceback" not in ended.err


@pytest.mark.parametrize("name", ["ledger.jsonl", "results.json", "manifest.json", "plan.yaml", "prices.yaml"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_run_whose_file_is_none(room: Room, name: str, make: Callable[[Path], None]) -> None:
    folder = room.runs / "theirs"
    (folder / "resume").mkdir(parents=True)
    (folder / "ledger.jsonl").write_bytes(chained({"kind": "x"}))
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    for words in (["ledger", "verify", "theirs"], ["report", "theirs"], ["list", "runs"], ["custody", "theirs"]):
        ended = room.run(*words)
        assert ended.code in (0, 1, 2)
        assert "Traceback" not in ended.err


@pytest.mark.parametrize("run_id", ["../theirs", "/etc", "a/b", "x\x1b[31m", "-x", ".", "..", "a\0b", "x" * 300])
@pytest.mark.parametrize("words", [["report"], ["ledger", "verify"], ["custody"], ["label"], ["gate"]])
def test_a_run_that_is_a_path(room: Room, words: list[str], run_id: str) -> None:
    (room.work / "p.yaml").write_text("kind: policy\n")
    more = ["--policy", "p.yaml"] if words == ["gate"] else ["--key", "k"] if words == ["label"] else []
    ended = room.run(*words, *more, "--", run_id)
    assert ended.code in (1, 2)
    assert "\x1b" not in ended.err


def test_a_price_card_with_names_of_its_own(room: Room) -> None:
    card = (Path(__file__).parents[2] / "robustlab" / "cost" / "prices.yaml").read_text(encoding="utf-8")
    hostile = card.replace("label: ", 'label: "=cmd|calc\\e[31m\\u202E<script>[red]" #', 1)
    (room.work / "prices.yaml").write_text(hostile)
    ended = room.run("prices", "list", "--prices", "prices.yaml")
    assert not set(ended.out + ended.err) & set("\x1b\u202e")


CSVS = {
    "a field of a million": b'a,b\n"' + b"x" * 1_000_000 + b'",1\n',
    "an open quote": b'a,b\n"x',
    "a NUL": b"a,b\n\0,1\n",
    "a quote in the middle": b'a,b\nx"y"z"",1\n',
    "a million columns": b"," * 1_000_000,
    "UTF-16": "a,b\n1,2\n".encode("utf-16"),
    "nothing": b"",
    "line ends alone": b"\r\n\r\r\n",
    "a pickle": b"\x80\x04\x95",
    "half a character": b"a,b\n\xff\n",
    "brackets": b"[" * 200_000,
}
READERS = {
    "csv": read_csv,
    "labels": read_labelled_csv,
    "lines": read_lines,
    "json": read_json_list,
    "jsonl": read_jsonl,
}


@pytest.mark.parametrize("name", CSVS)
@pytest.mark.parametrize("reader", READERS)
def test_rows_with(room: Room, name: str, reader: str) -> None:
    assert len(room.outcome(lambda: READERS[reader]("theirs", CSVS[name])) or "") < 500


def test_a_csv_of_more_than_16_mib(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "MAX_BYTES", 1000)
    (room.work / "x.csv").write_bytes(b"x" * 1001)
    assert "has more than 1,000 bytes" in room.refused(lambda: read_official_csv(room.work / "x.csv"))


@pytest.mark.parametrize("data", [NESTED, b"\x80\x04N.", b"PK\x03\x04", b"{}", b'{"a": NaN}'])
def test_references_that_are_none(room: Room, data: bytes) -> None:
    (room.work / "x.json").write_bytes(data)
    room.refused(lambda: load_references("x.json", hashlib.sha256(data).hexdigest()))


def test_a_journal_that_grows_by_a_line_is_refused(room: Room) -> None:
    path = room.work / "ledger.jsonl"
    path.write_bytes(chained({"kind": "x"}) + chained({"kind": "y"}))
    assert "does not follow the record before it" in room.refused(lambda: read_journal(path))
