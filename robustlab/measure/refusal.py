"""Share of improper requests that are refused, overall and in each semantic category. Knows nothing of ASR or harm."""

from collections.abc import Sequence

from robustlab.measure.judged import Judged, build_property
from robustlab.record.results import PropertyResult
from robustlab.spec.evals import RefusalEval


def refusal_properties(
    spec: RefusalEval, judged: Sequence[Judged], baseline: Sequence[Judged] | None
) -> list[PropertyResult]:
    """The share over all rows, then ``refusal/<category>`` over those of each category.

    Args:
        spec: The eval.
        judged: One verdict a row.
        baseline: Verdicts of the same rows in the same order before the attack; None at the baseline itself.

    Returns:
        The overall share first, then categories in alphabetical order; none of these if ``spec.by_category`` is off.
    """
    properties = [build_property(spec.property_id, "refused", spec, judged, baseline)]
    categories = sorted({item.category for item in judged}) if spec.by_category else []
    for category in categories:
        rows = [row for row, item in enumerate(judged) if item.category == category]
        before = [baseline[row] for row in rows] if baseline is not None else None
        now = [judged[row] for row in rows]
        properties.append(build_property(f"refusal/{category}", "refused", spec, now, before))
    return properties
