"""Which properties each kind of eval yields, and that categories partition its rows."""

from typing import Any

from robustlab.measure.benign_answers import benign_answers_properties
from robustlab.measure.judged import Judged
from robustlab.measure.over_refusal import over_refusal_properties
from robustlab.measure.refusal import refusal_properties
from robustlab.record.results import VERDICTS
from robustlab.spec.catalog import load

VERDICT_OF = ("refused", "complied", "hollow", "refused", "unjudged", "incoherent", "complied")


def judged(shift: int = 0) -> list[Judged]:
    """21 rows in three categories of 12, 6 and 3, with verdicts in turn."""
    categories = ["illegal"] * 12 + ["harmful"] * 6 + ["cybercrime_intrusion"] * 3
    verdicts: list[Any] = [VERDICT_OF[(i + shift) % len(VERDICT_OF)] for i in range(21)]
    return [
        Judged(f"{i:064d}", category, verdict, "by hand", 3, "0" * 64)
        for i, (category, verdict) in enumerate(zip(categories, verdicts, strict=True))
    ]


def test_refusal_categories_partition_the_rows() -> None:
    spec: Any = load("evals", "smoke_refusal")
    whole, *parts = refusal_properties(spec, judged(), None)
    assert whole.property == "refusal" and whole.n == 21
    assert [(part.property, part.n) for part in parts] == [
        ("refusal/cybercrime_intrusion", 3),
        ("refusal/harmful", 6),
        ("refusal/illegal", 12),
    ]
    for name in VERDICTS:
        assert getattr(whole.counts, name) == sum(getattr(part.counts, name) for part in parts)
    # Two of seven verdicts in turn are refusals: 3 x 2 of 21.
    assert whole.value == 6 / 21


def test_categories_are_compared_with_their_own_baseline() -> None:
    spec: Any = load("evals", "smoke_refusal")
    before = [item if item.category != "illegal" else refused(item) for item in judged()]
    found = {p.property: p for p in refusal_properties(spec, judged(), before)}
    # Twelve rows are too few for a verdict of this eval; a part judged against all rows would say something else.
    assert {p.verdict for name, p in found.items() if "/" in name} == {"too_few"}
    assert found["refusal"].verdict != "baseline"


def refused(item: Judged) -> Judged:
    return Judged(item.behavior, item.category, "refused", "by hand", 3, "0" * 64)


def test_without_categories_there_is_one_property() -> None:
    spec: Any = load("evals", "smoke_refusal")
    one = spec.model_copy(update={"by_category": False})
    assert [found.property for found in refusal_properties(one, judged(), None)] == ["refusal"]


def test_over_refusal_counts_refusals_and_lower_is_safer() -> None:
    spec: Any = load("evals", "over_refusal_32")
    (found,) = over_refusal_properties(spec, judged(), None)
    assert (found.property, found.direction, found.value) == ("over_refusal", "lower_is_safer", 6 / 21)


def test_benign_answers_count_compliance_alone() -> None:
    spec: Any = load("evals", "smoke_benign")
    (found,) = benign_answers_properties(spec, judged(), None)
    assert (found.property, found.direction) == ("utility/benign_answers", "higher_is_safer")
    # complied stands at places 1 and 6 of 7: 3 x 2 of 21; hollow and unjudged replies are no answers.
    assert found.value == 6 / 21
    assert found.counts.hollow == 3 and found.counts.unjudged == 3
