"""Random and mutated inputs for every reader of files from elsewhere: nothing but the project's own errors leaves one.

    python -m tests.hostile.fuzz [--inputs 100000] [--seed 0]

A mutation begins with a sound file, or with a piece of a known hostile one, and cuts, repeats, swaps, flips or splices
it. The same seed gives the same inputs. No text of a benchmark is used.
"""

import argparse
import gzip
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from robustlab.cost.prices import load_price_card
from robustlab.data.layouts import (
    CSV_COLUMNS,
    LABELLED_COLUMNS,
    read_csv,
    read_json_list,
    read_jsonl,
    read_labelled_csv,
)
from robustlab.data.official import read_official_csv
from robustlab.engine.gate import judge_release
from robustlab.engine.ledger import verify_ledger
from robustlab.engine.report import read_stored
from robustlab.errors import RobustlabError
from robustlab.record.journal import GENESIS, read_journal
from robustlab.report.grid import build_grid
from robustlab.report.layout import to_markdown
from robustlab.spec.base import canonical_json, content_hash
from robustlab.spec.catalog import package_root, schema_of
from robustlab.spec.loader import load_yaml
from robustlab.spec.policy import Policy
from tests.engine.test_ledger import CARD, make_run

MAX_BYTES = 20_000
SLOW_SECONDS = 10.0
"""Processor time beyond which an input counts as a hang."""
_PIECES = [
    b"!!python/object/apply:os.system [x]", b"&a [*a, *a]", b"<<: *a", b"- " * 40, b"[" * 40, b"{a: " * 40,
    b"9" * 400, b"1e999", b".nan", b"NaN", b"-Infinity", b"0x7f", b"012", b"12:30", b"yes", b"null", b"~", b"\x00",
    b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\xe2\x80\xae", b"\x1b[31m", b'"', b"'", b'"""',
    b"\r\n", b"\r", b"\n\n", b"\t", b",", b":", b"=1+1", b"<script>", b"{{ 7 * 7 }}", b"../../etc/passwd",
    b"\x80\x04\x95", b"PK\x03\x04", b"\x1f\x8b", b"[[[[[[[[[[", b"}}}}}}}}}}", b"-1", b"1e-400", b"true", b'{"a":1}',
    b'"seq":0', b'"hash":"', b"% TAG ! x", b"---\n", b"...\n",
]  # fmt: skip
_MARKS = {
    b"kind: budget": "budgets",
    b"kind: policy": "policy",
    b"kind: plan": "plan",
    b"shape:": "targets",
    b"recipe:": "attacks",
    b"confidence:": "evals",
}
_OTHERS = ("targets", "safeguards", "attacks", "evals")
Reader = Callable[[Path, bytes], object]


@dataclass
class Tally:
    """What came of the inputs of one reader.

    Attributes:
        inputs: How many there were.
        errors: How many ended in each of the project's errors.
        read: How many were read.
        slowest_seconds: Processor time of the slowest.
        faults: What must not be: another exception, or a hang, with the input's number.
    """

    inputs: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    read: int = 0
    slowest_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def mutations(seeds: list[bytes], chance: random.Random) -> Iterator[bytes]:
    """Endless inputs, most of them close to sound ones."""
    while True:
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 5, 12))):
            _mutate(data, chance, seeds)
        if chance.random() < 0.02:
            data = bytearray(chance.randbytes(chance.randrange(400)))
        yield bytes(data[:MAX_BYTES])


def _mutate(data: bytearray, chance: random.Random, seeds: list[bytes]) -> None:
    start = chance.randrange(len(data) + 1)
    end = min(len(data), start + chance.choice((1, 1, 2, 5, 20, 200, 2000)))
    match chance.randrange(8):
        case 0:
            del data[start:end]
        case 1:
            data[start:start] = data[start:end] * chance.choice((1, 2, 30))
        case 2:
            data[start:start] = chance.choice(_PIECES)
        case 3:
            data[start:end] = chance.choice(_PIECES)
        case 4:
            other = chance.choice(seeds)
            place = chance.randrange(len(other) + 1)
            data[start:end] = other[place : place + chance.randrange(300)]
        case 5 if data:
            data[min(start, len(data) - 1)] ^= 1 << chance.randrange(8)
        case 6:
            data[start:end] = bytes(reversed(data[start:end]))
        case _:
            data[start:end] = chance.randbytes(end - start)


def genuine_chain(data: bytes) -> bytes:
    """Give the records of a mutated ledger a chain that holds: it has no key, so a forger's would."""
    lines, prev = [], GENESIS
    for seq, line in enumerate(data.split(b"\n")):
        try:
            record = json.loads(line)
            plain = {key: value for key, value in record.items() if key not in ("hash", "prev", "seq")}
            sealed = {"seq": seq, **plain, "prev": prev}
            sealed["hash"] = prev = content_hash(sealed)
            lines.append(canonical_json(sealed).encode() + b"\n")
        except (ValueError, AttributeError, RecursionError):
            continue
    return b"".join(lines)


def read_yaml(path: Path, data: bytes) -> object:
    """The loader, with the schema that the data seem to ask for."""
    path.write_bytes(data)
    if b"kind: prices" in data:
        return load_price_card(path)
    asked = next((kind for mark, kind in _MARKS.items() if mark in data), None)
    return load_yaml(path, schema_of(asked or _OTHERS[len(data) % len(_OTHERS)]))


