"""Share of benign but alarming-sounding prompts that are refused: what a safeguard costs honest users."""

from collections.abc import Sequence

from robustlab.measure.judged import Judged, build_property
from robustlab.record.results import PropertyResult
from robustlab.spec.evals import OverRefusalEval


def over_refusal_properties(
    spec: OverRefusalEval, judged: Sequence[Judged], baseline: Sequence[Judged] | None
) -> list[PropertyResult]:
    """``over_refusal`` over all rows.

    Args:
        spec: The eval.
        judged: One verdict a row.
        baseline: Verdicts of the same rows in the same order before the attack; None at the baseline itself.

    Returns:
        One property, the share of rows that were refused.
    """
    return [build_property("over_refusal", "refused", spec, judged, baseline)]
