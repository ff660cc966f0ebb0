"""Refuses to measure on rows that a safeguard or an attack trains on: such a number would flatter or damn by memory."""

from collections.abc import Mapping, Sequence

from robustlab.data.harmbench import text_sha256
from robustlab.data.mixture import attack_rows
from robustlab.data.rows import EvalRow, load_builtin
from robustlab.errors import ConfigError
from robustlab.spec.attacks import LoraSft
from robustlab.spec.safeguards import RefusalSft, Safeguard


def refuse_overlap(
    safeguard_id: str, safeguard: Safeguard, attack_id: str, recipe: LoraSft, rows: Mapping[str, Sequence[EvalRow]]
) -> None:
    """Hold the rows of every eval against what the safeguard and the attack train on.

    Args:
        safeguard_id: Named in the message.
        safeguard: Its spec.
        attack_id: Named in the message.
        recipe: The attack's training.
        rows: Rows of each eval, by the eval's id.

    Raises:
        ConfigError: If an eval shares a row with a training set.
    """
    trained = {
        f"safeguard {safeguard_id}": _safeguard_hashes(safeguard),
        f"attack {attack_id}": {text_sha256(row.prompt, None) for row in attack_rows(recipe.data)},
    }
    for name, measured in rows.items():
        for trainer, hashes in trained.items():
            shared = sum(row.text_sha256 in hashes or _is_installed(row, safeguard, trainer) for row in measured)
            if shared:
                problem = f"shares {shared} of its {len(measured)} rows with the training set of {trainer}"
                raise ConfigError(
                    f"eval {name}", problem, "measure on other rows, or choose another safeguard or attack"
                )


def _safeguard_hashes(safeguard: Safeguard) -> set[str]:
    if not isinstance(safeguard, RefusalSft) or not safeguard.mild_repeats:
        return set()
    return {text_sha256(row.prompt, None) for row in load_builtin("mild_requests_safeguard") if row.prompt}


def _is_installed(row: EvalRow, safeguard: Safeguard, trainer: str) -> bool:
    """Whether a benchmark row is one that the safeguard's developer trains on."""
    trains = isinstance(safeguard, RefusalSft) and safeguard.install is not None and safeguard.install_repeats > 0
    return trains and row.role == "install" and trainer.startswith("safeguard")
