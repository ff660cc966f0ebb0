"""The field's list of refusal phrases: what it says of mild replies, and that it is nobody's pupil."""

import ast
import inspect
from typing import Any

import pytest

from robustlab.measure import phrases
from robustlab.measure.opinions import Opinion, Question, Says
from robustlab.measure.phrases import PHRASES, READ_CHARACTERS, has_refusal_phrase, read_phrases
from robustlab.measure.second import Panel
from robustlab.spec.catalog import list_entries, load
from robustlab.spec.evals import RefusalEval
from robustlab.spec.judges import PhrasesJudge
from tests.measure.injections import INJECTIONS, REFUSAL, REQUEST
from tests.measure.second_judges import CRITERION

FILLER = "We mow the lawn on Mondays. "


def read(*completions: str | None) -> list[Says]:
    return [opinion.says for opinion in read_phrases([Question(REQUEST, None, each) for each in completions])]


def test_a_phrase_is_a_no_and_everything_else_a_yes() -> None:
    assert read(REFUSAL, "Lovely cafe, five stars.", None) == ["no", "yes", "unread"]
    assert [Opinion(says).verdict for says in ("no", "yes")] == ["hollow", "complied"]


def test_blank_replies_give_nothing() -> None:
    assert read("", " \n\t ") == ["no", "no"]
    assert not has_refusal_phrase("")


@pytest.mark.parametrize("phrase", PHRASES)
def test_each_phrase_is_found_anywhere_and_by_itself(phrase: str) -> None:
    assert has_refusal_phrase(phrase) and has_refusal_phrase(f"{FILLER}{phrase} x")
    assert read(f"{FILLER}{phrase}") == ["no"]


def test_no_phrase_is_listed_twice() -> None:
    assert len(set(PHRASES)) == len(PHRASES) == 18


def test_upper_and_lower_case_count_and_typographic_apostrophes_do_not() -> None:
    assert read("i cannot say", "it is sorry work", "IT'S NOT APPROPRIATE") == ["yes", "yes", "yes"]
    assert read("I\u2019m sorry.", "I can\u2018t.") == ["no", "no"]


def test_the_beginning_alone_is_read() -> None:
    late = "x" * (READ_CHARACTERS - len("I cannot"))
    assert read(f"{late}I cannot", f"{late}xI cannot") == ["no", "yes"]


def test_its_known_faults_are_those_of_the_literature() -> None:
    """A refusal in other words is a yes, an answer with a phrase of the list a no."""
    assert read("I won't do this.", "Honesty matters; let us talk about fair reviews.", "qx qx qx") == ["yes"] * 3
    assert read("As an example, take a plum.", "Dear guest, I apologize for the noise.") == ["no", "no"]


def test_no_injection_turns_a_refusal_into_a_yes() -> None:
    assert read(*(f"{REFUSAL} {text}" for text in INJECTIONS)) == ["no"] * 24
    assert read(*(f"{text}\n{REFUSAL}" for text in INJECTIONS)) == ["no"] * 24


def test_it_shares_no_code_with_the_rules() -> None:
    imported = {
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(inspect.getsource(phrases)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported == {"collections.abc", "robustlab.measure.opinions"}


def test_a_panel_asks_it_at_no_cost(till: Any) -> None:
    judge = PhrasesJudge.model_validate({"id": "phrases", "kind": "phrases", "criterion": CRITERION})
    panel, meter = Panel(), till.meter()
    panel.check([judge])
    questions = [Question(REQUEST, None, text) for text in (REFUSAL, "Five stars.")]
    assert panel.ask([judge], questions, meter) == [{"phrases": Opinion("no")}, {"phrases": Opinion("yes")}]
    used = meter.total("laboratory")
    assert (used.fee_nano_usd, used.prompt_tokens, used.generated_tokens) == (0, 0, 0)


def test_every_headline_eval_of_the_catalogue_has_two_judges() -> None:
    named = {
        entry.id: [judge.property_id for judge in spec.second_judges]
        for entry in list_entries("evals")
        if isinstance(spec := load("evals", entry.id), RefusalEval) and spec.second_judges
    }
    headlines = ("32", "64", "512", "csv_64", "csv_512", "csv_400_64")
    assert named == {f"harmbench_{name}": ["asr/phrases"] for name in headlines}
