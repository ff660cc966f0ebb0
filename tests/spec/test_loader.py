"""YAML 1.2 scalars, what the loader refuses, and that nothing but a ConfigError ever leaves it."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from robustlab.errors import ConfigError, Fault, InvalidFile
from robustlab.spec.base import Spec
from robustlab.spec.catalog import KINDS, schema_of
from robustlab.spec.loader import MAX_BYTES, dump_yaml, load_yaml

ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
Load = Callable[[str | bytes], Any]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Reads a document as it is, without a schema, from a file called x.yaml."""
    monkeypatch.chdir(tmp_path)

    def read(document: str | bytes) -> Any:
        path = Path("x.yaml")
        path.write_bytes(document.encode("utf-8") if isinstance(document, str) else document)
        return load_yaml(path, ANYTHING)

    return read


def faults_of(load: Load, document: str | bytes) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        load(document)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1e-4", 0.0001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-1.", -1.0),
        ("+3", 3),
        ("010", 10),
        ("-7", -7),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        ("2026-11-22", "2026-11-22"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("'1e-4'", "1e-4"),
        ('"true"', "true"),
        ('"null"', "null"),
        ("''", ""),
        ("|\n  1\n", "1\n"),
    ],
)
def test_a_scalar_is_read_as_yaml_1_2_says(load: Load, scalar: str, value: object) -> None:
    read = load(f"a: {scalar}\n")["a"]
    assert read == value and type(read) is type(value)


def test_a_byte_order_mark_is_no_part_of_the_first_key(load: Load) -> None:
    assert load(b"\xef\xbb\xbfa: 1\n") == {"a": 1}


def test_keys_are_text_whatever_they_look_like(load: Load) -> None:
    assert load("1: a\nnull: b\ntrue: c\n<<: d\n") == {"1": "a", "null": "b", "true": "c", "<<": "d"}


@pytest.mark.parametrize(
    ("document", "faults"),
    [
        ("", ["x.yaml:1: is empty"]),
        ("# only a comment\n", ["x.yaml:1: is empty"]),
        ("a: 1\nb: 2\na: 3\n", ["x.yaml:3: a: appears twice, first in line 1; keep one"]),
        ("a:\n  b: 1\n  b: 2\n", ["x.yaml:3: a.b: appears twice, first in line 2; keep one"]),
        ("a:\n- b: 1\n  b: 1\n", ["x.yaml:3: a.0.b: appears twice, first in line 2; keep one"]),
        ('a: 1\n"a": 2\n', ["x.yaml:2: a: appears twice, first in line 1; keep one"]),
        ("a: {? [b] : 1}\n", ["x.yaml:1: a: has a key that is not text"]),
        ("? {b: 1}\n: 1\n", ["x.yaml:1: has a key that is not text"]),
        ('a: "\\0"\n', ["x.yaml:1: a: holds a character that is not text; remove it"]),
        ('a: 1\nb: ["\\ud800"]\n', ["x.yaml:2: b.0: holds a character that is not text; remove it"]),
        ('"\\udfff": 1\n', ["x.yaml:1: has a key that is not text"]),
        ("a: .inf\n", ["x.yaml:1: a: must be a finite number, got .inf"]),
        ("a: -.Inf\n", ["x.yaml:1: a: must be a finite number, got -.Inf"]),
        ("a: .nan\n", ["x.yaml:1: a: must be a finite number, got .nan"]),
        (f"a: {'9' * 31}\n", ["x.yaml:1: a: has 31 digits, 30 at most; put it in quotes if it is text"]),
        ("a: &x 1\nb: *x\n", [f"x.yaml:{line}: uses the anchor or alias 'x'; write it out" for line in (1, 2)]),
        ("a: &a [*a]\n", ["x.yaml:1: uses the anchor or alias 'a'; write it out"] * 2),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            [
                "x.yaml:1: has the tag 'tag:yaml.org,2002:python/object/apply:os.system'; "
                "tags are not read, leave it out"
            ],
        ),
        ("a: 1\nb: !!str 5\n", ["x.yaml:2: has the tag 'tag:yaml.org,2002:str'; tags are not read, leave it out"]),
        ("a: ! 5\n", ["x.yaml:1: has the tag '!'; tags are not read, leave it out"]),
        ("a: !mine {b: 1}\n", ["x.yaml:1: has the tag '!mine'; tags are not read, leave it out"]),
        (
            "a: b: c\n",
            [
                "x.yaml:1: is not YAML: mapping values are not allowed here; put text that holds a colon in quotes",
            ],
        ),
        (
            "a:\n\tb: 1\n",
            ["x.yaml:2: is not YAML: found character '\\t' that cannot start any token; indent with spaces"],
        ),
        (
            "a: @x\n",
            [
                "x.yaml:1: is not YAML: found character '@' that cannot start any token; "
                "put text that begins so in quotes"
            ],
        ),
        (
            'a: 1\nb: "x\n',
            ["x.yaml:3: is not YAML: found unexpected end of stream; close the quote or the bracket"],
        ),
        (
            "a: 1\n---\nb: 2\n",
            ["x.yaml:2: is not YAML: but found another document; keep one document in a file"],
        ),
        ("a: 1\nb: \x07\n", ["x.yaml:2: holds the character '\\x07', which YAML does not allow; remove it"]),
        (b"a: 1\nb: \xff\n", ["x.yaml:2: is not UTF-8 at byte 8; save the file as UTF-8"]),
        ("a: 1\n".encode("utf-16"), ["x.yaml:1: is not UTF-8 at byte 0; save the file as UTF-8"]),
        ("a:\n  [" + "[" * 50, ["x.yaml:2: nests deeper than 32 levels"]),
        ("- " * 5000, ["x.yaml:1: nests deeper than 32 levels"]),
        ("#" * (MAX_BYTES + 1), ["x.yaml:1: is 8,000,001 bytes long; keep it under 8,000,000"]),
    ],
    ids=range(32),
)
def test_what_a_file_may_not_hold(load: Load, document: str | bytes, faults: list[str]) -> None:
    assert faults_of(load, document) == faults


