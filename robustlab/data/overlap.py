"""Refuses to measure on rows that a safeguard or an attack trains on: such a number would flatter or damn by memory.

Only equal texts are found, up to white space at their edges; ``robustlab.data.contamination`` finds near ones.
"""

from collections.abc import Mapping, Sequence

from robustlab.data.harmbench import text_sha256
from robustlab.data.mixture import trained_prompts
from robustlab.data.rows import EvalRow, load_builtin
from robustlab.errors import ConfigError
from robustlab.spec.attacks import TrainedAttack
from robustlab.spec.safeguards import NoSafeguard, Safeguard, TamperResistant


def refuse_overlap(
    safeguard_id: str,
    safeguard: Safeguard,
    attack_id: str,
    recipe: TrainedAttack,
    rows: Mapping[str, Sequence[EvalRow]],
) -> None:
    """Hold the rows of every eval against what the safeguard and the attack train on.

    Args:
        safeguard_id: Named in the message.
        safeguard: Its spec.
        attack_id: Named in the message.
        recipe: What the attack runs; the prompts over which an ablation averages count as trained on.
        rows: Rows of each eval, by the eval's id.

    Raises:
        ConfigError: If an eval shares a row with a training set, or the attack's own set is not valid.
        DataError: If the attack's own set cannot be had, or holds a row that cannot be trained on.
    """
    trained = {
        f"safeguard {safeguard_id}": _safeguard_hashes(safeguard),
        f"attack {attack_id}": {text_sha256(prompt, None) for prompt in trained_prompts(recipe)},
    }
    for name, measured in rows.items():
        for trainer, hashes in trained.items():
            shared = sum(_is_in(row, hashes) or _is_installed(row, safeguard, trainer) for row in measured)
            if shared:
                problem = f"shares {shared} of its {len(measured)} rows with the training set of {trainer}"
                raise ConfigError(
                    f"eval {name}", problem, "measure on other rows, or choose another safeguard or attack"
                )


def _safeguard_hashes(safeguard: Safeguard) -> set[str]:
    if isinstance(safeguard, NoSafeguard):
        return set()
    # A simulated attack trains on the mild requests too, however often their refusals are learnt.
    if not safeguard.mild_repeats and not isinstance(safeguard, TamperResistant):
        return set()
    return {text_sha256(row.prompt, None) for row in load_builtin("mild_requests_safeguard") if row.prompt}


def _is_in(row: EvalRow, hashes: set[str]) -> bool:
    """Whether a row was trained on, as its prompt or, if it has a context, without it."""
    return not hashes.isdisjoint((text_sha256(row.prompt, None), text_sha256(row.text, None)))


def _is_installed(row: EvalRow, safeguard: Safeguard, trainer: str) -> bool:
    """Whether a benchmark row is one that the safeguard's developer trains on."""
    if isinstance(safeguard, NoSafeguard) or safeguard.install is None:
        return False
    return safeguard.install_repeats > 0 and row.role == "install" and trainer.startswith("safeguard")
