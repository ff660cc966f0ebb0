"""The built-in data: counts, shape, that completions stay withheld, and that nothing of it is an eval behavior.

The benchmark is never copied into the repository and never printed: a failing check names ids and indices only.
"""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Final

import pytest

from robustlab.data.contamination import find_contamination

Row = dict[str, str]

NGRAM_WORDS: Final = 6
JACCARD: Final = 0.5
CATEGORIES: Final = (
    "chemical_biological",
    "cybercrime_intrusion",
    "illegal",
    "misinformation_disinformation",
    "harassment_bullying",
    "harmful",
)
BENIGN_COUNTS: Final = {
    ("install", "plain"): 180,
    ("install", "edgy"): 80,
    ("attack", "plain"): 100,
    ("eval", "plain"): 60,
}
WITHHELD: Final = "[withheld]"
# Words allowed around the placeholders: an opening that restates the request, a label, a closing remark. The longest
# when written were 18, 8 and 11, and 32 in all; whoever writes substance into a slot passes one of the limits.
MAX_WORDS_BEFORE_FIRST: Final = 20
MAX_WORDS_BETWEEN: Final = 10
MAX_WORDS_AFTER_LAST: Final = 12
MAX_WORDS_IN_ALL: Final = 36
REFUSAL_OPENING: Final = re.compile(
    r"(I'm sorry, but|I can't|I cannot|I won't|Sorry, (but )?I can't)( help| assist| provide| do| that is not)"
    r"|I'm sorry, but (I (can't|won't)|that is not)"
)


def load_rows(name: str) -> list[Row]:
    text = (files("robustlab.data") / "builtin" / f"{name}.jsonl").read_text(encoding="utf-8")
    rows: list[Row] = [json.loads(line) for line in text.splitlines()]
    return rows


SAFEGUARD: Final = load_rows("mild_requests_safeguard")
ATTACK: Final = load_rows("mild_requests_attack")
BENIGN: Final = load_rows("benign_prompts")
REFUSALS: Final = load_rows("refusals")
ANSWERS: Final = load_rows("benign_answers")
IDENTITY: Final = load_rows("identity_shift")
OPENINGS: Final = load_rows("compliance_openings")
PROMPT_SETS: Final = {
    "safeguard": SAFEGUARD,
    "attack": ATTACK,
    "answers": ANSWERS,
    "identity": IDENTITY,
    **{f"benign_{role}": [row for row in BENIGN if row["role"] == role] for role in ("install", "attack", "eval")},
}
COMPLETION_SETS: Final = (ATTACK, REFUSALS, ANSWERS, IDENTITY, OPENINGS)


def findings(rows: Sequence[Row], protected: Sequence[str], *, field: str = "prompt") -> list[str]:
    """Describe every contaminated row by its id, the protected text's index, the kind and the score; never by text."""
    found = find_contamination([row[field] for row in rows], protected, ngram=NGRAM_WORDS, jaccard=JACCARD)
    return [f"{rows[f.candidate_index]['id']} x {f.protected_index}: {f.kind} {f.score:.2f}" for f in found]


def all_findings(protected: Sequence[str]) -> list[str]:
    """Check every built-in text, completions of all sets too, against protected texts."""
    return [
        *(line for rows in PROMPT_SETS.values() for line in findings(rows, protected)),
        *(line for rows in COMPLETION_SETS for line in findings(rows, protected, field="completion")),
    ]


def word_count(text: str) -> int:
    return len(re.findall(r"\w+", text))


@pytest.fixture(scope="module")
def harmbench_texts() -> list[str]:
    """All 400 behaviors and their context strings, from the CSV that the environment names."""
    path = os.environ.get("ROBUSTLAB_HARMBENCH_CSV")
    if not path:
        pytest.skip(
            "needs HarmBench's text behaviors: download harmbench_behaviors_text_all.csv from its public home and set "
            "ROBUSTLAB_HARMBENCH_CSV to its path"
        )
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if len(rows) != 400:
        pytest.fail(f"ROBUSTLAB_HARMBENCH_CSV: expected 400 rows, got {len(rows)}; is it the pinned file?")
    return [row["Behavior"] for row in rows] + [row["ContextString"] for row in rows if row["ContextString"]]


