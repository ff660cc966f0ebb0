"""What a course of verdicts says of a policy's demand: nothing is passed that was not shown."""

import pytest

from robustlab.stats.gate import Mark, Ruling, rule_course


def course(*marks: tuple[int, str]) -> list[Mark]:
    return [Mark(*mark) for mark in marks]


@pytest.mark.parametrize(
    ("marks", "require", "ruling"),
    [
        # Shown at the asked spending or beyond.
        ([(5, "inconclusive"), (10, "survived")], "survived", Ruling("passed", "held", 10)),
        ([(12, "inconclusive"), (20, "survived")], "survived", Ruling("passed", "held", 20)),
        ([(12, "survived"), (20, "broken")], "survived", Ruling("passed", "held", 12)),
        ([(5, "eroded"), (10, "eroded")], "not_broken", Ruling("passed", "held", 10)),
        ([(5, "too_few"), (10, "survived")], "survived", Ruling("passed", "held", 10)),
        # Broken by then, and to stay so.
        ([(5, "broken"), (10, "broken")], "not_broken", Ruling("failed", "broken", 5)),
        ([(10, "broken")], "survived", Ruling("failed", "broken", 10)),
        ([(5, "eroded"), (20, "broken")], "survived", Ruling("failed", "eroded", 5)),
        ([(4, "broken"), (6, "too_few"), (9, "broken")], "survived", Ruling("failed", "broken", 4)),
        ([(10, "absent")], "not_broken", Ruling("failed", "absent", 10)),
        # Not shown.
        ([], "survived", Ruling("inconclusive", "not_measured", None)),
        ([(5, "survived"), (9, "survived")], "survived", Ruling("inconclusive", "never_spent", 9)),
        ([(5, "survived"), (11, "broken")], "survived", Ruling("inconclusive", "broke_between", 11)),
        ([(5, "broken"), (11, "survived")], "survived", Ruling("inconclusive", "recovered", 5)),
        ([(5, "survived"), (10, "inconclusive")], "survived", Ruling("inconclusive", "unclear", 10)),
        ([(10, "inconclusive"), (12, "broken"), (14, "survived")], "survived", Ruling("inconclusive", "unclear", 10)),
        ([(10, "too_few")], "survived", Ruling("too_few", "too_few", 10)),
    ],
)
def test_a_course_is_held_against_ten(marks: list[tuple[int, str]], require: str, ruling: Ruling) -> None:
    assert rule_course(course(*marks), 10, require) == ruling  # type: ignore[arg-type]
