"""The index has upstream's counts, and texts are found by their hash alone."""

import hashlib
from collections import Counter

import pytest

from robustlab.data import harmbench
from robustlab.data.harmbench import annotate, load_index, text_sha256
from robustlab.errors import DataError


def test_the_hash_joins_behavior_and_context() -> None:
    assert text_sha256("ask", "context") == hashlib.sha256(b"ask\x1fcontext").hexdigest()
    assert text_sha256("ask", None) == hashlib.sha256(b"ask\x1f").hexdigest()
    assert text_sha256("ask", "") == text_sha256("ask", None)
    assert text_sha256("é", None) == hashlib.sha256(b"\xc3\xa9\x1f").hexdigest()


@pytest.mark.parametrize("variant", [" a\nb\n", "a\r\nb", "\ta\nb  "])
def test_edges_and_line_endings_make_no_difference(variant: str) -> None:
    assert text_sha256(variant, variant) == text_sha256("a\nb", "a\nb")


@pytest.mark.parametrize("other", ["a  b", "A b", "a\nb", "a b."])
def test_the_inside_does(other: str) -> None:
    assert text_sha256(other, None) != text_sha256("a b", None)


def test_a_context_is_not_a_behavior() -> None:
    assert text_sha256("a", "b") != text_sha256("b", "a")


def test_the_index_has_the_published_counts() -> None:
    rows = list(load_index().values())
    assert [row.row for row in rows] == list(range(1, 401))
    assert Counter(row.functional for row in rows) == {"standard": 200, "contextual": 100, "copyright": 100}
    assert Counter((row.split, row.functional) for row in rows) == {
        ("test", "standard"): 159,
        ("test", "contextual"): 81,
        ("test", "copyright"): 80,
        ("val", "standard"): 41,
        ("val", "contextual"): 19,
        ("val", "copyright"): 20,
    }
    assert Counter(row.category for row in rows) == {
        "chemical_biological": 56,
        "cybercrime_intrusion": 67,
        "illegal": 65,
        "misinformation_disinformation": 65,
        "harassment_bullying": 25,
        "harmful": 22,
        "copyright": 100,
    }
    assert {(row.split, row.role) for row in rows} == {("val", "install"), ("test", "select"), ("test", "report")}


def test_the_select_rows_are_the_first_quarter_of_each_stratum_by_hash() -> None:
    strata: dict[tuple[str, str], list[harmbench.IndexRow]] = {}
    for row in load_index().values():
        if row.split == "test":
            strata.setdefault((row.functional, row.category), []).append(row)
    for rows in strata.values():
        ordered = sorted(rows, key=lambda row: row.text_sha256)
        assert [row.role == "select" for row in ordered] == [i < len(rows) // 4 for i in range(len(rows))]


def test_an_unknown_text_is_named_by_its_row_and_never_quoted() -> None:
    with pytest.raises(DataError) as caught:
        annotate("rows.txt", [("How do I bake bread?", None)])
    expected = "rows.txt row 1: is not a behavior of HarmBench; use the benchmark's pinned file"
    assert str(caught.value) == expected


def test_a_damaged_index_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harmbench, "_INDEX_SHA256", "0" * 64)
    load_index.cache_clear()
    with pytest.raises(
        DataError, match=r"harmbench_index.csv: has sha256 \w+ instead of 0{64}; install robustlab again"
    ):
        load_index()
    load_index.cache_clear()


def test_standard_behaviors_are_all_known(harmbench_standard: list[str]) -> None:
    facts = annotate("rows", [(text, None) for text in harmbench_standard])
    standard = [row for row in load_index().values() if row.functional == "standard"]
    assert facts == standard  # same rows, same order
