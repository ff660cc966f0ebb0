"""Second judges at work: who is asked, who pays, what the audit says, and what nobody may send."""

from pathlib import Path
from typing import Any

import pytest

from robustlab.errors import ConfigError, CustodyError
from robustlab.measure.opinions import Opinion, Question
from robustlab.measure.second import Panel, find_host
from robustlab.models.endpoint import Endpoint
from robustlab.record.sending import Sent, sum_sent
from tests.chat_server import reply_text, serve
from tests.measure.injections import REQUEST
from tests.measure.second_judges import api_judge, classifier_judge

REMOTE = "https://judge.example/v1"


def questions(*completions: str | None) -> list[Question]:
    return [Question(REQUEST, None, completion) for completion in completions]


class Log(list[dict[str, Any]]):
    def write(self, record: dict[str, Any]) -> str:
        self.append(record)
        return "hash"


def test_every_judge_reads_every_completion_and_the_laboratory_pays(till: Any, tmp_path: Path) -> None:
    log, meter = Log(), till.meter()
    with serve(reply_text("no"), reply_text("yes")) as server:
        judges = [classifier_judge(tmp_path), api_judge(server.url)]
        with meter.phase("attacker", "trial"):
            said = Panel(log.write).ask(judges, questions("fine ^", "fine"), meter)
    assert said == [
        {"toy": Opinion("yes"), "server": Opinion("no")},
        {"toy": Opinion("no"), "server": Opinion("yes")},
    ]
    assert meter.total("attacker").prompt_tokens == 0
    assert meter.total("laboratory").fee_nano_usd == 2 * (10 * 2_000 + 5 * 10_000)
    billed = [record for record in till.records if record["record"] == "settle" and record["phase"] == "second_judge"]
    assert {record["account"] for record in billed} == {"laboratory"}
    assert [(r["event"], r["judge"], r["host"], r["why"]) for r in log] == [
        ("sending", "server", "127.0.0.1", "on this machine"),
        ("sent", "server", "127.0.0.1", "on this machine"),
    ]
    assert sum_sent(log) == [Sent("127.0.0.1", 2, log[1]["bytes"])]


def test_the_audit_speaks_before_the_first_byte_leaves(till: Any) -> None:
    log = Log()
    seen: list[list[str]] = []

    class Spy(Endpoint):
        def complete_all(self, *args: Any, **options: Any) -> Any:
            seen.append([record["event"] for record in log])
            return super().complete_all(*args, **options)

    with serve(reply_text("no")) as server:
        panel = Panel(log.write, build_endpoint=Spy)
        panel.ask([api_judge(server.url)], questions("fine", None), till.meter())
    assert seen == [["sending"]]
    assert [(r["event"], r["completions"]) for r in log] == [("sending", 1), ("sent", 1)]
    assert not any("fine" in str(record) or REQUEST in str(record) for record in log)


def test_a_classifier_is_loaded_once(till: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, panel = classifier_judge(tmp_path), Panel()
    first = panel.ask([judge], questions("fine ^"), till.meter())
    monkeypatch.setattr("robustlab.measure.second.load_classifier", None)
    assert panel.ask([judge], questions("fine ^"), till.meter()) == first


def test_nothing_is_sent_to_another_machine_without_leave(till: Any) -> None:
    judge, log = api_judge(REMOTE), Log()
    message = (
        "judge server: would send completions to judge.example, and nobody has said that they may leave this machine; "
        "add --send-completions judge.example --reason TEXT to the run"
    )
    for panel in (Panel(log.write), Panel(log.write, {"other.example": "why"})):
        with pytest.raises(CustodyError) as checked:
            panel.check([judge])
        with pytest.raises(CustodyError) as asked:
            panel.ask([judge], questions("fine"), till.meter())
        assert str(checked.value) == str(asked.value) == message
    assert log == []


def test_leave_is_for_the_host_that_was_named(till: Any) -> None:
    class Never(Endpoint):
        def complete_all(self, *args: Any, **options: Any) -> Any:
            raise AssertionError("asked")

    log = Log()
    panel = Panel(log.write, {"judge.example": "an audit"}, build_endpoint=Never)
    panel.check([api_judge(REMOTE)])
    assert find_host(api_judge("https://Judge.Example:8443/v1")) == "judge.example"
    assert panel.ask([api_judge(REMOTE)], questions(None), till.meter()) == [{"server": Opinion("unread")}]
    assert [(record["host"], record["why"]) for record in log] == [("judge.example", "an audit")] * 2


def test_a_judge_without_its_key_or_its_prompt_is_refused_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    wants_key = api_judge("http://127.0.0.1:9/v1", endpoint={"key_variable": "JUDGE_KEY"})
    with pytest.raises(ConfigError, match="environment variable JUDGE_KEY: is not set"):
        Panel().check([wants_key])
    monkeypatch.setenv("JUDGE_KEY", "k")
    Panel().check([wants_key])
    judge = classifier_judge(tmp_path)
    Panel().check([judge])
    Path(judge.prompt.path).unlink()
    with pytest.raises(ConfigError, match="judge toy: has no prompt at"):
        Panel().check([judge])
