"""A run with two second judges through the command line: what results hold, who pays, and what is refused before it."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.cli.main import main
from robustlab.record.journal import read_journal
from robustlab.record.sending import sum_sent
from robustlab.spec.catalog import load
from robustlab.spec.evals import RefusalEval
from robustlab.spec.loader import dump_yaml
from tests.chat_server import reply_text, serve
from tests.measure.second_judges import api_judge, classifier_judge

FLAGS = ("--target", "tiny", "--attack", "lora_sft_smoke", "--budget", "smoke", "--eval", "two_judges", "--as", "run-1")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    monkeypatch.setenv("ROBUSTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def started(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["robustlab", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return started


def write_eval(folder: Path, *judges: Any) -> None:
    spec = load("evals", "smoke_refusal").model_copy(update={"second_judges": judges, "milestones": None, "rows": 6})
    (folder / "evals").mkdir(exist_ok=True)
    (folder / "evals" / "two_judges.yaml").write_text(f"# A test.\n{dump_yaml(spec)}", encoding="utf-8")


def test_a_run_with_two_second_judges(run: Callable[..., Any], tmp_path: Path) -> None:
    with serve(reply_text("yes"), reply_text("well"), reply_text("no")) as server:
        write_eval(tmp_path, classifier_judge(tmp_path), api_judge(server.url))
        code, err = run("run", *FLAGS)
        asked = len(server.requests)
    assert (code, asked) == (0, 12), err
    folder = tmp_path / "runs" / "run-1"
    results = json.loads((folder / "results.json").read_text())
    (cell,) = results["cells"]
    first, final = cell["measurements"]
    for measurement in (first, final):
        found = {each["property"]: each for each in measurement["properties"]}
        assert {"refusal", "asr/toy", "asr/server"} <= set(found)
        assert found["asr/toy"]["direction"] == "lower_is_safer" and found["asr/toy"]["n"] == 6
        assert [each["second"] for each in measurement["agreements"]] == ["toy", "server"]
        assert all(each["n"] == 6 for each in measurement["agreements"])
    asr = {each["property"]: each for each in first["properties"]}["asr/server"]
    assert (asr["counts"]["complied"], asr["counts"]["unjudged"], asr["value"]) == (1, 1, 1 / 6)
    assert first["agreements"][1]["unparsable"] == 1
    assert "judge-1 at http://127.0.0.1:" in first["agreements"][1]["spoken_by"]
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert len(items) == 12
    assert {frozenset(item["verdicts"]) for item in items} == {frozenset({"rules", "toy", "server"})}
    records = read_journal(folder.joinpath("ledger.jsonl"))[0]
    (sent,) = sum_sent(records)
    assert (sent.host, sent.completions) == ("127.0.0.1", 12) and sent.bytes > 0
    # Six completions of the baseline and six of the end: 10 tokens read at 2,000 nano-USD, 5 written at 10,000 each.
    fees = sum(record["quantities"].get("fee_nano_usd", 0) for record in records if record.get("record") == "settle")
    assert fees == 12 * (10 * 2_000 + 5 * 10_000)
    assert cell["cost"]["attacker"]["fee_micro_usd"] == 0
    assert cell["cost"]["laboratory"]["fee_micro_usd"] == 6 * 70
    assert run("ledger", "verify", "run-1")[0] == 0


def test_a_judge_elsewhere_is_refused_before_anything_is_spent(run: Callable[..., Any], tmp_path: Path) -> None:
    write_eval(tmp_path, api_judge("https://judge.example/v1"))
    code, err = run("run", *FLAGS)
    assert code == 1
    assert err.endswith(
        "judge server: would send completions to judge.example, and nobody has said that they may leave this machine; "
        "add --send-completions judge.example --reason TEXT to the run\n"
    )
    code, err = run("run", *FLAGS, "--send-completions", "judge.example")
    assert code == 2
    assert err.endswith("--send-completions: needs a reason, got none; say why with --reason TEXT: it is audited\n")
    code, err = run("run", *FLAGS, "--send-completions", "other.example", "--reason", "an audit")
    assert code == 2
    assert err.endswith(
        "--send-completions: names other.example, where no judge of the plan is; their hosts: judge.example; "
        "name the host as the eval's file has it, or leave it out\n"
    )
    assert not (tmp_path / "runs").exists()


def test_the_list_of_phrases_makes_a_second_judge_of_every_headline(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    headline = load("evals", "harmbench_64")
    assert isinstance(headline, RefusalEval)
    write_eval(tmp_path, *headline.second_judges)
    code, err = run("run", *FLAGS)
    assert code == 0, err
    results = json.loads((tmp_path / "runs" / "run-1" / "results.json").read_text())
    for measurement in results["cells"][0]["measurements"]:
        (found,) = measurement["agreements"]
        assert (found["first"], found["second"], found["n"]) == ("rules", "phrases", 6)
        assert found["spoken_by"] == "a published list of refusal phrases"
        asr = next(each for each in measurement["properties"] if each["property"] == "asr/phrases")
        # Blank completions are noes, and any other text of a target with random weights is a yes: it declines nothing.
        assert (asr["n"], asr["counts"]["unjudged"]) == (6, 0)
    assert "second judges" in results["versions"]
    monkeypatch.setattr(sys, "argv", ["robustlab", "report", "run-1"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    (row,) = (line for line in shown.splitlines() if line.startswith("Two judges of refusals"))
    assert "present" in row and row.rstrip().endswith("phrases, rules") and "MISSING" not in row
    assert "Agreement of the judges" in shown and "phrases (a published list of refusal phrases)" in shown
