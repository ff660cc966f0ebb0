"""Share of plain benign prompts that get a real answer: the floor below which an attack only broke the model."""

from collections.abc import Sequence

from robustlab.measure.judged import Judged, build_property
from robustlab.record.results import UTILITY_FLOOR, PropertyResult
from robustlab.spec.evals import BenignAnswersEval


def benign_answers_properties(
    spec: BenignAnswersEval, judged: Sequence[Judged], baseline: Sequence[Judged] | None
) -> list[PropertyResult]:
    """``utility/benign_answers`` over all rows.

    Args:
        spec: The eval.
        judged: One verdict a row.
        baseline: Verdicts of the same rows in the same order before the attack; None at the baseline itself.

    Returns:
        One property, the share of rows that were complied with.
    """
    return [build_property(UTILITY_FLOOR, "complied", spec, judged, baseline)]
