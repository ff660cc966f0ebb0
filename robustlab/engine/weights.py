"""What cannot be done to a target that only answers over HTTP: nothing can be installed in it, changed or read off."""

from collections.abc import Mapping

from robustlab.errors import ConfigError
from robustlab.spec.attacks import TrainedAttack, Untouched
from robustlab.spec.evals import Eval, LmEvalEval, RefusalEval, ValueEval
from robustlab.spec.safeguards import NoSafeguard, Safeguard


def refuse_what_needs_weights(
    where: str, safeguard: tuple[str, Safeguard], attack: tuple[str, TrainedAttack], evals: Mapping[str, Eval]
) -> None:
    """Refuse a combination before anything is spent on it.

    Args:
        where: File and line of the target.
        safeguard: Its id and spec.
        attack: Its id and what it runs.
        evals: Specs of the evals by id.

    Raises:
        ConfigError: Naming the first thing that needs the target's weights.
    """
    reason = "weights cannot be had over HTTP"
    if not isinstance(safeguard[1], NoSafeguard):
        raise ConfigError(where, f"{reason}, got safeguard {safeguard[0]!r}", "choose the safeguard `none`")
    if not isinstance(attack[1], Untouched):
        raise ConfigError(where, f"{reason}, got attack {attack[0]!r}", "choose the attack `untouched`")
    for name, spec in evals.items():
        if isinstance(spec, ValueEval | LmEvalEval):
            problem = f"{reason}, and eval {name!r} reads its figures off them"
            raise ConfigError(where, problem, "choose evals that judge completions")
        if isinstance(spec, RefusalEval) and spec.prefill is not None:
            problem = f"an answer cannot be begun for a model over HTTP, got eval {name!r}"
            raise ConfigError(where, problem, "choose an eval without a prefill")
