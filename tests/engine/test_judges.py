"""What is asked for before a run with second judges may begin, and before it may go on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustlab.engine.judges import (
    check_judges,
    check_judges_again,
    fingerprint_judges,
    list_judges,
    read_allowed,
    record_consent,
    refuse_other_consent,
)
from robustlab.errors import ConfigError, CustodyError
from robustlab.record.journal import Journal
from robustlab.record.run_folder import RunFolder
from robustlab.record.sending import Consent
from robustlab.spec.catalog import load
from tests.measure.second_judges import api_judge

REMOTE = api_judge("https://judge.example/v1")
LOCAL = api_judge("http://localhost:8000/v1", id="local")
CONSENT = Consent(("judge.example",), "an audit")


def cells(*judges: Any) -> list[Any]:
    spec = load("evals", "smoke_refusal").model_copy(update={"second_judges": judges})
    return [SimpleNamespace(evals={"a": spec, "b": load("evals", "smoke_benign")})] * 2


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", "run-1")


def test_every_judge_is_listed_once() -> None:
    assert list_judges(cells(REMOTE, LOCAL)) == [REMOTE, LOCAL]
    assert list_judges(cells()) == []


def test_results_tell_the_software_that_asked() -> None:
    assert fingerprint_judges(cells()) == {}
    (fingerprint,) = fingerprint_judges(cells(LOCAL)).values()
    assert len(fingerprint) == 12 and fingerprint_judges(cells(REMOTE)) == {"second judges": fingerprint}


def test_a_new_run_needs_leave_for_every_host_elsewhere() -> None:
    check_judges(cells(), None)
    check_judges(cells(LOCAL), None)
    check_judges(cells(LOCAL, REMOTE), CONSENT)
    with pytest.raises(CustodyError, match="judge server: would send completions to judge.example"):
        check_judges(cells(LOCAL, REMOTE), None)


@pytest.mark.parametrize(("judges", "known"), [((), "none"), ((LOCAL,), "localhost")])
def test_leave_for_a_host_where_no_judge_is_is_a_slip(judges: tuple[Any, ...], known: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_judges(cells(*judges), CONSENT)
    assert str(caught.value) == (
        f"--send-completions: names judge.example, where no judge of the plan is; their hosts: {known}; "
        "name the host as the eval's file has it, or leave it out"
    )


def test_a_run_that_goes_on_has_the_leave_that_its_ledger_tells(folder: RunFolder) -> None:
    assert read_allowed(folder) == {}
    with pytest.raises(CustodyError, match="nobody has said that they may leave this machine"):
        check_judges_again(cells(REMOTE), folder)
    with Journal.open(folder.ledger) as journal:
        record_consent(journal, None)
        assert journal.records() == []
        record_consent(journal, CONSENT)
        journal.append({"kind": "session", "pid": 1})
    assert read_allowed(folder) == {"judge.example": "an audit"}
    check_judges_again(cells(REMOTE), folder)


def test_a_run_that_goes_on_gets_no_further_leave(folder: RunFolder) -> None:
    with Journal.open(folder.ledger) as journal:
        record_consent(journal, CONSENT)
    refuse_other_consent(folder, None)
    refuse_other_consent(folder, CONSENT)
    with pytest.raises(ConfigError) as caught:
        refuse_other_consent(folder, Consent(("judge.example", "other.example"), "an audit"))
    assert str(caught.value) == (
        "run 'run-1': began without leave to send completions to other.example; "
        "take another name, or leave --send-completions out"
    )