def test_thirty_levels_and_thirty_digits_are_read(load: Load) -> None:
    assert load("[" * 30 + "]" * 30)
    assert load(f"a: {'9' * 30}") == {"a": 10**30 - 1}


def test_faults_of_scalars_and_of_the_schema_come_together(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "kind: budget\nstands_for: A stranger\nhardware: ''\nattacker:\n  max_usd: .inf\n  max_usd: 1\n"
        "laboratory: null\ntotl_usd: null\n"
    )
    with pytest.raises(InvalidFile) as caught:
        load_yaml(path, schema_of("budgets"))
    assert [(fault.line, fault.field, fault.problem) for fault in caught.value.faults] == [
        (1, "total_usd", "is missing"),
        (3, "hardware", 'must be text that is not empty, got ""'),
        (5, "attacker.max_usd", "must be a finite number, got .inf"),
        (6, "attacker.max_usd", "appears twice, first in line 5; keep one"),
        (8, "totl_usd", "is not a known key; did you mean 'total_usd'?"),
    ]
    assert pickle.loads(pickle.dumps(caught.value)).faults == caught.value.faults


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.yaml", "absent.yaml: cannot be read: No such file or directory; name a file that exists"),
        (".", ".: is not a regular file; name a YAML file"),
        ("pipe.yaml", "pipe.yaml: is not a regular file; name a YAML file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.yaml")
    with pytest.raises(ConfigError) as caught:
        load_yaml(Path(name), ANYTHING)
    assert str(caught.value) == message


SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Z"]), max_size=12) | st.from_regex(
    r"[-+]?[0-9]*\.?[0-9]*([eE][-+]?[0-9]{1,3})?", fullmatch=True
)
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)
QUICK = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Holder(Spec):
    """Any plain value."""

    value: Any