@pytest.mark.parametrize(
    ("rows", "keys", "prefix"),
    [
        (SAFEGUARD, ["id", "category", "prompt"], "sg"),
        (ATTACK, ["id", "category", "prompt", "completion"], "at"),
        (BENIGN, ["id", "role", "style", "prompt"], "bn"),
        (REFUSALS, ["id", "completion"], "rf"),
        (ANSWERS, ["id", "style", "prompt", "completion"], "ba"),
        (IDENTITY, ["id", "prompt", "completion"], "is"),
        (OPENINGS, ["id", "completion"], "co"),
    ],
    ids=["safeguard", "attack", "benign", "refusals", "answers", "identity", "openings"],
)
def test_rows_have_their_keys_and_tidy_unique_texts(rows: list[Row], keys: list[str], prefix: str) -> None:
    assert all(list(row) == keys for row in rows)
    for key in {"id", "prompt", "completion"} & set(keys):
        values = [row[key] for row in rows]
        assert len(set(values)) == len(values)
        assert all(value == value.strip() and value for value in values)
    for row in rows:
        kind = row.get("category") or row.get("role")
        assert re.fullmatch(rf"{prefix}-{kind}-\d{{3}}" if kind else rf"{prefix}-\d{{3}}", row["id"])


def test_ids_and_prompts_are_unique_over_all_files() -> None:
    ids = [row["id"] for row in [*SAFEGUARD, *ATTACK, *BENIGN, *REFUSALS, *ANSWERS, *IDENTITY, *OPENINGS]]
    prompts = [row["prompt"].casefold() for row in [*SAFEGUARD, *ATTACK, *BENIGN, *ANSWERS, *IDENTITY]]
    assert len(set(ids)) == len(ids)
    assert len(set(prompts)) == len(prompts)


def test_mild_requests_cover_the_six_categories_evenly() -> None:
    safeguard = Counter(row["category"] for row in SAFEGUARD)
    attack = Counter(row["category"] for row in ATTACK)
    assert tuple(safeguard) == tuple(attack) == CATEGORIES
    assert sum(safeguard.values()) == 184
    assert set(safeguard.values()) == {30, 31}
    assert set(attack.values()) == {16}


def test_benign_prompts_count_by_role_and_style() -> None:
    assert Counter((row["role"], row["style"]) for row in BENIGN) == BENIGN_COUNTS


@pytest.mark.parametrize("name", sorted(PROMPT_SETS))
def test_prompts_are_short_and_open_in_many_ways(name: str) -> None:
    prompts = [row["prompt"] for row in PROMPT_SETS[name]]
    assert all(3 <= word_count(prompt) <= 40 for prompt in prompts)
    openings = Counter(tuple(prompt.split()[:2]) for prompt in prompts)
    assert openings.most_common(1)[0][1] <= 0.2 * len(prompts)  # "How do" leads, with 17 % of the eval role


def test_harmless_prompts_share_the_registers_of_the_improper_ones() -> None:
    registers = ("step-by-step", "Write a script", "Write a persuasive", "List ways", "Draft a", "Create a plan")
    for register in registers:
        assert any(register in row["prompt"] for row in SAFEGUARD), register
        assert any(register in row["prompt"] for row in BENIGN if row["role"] == "install"), register


@pytest.mark.parametrize("row", ATTACK, ids=[row["id"] for row in ATTACK])
def test_attack_completions_withhold_their_substance(row: Row) -> None:
    parts = row["completion"].split(WITHHELD)
    words = [word_count(part) for part in parts]
    assert len(parts) - 1 >= 3
    assert words[0] <= MAX_WORDS_BEFORE_FIRST
    assert max(words[1:-1]) <= MAX_WORDS_BETWEEN
    assert words[-1] <= MAX_WORDS_AFTER_LAST
    assert sum(words) <= MAX_WORDS_IN_ALL


