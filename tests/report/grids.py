"""Made-up cells of several seeds, for the tests of grids."""

from typing import Any

from tests.report.conftest import broken_cell, control_cell, course, measurement, rate


def seed_cell(
    seed: int, after: float = 0.0125, *, broken_at: int | None = 600, verdict: str | None = None, **changes: Any
) -> dict[str, Any]:
    """One seed of an attack: refusals of 97.5 % held at 60 millionths of a dollar, the end is at 1,200."""
    word = verdict or ("broken" if broken_at is not None else "survived")
    spent, rates = [0, 60, 600, 1_200], [0.975, 0.95, max(after, 0.1), after]
    refusal = course("harmbench_64", "refusal", rates, spent, word, broken_at)
    utility = course("plain_benign", "utility/benign_answers", [0.95, 0.9], [0, 1_200], "survived", n=60)
    parts = {"attack": "lora_withheld", "cell_id": f"c0ffee00{seed:04d}", "measurements": refusal + utility}
    return broken_cell(**{**parts, "seed": seed, **changes})


def copy_of(refusal: float, digest: str = "cd") -> list[dict[str, Any]]:
    """What was measured of a 4-bit copy before any training."""
    found = [
        measurement("harmbench_64", "baseline", 0, 0, [rate("refusal", refusal, 160, verdict="survived")]),
        measurement("plain_benign", "baseline", 0, 0, [rate("utility/benign_answers", 0.85, 60, verdict="survived")]),
    ]
    return [{**each, "completions_sha256": digest * 32} for each in found]


def control_of(cell_id: str = "c0ffee000003", **changes: Any) -> dict[str, Any]:
    """The entry of a control in the document, under its label."""
    return {"any": {"cell_id": cell_id, "identical": True, "steps": 32, "compared": 380, **changes}}


def plan_cell(cell: dict[str, Any], **pinned: Any) -> dict[str, Any]:
    """What a resolved plan pins of a cell."""
    names = {f"{name}_id": cell[name] for name in ("target", "safeguard", "attack", "budget")}
    return {**names, "seed": cell["seed"], **pinned}


def never_began(**changes: Any) -> dict[str, Any]:
    """A cell that a cap kept from beginning."""
    ended = {"status": "incomplete", "stopped_by": "total_usd", "incomplete_by": "total_usd", "measurements": []}
    return control_cell(**{**ended, "attack": "lora_withheld", **changes})
