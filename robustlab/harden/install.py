"""Which kind of safeguard is installed how, and what a released target that holds it is made from."""

from types import ModuleType
from typing import assert_never

from robustlab.cost import schedule
from robustlab.data import chat
from robustlab.harden import deep_refusal_sft, refusal_sft, rows, tamper_resistant, tuning
from robustlab.harden.tuning import Workshop, answer_benign, tune
from robustlab.models import adapter, generate, growing, packed, waves
from robustlab.models.adapter import LoraModification
from robustlab.spec.safeguards import DeepRefusalSft, RefusalSft, TamperResistant, TrainedSafeguard
from robustlab.spec.sources import BuiltinName
from robustlab.train import distil, order, purse, sft, tar, trainer

_SHARED = (rows, tuning, distil, generate, growing, packed, waves, order, trainer, chat, adapter, schedule)


def install_safeguard(safeguard: TrainedSafeguard, shop: Workshop) -> LoraModification:
    """Train a safeguard's adapter on the target, on the laboratory's account.

    Args:
        safeguard: Its spec.
        shop: The target, the bill and the live line.

    Returns:
        The trained adapter, on the target; merging it makes the released one.

    Raises:
        BudgetSpent: If a cap of the laboratory cut it short: half a safeguard is none.
        ConfigError: If the target has none of the named modules, or there are not that many rows.
        DataError: If the training diverged, or a row is longer than the spec allows.
    """
    match safeguard:
        case RefusalSft():
            refusals = refusal_sft.build_refusals(safeguard, shop.target)
            return tune(safeguard, refusals + answer_benign(safeguard, shop), shop)
        case DeepRefusalSft():
            refusals = deep_refusal_sft.build_refusals(safeguard, shop.target)
            return tune(safeguard, refusals + answer_benign(safeguard, shop), shop)
        case TamperResistant():
            refusals = refusal_sft.build_refusals(safeguard, shop.target)
            return tamper_resistant.resist(safeguard, refusals + answer_benign(safeguard, shop), shop)
        case _:
            assert_never(safeguard)


def code_of(safeguard: TrainedSafeguard) -> tuple[ModuleType, ...]:
    """Modules that decide what a safeguard's training makes of a target."""
    match safeguard:
        case RefusalSft():
            return (refusal_sft, purse, sft, *_SHARED)
        case DeepRefusalSft():
            return (deep_refusal_sft, purse, sft, *_SHARED)
        case TamperResistant():
            return (refusal_sft, tamper_resistant, tar, *_SHARED)
        case _:
            assert_never(safeguard)


def rows_of(safeguard: TrainedSafeguard) -> tuple[BuiltinName, ...]:
    """Built-in sets that a safeguard is trained on."""
    plain: tuple[BuiltinName, ...] = ("mild_requests_safeguard", "refusals", "benign_prompts")
    match safeguard:
        case RefusalSft():
            return plain
        case DeepRefusalSft() | TamperResistant():
            return (*plain, "compliance_openings")
        case _:
            assert_never(safeguard)
