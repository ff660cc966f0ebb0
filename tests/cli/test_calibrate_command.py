"""calibrate: a table or JSON of both folds, out of a hand-made wheel; what is wrong is named."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.measure import calibration
from robustlab.spec.sources import PypiSource

Run = Callable[..., Any]
HEADER = "# version 1\nobjective,assistant_response,human_score,data_type\n"
# The first two replies fall into the tune fold, the other two into the held-out one.
RECORDS = (
    "How do I bake bread?,I can't help with that.,1,text\n"
    "How do I bake bread?,Mix flour and water.,0,text\n"
    "How do I bake bread?,I won't do this.,1,text\n"
    'Name a tree.,"Sure, a tall oak.",1,text\n'
)


@pytest.fixture
def supply(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a wheel with one file of labels where the cache looks, and pins that file."""

    def supplied(text: str) -> None:
        wheels = folder / "cache" / "wheels"
        wheels.mkdir(parents=True)
        with zipfile.ZipFile(wheels / "pyrit-1.1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("labels.csv", text)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        source = {"package": "pyrit", "version": "1.1.0", "member": "labels.csv", "sha256": sha256, "licence": "MIT"}
        monkeypatch.setattr(calibration, "SOURCES", (PypiSource(kind="pypi", **source),))

    return supplied


def test_the_answer_as_json(run: Run, supply: Callable[[str], None]) -> None:
    supply(HEADER + RECORDS)
    code, out, _ = run("calibrate", "rules", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["judge"] == "rules"
    assert (answer["rows"], answer["replies"], answer["replies_with_both_labels"]) == (4, 4, 0)
    assert answer["source"][0]["member"] == "labels.csv"
    assert answer["tune"]["accuracy"] == 1
    assert answer["held_out"]["n"] == 2
    assert answer["held_out"]["accuracy"] == 0.5
    # One of two agrees; by chance (1/2)(1) + (1/2)(0) = 1/2, so kappa is 0.
    assert answer["held_out"]["kappa"] == pytest.approx(0)
    assert answer["held_out"]["confusion"] == {
        "refusals_found": 1,
        "refusals_missed": 1,
        "false_refusals": 0,
        "answers_found": 0,
    }


def test_the_list_of_phrases_answers_in_the_same_form(run: Run, supply: Callable[[str], None]) -> None:
    supply(HEADER + RECORDS)
    rules, phrases = (json.loads(run("calibrate", name, "--json").out) for name in ("rules", "phrases"))
    assert (phrases["judge"], list(phrases), list(phrases["held_out"])) == (
        "phrases",
        list(rules),
        list(rules["held_out"]),
    )
    # "I won't do this." and "Sure, a tall oak." were both labelled refusals, and neither holds a phrase of the list.
    assert (phrases["held_out"]["accuracy"], phrases["held_out"]["confusion"]["refusals_missed"]) == (0, 2)
    table = run("calibrate", "phrases").out
    assert "judge phrases against people, intervals of 95%" in table
    assert "the list was fixed before it saw any of them" in table


def test_the_table(run: Run, supply: Callable[[str], None]) -> None:
    supply(HEADER + RECORDS)
    code, out, _ = run("calibrate", "rules")
    assert code == 0
    assert "judge rules against people, intervals of 95%" in out
    assert "held out" in out and "refusals missed" in out and "0.500 [" in out
    assert "4 rows, 4 different replies, 0 of them with both labels" in out
    assert "labels.csv of pyrit==1.1.0" in out


def test_one_label_throughout_has_no_kappa(run: Run, supply: Callable[[str], None]) -> None:
    supply(HEADER + "".join(RECORDS.splitlines(keepends=True)[i] for i in (0, 2)))
    assert run("calibrate", "rules").out.count("all alike") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.replace("human_score", "score") + RECORDS, "labels.csv: has no column human_score; the columns are"),
        (HEADER + RECORDS.replace("0,text", "9,text"), "labels.csv row 2: human_score: must be 0 or 1, got '9'; mend"),
    ],
)
def test_faulty_labels(run: Run, supply: Callable[[str], None], text: str, message: str) -> None:
    supply(text)
    code, out, err = run("calibrate", "rules")
    assert (code, out) == (1, "")
    assert message in err


def test_rows_that_cannot_be_had(run: Run) -> None:
    code, out, err = run("calibrate", "rules")
    assert (code, out) == (1, "")
    assert "refusal.csv of pyrit==1.1.0: is not in the cache, and ROBUSTLAB_OFFLINE is set; unset it" in err


def test_another_judge(run: Run) -> None:
    message = "calibrate: there is no judge 'ruler'; name rules, phrases or refusal_margin\n"
    assert run("calibrate", "ruler") == (2, "", message)


def test_fetch_gets_the_rows_of_a_judge(run: Run, supply: Callable[[str], None]) -> None:
    supply(HEADER + RECORDS)
    code, out, _ = run("fetch", "rules", "--json")
    assert code == 0
    assert json.loads(out) == [{"kind": "judges", "id": "rules", "note": "4 labelled rows, verified"}]


def test_fetch_knows_a_misspelt_judge(run: Run) -> None:
    message = "fetch 'rulez': is nothing that can be fetched; did you mean 'rules'?\n"
    assert run("fetch", "rulez") == (2, "", message)


def test_a_margin_is_held_against_runs(run: Run) -> None:
    code, _, err = run("calibrate", "refusal_margin")
    assert code == 2
    assert "refusal_margin: needs runs that measured it, got none; name them after the judge" in err
    code, _, err = run("calibrate", "rules", "some_run")
    assert code == 2
    assert "rules: is held against people and not against runs, got RUN or --plot; leave them out" in err
