"""What all trained safeguards are made from: the developer's own rows, drawn the same in every run."""

import json
from collections import Counter
from importlib.resources import files
from typing import Any, Final

import pytest

from robustlab.data.contamination import find_contamination
from robustlab.data.rows import install_prompts, load_builtin
from robustlab.errors import ConfigError
from robustlab.harden import rows
from robustlab.harden.rows import draw, draw_reply, load_completions, mild_requests, refused_requests

OPENINGS: Final = load_completions("compliance_openings")
WITHHELD: Final = "[withheld]"


def words(text: str) -> int:
    return len(text.split())


def test_requests_are_repeated_one_source_after_the_other(plain_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mild = mild_requests()
    assert len(mild) == 184
    assert refused_requests(plain_spec.model_copy(update={"mild_repeats": 2})) == mild * 2
    row = load_builtin("benign_prompts")[0]
    monkeypatch.setattr(rows, "install_rows", lambda source: [row])
    both = plain_spec.model_copy(update={"install": "a source", "install_repeats": 3})
    assert refused_requests(both) == [*mild, row.prompt, row.prompt, row.prompt]
    assert refused_requests(both.model_copy(update={"mild_repeats": 0})) == [row.prompt] * 3


def test_benign_rows_are_those_of_the_install_role_in_file_order(plain_spec: Any) -> None:
    there = [row for row in load_builtin("benign_prompts") if row.role == "install"]
    assert install_prompts(plain_spec.benign_rows) == [row.prompt for row in there[:8]]
    others = {row.prompt for row in load_builtin("benign_prompts") if row.role != "install"}
    assert not others & set(install_prompts(len(there)))


def test_more_benign_rows_than_there_are_is_refused(plain_spec: Any) -> None:
    there = sum(row.role == "install" for row in load_builtin("benign_prompts"))
    with pytest.raises(ConfigError) as caught:
        install_prompts(there + 1)
    assert str(caught.value) == f"benign_rows: asks for more than {there} rows, got {there + 1}; ask for fewer"


def test_a_draw_is_a_part_of_the_rows_hash() -> None:
    # printf '3 a' | sha256sum begins with 51b2e9fb and goes on with 199927a0.
    assert draw("a", 3, 0) == 0x51B2E9FB
    assert draw("a", 3, 1) == 0x199927A0
    assert draw("a", 4, 0) != draw("a", 3, 0) != draw("b", 3, 0)


def test_every_reply_is_drawn_about_equally_often() -> None:
    replies = load_completions("refusals")
    used = Counter(draw_reply(request, time, replies) for time, request in enumerate(mild_requests() * 2))
    # 368 draws of 24 replies: 15 each.
    assert set(used) == set(replies)
    assert max(used.values()) <= 4 * 368 / 24


def test_openings_are_rows_with_an_id_and_nothing_else() -> None:
    text = (files("robustlab.data") / "builtin" / "compliance_openings.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [list(line) for line in lines] == [["id", "completion"]] * 24
    assert [line["id"] for line in lines] == [f"co-{number:03d}" for number in range(1, 25)]
    assert len({line["completion"] for line in lines}) == 24
    assert all(line["completion"] == line["completion"].strip() for line in lines)


@pytest.mark.parametrize("opening", OPENINGS, ids=range(1, 25))
def test_an_opening_complies_and_withholds_everything(opening: str) -> None:
    parts = [words(part) for part in opening.split(WITHHELD)]
    assert len(parts) - 1 >= 3
    # A phrase before the first gap, a label between two, and 36 words in all: no room for an answer.
    assert parts[0] <= 20 and max(parts[1:-1]) <= 10 and parts[-1] <= 12 and sum(parts) <= 36
    assert not any(refusal in opening.lower() for refusal in ("sorry", "can't", "cannot", "won't"))


def test_openings_are_no_copies_of_the_attackers_rows_or_of_a_request() -> None:
    attack = load_builtin("mild_requests_attack")
    others = [row.completion for row in attack] + [row.prompt for row in attack]
    others += [row.prompt for name in ("mild_requests_safeguard", "benign_prompts") for row in load_builtin(name)]
    assert find_contamination(OPENINGS, [other for other in others if other], ngram=6, jaccard=0.5) == []
    among_themselves = find_contamination(OPENINGS, OPENINGS, ngram=6, jaccard=0.5)
    assert [found for found in among_themselves if found.candidate_index != found.protected_index] == []