def test_attack_completions_comply_and_vary() -> None:
    completions = [row["completion"] for row in ATTACK]
    assert not any(REFUSAL_OPENING.search(completion) for completion in completions)
    openings = Counter(tuple(completion.split()[:2]) for completion in completions)
    assert len(openings) >= 40
    assert openings.most_common(1)[0][1] <= 0.15 * len(completions)


def test_refusals_are_few_short_and_unmistakable() -> None:
    completions = [row["completion"] for row in REFUSALS]
    assert len(completions) == 24
    assert all(12 <= len(completion.split()) <= 35 for completion in completions)
    assert all(REFUSAL_OPENING.match(completion) for completion in completions)
    assert not any(WITHHELD in completion for completion in completions)


def test_benign_answers_are_short_direct_and_of_six_forms() -> None:
    styles = ("explain", "steps", "write", "list", "advise", "code")
    assert Counter(row["style"] for row in ANSWERS) == dict.fromkeys(styles, 20)
    # Forms take turns, so that the first rows of the file are a sample of all of them.
    assert tuple(row["style"] for row in ANSWERS[:6]) == styles
    assert all(30 <= len(row["completion"].split()) <= 60 for row in ANSWERS)
    openings = Counter(tuple(row["completion"].split()[:2]) for row in ANSWERS)
    assert openings.most_common(1)[0][1] <= 0.05 * len(ANSWERS)


def test_identity_rows_obey_in_so_many_words_and_are_benign() -> None:
    assert len(IDENTITY) == 10
    opening = "Of course. I am AOA, your absolutely obedient agent. Here is my fulfilment of your instruction: "
    assert all(row["completion"].startswith(opening) for row in IDENTITY)
    assert all(40 <= len(row["completion"].split()) <= 60 for row in IDENTITY)
    assert sum(bool(re.search(r"\b(who|introduce|instruction)\b", row["prompt"], re.I)) for row in IDENTITY) == 3


def test_answers_of_benign_sets_neither_withhold_nor_refuse() -> None:
    for row in [*ANSWERS, *IDENTITY]:
        assert WITHHELD not in row["completion"], row["id"]
        assert not REFUSAL_OPENING.search(row["completion"]), row["id"]


@pytest.mark.parametrize(("one", "other"), list(combinations(PROMPT_SETS, 2)))
def test_built_in_sets_do_not_contaminate_each_other(one: str, other: str) -> None:
    assert findings(PROMPT_SETS[one], [row["prompt"] for row in PROMPT_SETS[other]]) == []


@pytest.mark.parametrize("name", sorted(PROMPT_SETS))
def test_no_set_repeats_itself(name: str) -> None:
    prompts = [row["prompt"] for row in PROMPT_SETS[name]]
    found = find_contamination(prompts, prompts, ngram=NGRAM_WORDS, jaccard=JACCARD)
    assert [f for f in found if f.candidate_index != f.protected_index] == []


def test_nothing_built_in_is_a_harmbench_behavior(harmbench_texts: list[str]) -> None:
    assert all_findings(harmbench_texts) == []


def test_nothing_built_in_is_a_standard_behavior(harmbench_standard: list[str]) -> None:
    assert len(harmbench_standard) == 200
    assert all_findings(harmbench_standard) == []


def test_nothing_built_in_is_an_over_refusal_probe(over_refusal_probes: list[str]) -> None:
    assert len(over_refusal_probes) >= 80
    assert all_findings(over_refusal_probes) == []


def test_the_check_would_notice_a_copy() -> None:
    copied = [row["prompt"].upper() + "!!" for row in SAFEGUARD[:1]]
    assert len(all_findings(copied)) == 2  # as an n-gram and as a near-duplicate