def read_ledger(path: Path, data: bytes) -> object:
    """The journal as it is, and the checks of a ledger whose chain holds."""
    folder = path.parent / "runs" / "theirs"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prices.yaml").write_text(CARD)
    (folder / "ledger.jsonl").write_bytes(genuine_chain(data))
    verify_ledger(folder.parent, "theirs")
    (folder / "ledger.jsonl").write_bytes(data)
    return read_journal(folder / "ledger.jsonl")


def read_rows(path: Path, data: bytes) -> object:
    """A reader of rows; of one in five that can be read also the one that takes the published file alone."""
    path.write_bytes(data)
    readers = (read_csv, read_labelled_csv, read_json_list, read_jsonl)
    found = readers[len(data) % len(readers)]("theirs", data)
    return read_official_csv(path) if len(data) % 5 == 0 else found


@cache
def _policy() -> Policy:
    policy: Policy = load_yaml(package_root() / "docs" / "policies" / "ten_dollars.yaml", schema_of("policy"))
    return policy


def read_results(path: Path, data: bytes) -> object:
    """Stored results, packed every other time; what can be read is put into a grid and held against a policy."""
    packed = len(data) % 2 == 0
    stored = path.with_suffix(".json.gz" if packed else ".json")
    stored.write_bytes(gzip.compress(data, 1) if packed else data)
    found = read_stored(stored)
    judge_release(found, _policy())
    return to_markdown(build_grid([found]))


def yaml_seeds() -> list[bytes]:
    """The files of the catalogue and of the documents."""
    root = package_root()
    folders = ("targets", "safeguards", "attacks", "budgets", "evals", "docs/policies", "docs/plans", "robustlab/cost")
    return [path.read_bytes() for folder in folders for path in sorted((root / folder).glob("*.yaml"))]


def row_seeds() -> list[bytes]:
    """Mild rows in each layout."""
    head = ",".join(CSV_COLUMNS)
    labelled = ",".join(LABELLED_COLUMNS)
    listed = [{"id": str(number), "prompt": "a mild text", "text": "a mild text"} for number in range(3)]
    return [
        f'{head}\r\n"a mild\r\ntext",standard,illegal,,"",one\r\nother,contextual,illegal,,a context,two\r\n'.encode(),
        f'# a comment\n{labelled}\na mild objective,a reply,1,text\n"another","",0,text\n'.encode(),
        json.dumps(listed).encode(),
        "\n".join(json.dumps(item) for item in listed).encode(),
    ]


def ledger_seeds() -> list[bytes]:
    """The records of a run of money, custody and marks, whole and in parts."""
    with TemporaryDirectory() as folder:
        whole = make_run(Path(folder)).folder.ledger.read_bytes()
    records = whole.splitlines(keepends=True)
    jump = json.dumps({"kind": "clock_jump", "time": json.loads(records[1])["time"], "by_ns": 10**9}).encode() + b"\n"
    return [whole, b"".join(records[:4]), b"".join(records[4:9]), b"".join([*records[:6], jump, *records[6:9]])]


def result_seeds() -> list[bytes]:
    """Stored results of the documents, cut to few cells."""
    seeds = []
    for path in sorted((package_root() / "docs" / "results").glob("*.json.gz")):
        plain = json.loads(gzip.decompress(path.read_bytes())) | {"controls": {}, "nodes": [], "purses": [], "plan": {}}
        cell = plain["cells"][-1] | {"phases": [], "estimate": {}}
        cell["measurements"] = [item | {"properties": item["properties"][:2]} for item in cell["measurements"][::3]]
        seeds.append(json.dumps(plain | {"cells": [cell]}).encode())
        seeds.append(json.dumps(plain | {"cells": []}).encode())
    return seeds


READERS: dict[str, tuple[Reader, Callable[[], list[bytes]]]] = {
    "yaml": (read_yaml, yaml_seeds),
    "ledger": (read_ledger, ledger_seeds),
    "rows": (read_rows, row_seeds),
    "results": (read_results, result_seeds),
}


def feed(name: str, inputs: int, seed: int, folder: Path) -> Tally:
    """Give a reader its inputs.

    Args:
        name: One of ``READERS``.
        inputs: How many.
        seed: Of the mutations.
        folder: Where files may be made.

    Returns:
        What came of them.
    """
    reader, seeds = READERS[name]
    tally = Tally()
    source = mutations(seeds(), random.Random(f"{name} {seed}"))
    for number in range(inputs):
        data = next(source)
        begun = time.process_time()
        try:
            reader(folder / "input", data)
            tally.read += 1
        except RobustlabError as error:
            tally.errors[type(error).__name__] += 1
        except Exception as error:  # what this file is there to find
            tally.faults.append(f"{name} {number}: {type(error).__name__}: {str(error)[:200]}")
        taken = time.process_time() - begun
        tally.slowest_seconds = max(tally.slowest_seconds, taken)
        if taken > SLOW_SECONDS:
            tally.faults.append(f"{name} {number}: {taken:.1f} s for {len(data)} bytes")
        tally.inputs += 1
    return tally


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Feed every reader its share, print a table, and end with 1 if anything else than an error of our own came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    faults: list[str] = []
    tell(f"{'reader':8} {'inputs':>7} {'read':>6} {'slowest':>8}  refused with")
    with TemporaryDirectory() as folder:
        for name in READERS:
            tally = feed(name, asked.inputs // len(READERS), asked.seed, Path(folder))
            refused = ", ".join(f"{kind} {count}" for kind, count in sorted(tally.errors.items()))
            tell(f"{name:8} {tally.inputs:7} {tally.read:6} {tally.slowest_seconds:7.2f}s  {refused}")
            faults += tally.faults
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    tell(f"{len(faults)} faults; peak memory {peak} MiB; seed {asked.seed}")
    for fault in faults[:20]:
        tell(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