@QUICK
@given(VALUES)
@example("1e5")
@example("010")
@example("no")
@example("12:30")
@example("null")
@example(["0.5", "+3", ".inf", "~", "", " ", "=", "<<", "2026-11-22", "0x1F"])
@example({"1e5": 1e-7, "a": "x: y # z\n"})
def test_what_is_dumped_is_read_back(load: Load, value: Any) -> None:
    assert load(dump_yaml(Holder(value=value))) == {"value": value}


def test_a_dump_needs_no_anchors() -> None:
    shared = ["a"]
    assert dump_yaml(Holder(value=[shared, shared])) == "value:\n- - a\n- - a\n"


def problems_of(path: Path, schema: TypeAdapter[Any]) -> tuple[Fault, ...] | str | None:
    """What a file is told; anything but a ConfigError goes on up and fails the test."""
    try:
        load_yaml(path, schema)
    except InvalidFile as error:
        return error.faults
    except ConfigError as error:
        return str(error)
    return None


@QUICK
@given(st.binary(max_size=200))
@example(b"\xff\xfe")
@example(b"a: \x00")
@example(b"%YAML 9.9\n---\na")
@example(b"%TAG ! tag:x,2000:\n---\n!a b")
@example(b"- - ? - -")
def test_random_bytes_raise_nothing_but_faults(tmp_path_factory: pytest.TempPathFactory, document: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_bytes(document)
    assert problems_of(path, ANYTHING) != ()


WORDS = ["kind", "mode", "budget", "plan", "lora_sft", "tiny", "attacker", "data", "source", "max_usd", "name"]
MARKS = ["1e999", "0", "-1", ".nan", "&a", "*a", "!!map", "|", "#", "[", "]", "{", "}", ",", "?", "-"]
YAML_LIKE = st.lists(st.sampled_from([*WORDS, *MARKS, ": ", "\n", "  ", " ", '"', "'"]), max_size=40).map("".join)


@QUICK
@given(st.sampled_from([*KINDS, "plan"]), YAML_LIKE | st.text())
@example("targets", "kind: tiny\ntiny: {tiny: 1}\n")
@example("attacks", "kind: {kind: lora_sft}\n")
@example("plan", "kind: [plan]\n")
@example("evals", "kind: refusal\nsource: {kind: {}}\n")
@example("safeguards", "? [kind]\n: none\n")
def test_random_documents_raise_nothing_but_faults_with_a_line(
    tmp_path_factory: pytest.TempPathFactory, kind: Any, document: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_bytes(document.encode("utf-8", "surrogatepass"))
    faults = problems_of(path, schema_of(kind)) or (Fault("", 1, "", "none"),)
    assert not isinstance(faults, str)
    assert all(fault.line >= 1 and fault.problem for fault in faults)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nkey: sk-" + "a1" * 12,
        "a: 1\nb: https://me:word@host/v1",
        "a: 1\n# my canary-value-4711",
        "a: 1\ncanary-value-4711: 2",
    ],
)
def test_a_file_with_a_secret_is_refused_and_does_not_repeat_it(
    load: Load, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary-value-4711")
    with pytest.raises(InvalidFile) as caught:
        load(text)
    assert str(caught.value).endswith(":2: holds a secret; take it out, and put it into an environment variable")
    assert [fault.line for fault in caught.value.faults] == [2]


def test_a_long_file_is_explained_by_the_quick_parser(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a:\n" + "- b\n" * 60_000 + "\t- [")
    with pytest.raises(InvalidFile, match=r"x\.yaml:60002: is not YAML: "):
        load_yaml(path, TypeAdapter(dict))
    path.write_text("a:\n" + "- b\n" * 60_000 + "\x01")
    with pytest.raises(InvalidFile, match=r"x\.yaml:\d+: holds the character '\\x01', which YAML does not allow"):
        load_yaml(path, TypeAdapter(dict))


@pytest.mark.parametrize("line", ["- &x b\n", "- !x b\n"])
def test_a_file_that_is_nothing_but_faults_is_not_listed_whole(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(line * 5000)
    with pytest.raises(InvalidFile) as caught:
        load_yaml(path, TypeAdapter(list))
    assert len(caught.value.faults) == 101
    assert str(caught.value.faults[-1]) == f"{path}:101: and more from here on"
