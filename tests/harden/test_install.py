"""Every kind of safeguard is installed by its own module, and what it is made from names what decides it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from robustlab.data import rows as data_rows
from robustlab.data.rows import load_builtin
from robustlab.harden import deep_refusal_sft, install, refusal_sft, rows, tamper_resistant, tuning
from robustlab.harden.install import code_of, install_safeguard, rows_of
from robustlab.harden.tuning import Workshop
from robustlab.record.provenance import source_fingerprint
from robustlab.train import sft, tar

KINDS = ["plain_spec", "deep_spec", "resistant_spec"]


@pytest.mark.parametrize("name", KINDS)
def test_a_safeguard_is_installed_and_can_be_merged(
    name: str, new_shop: Callable[[], Workshop], told: Any, request: pytest.FixtureRequest
) -> None:
    spec, shop = request.getfixturevalue(name), new_shop()
    before = {key: weight.clone() for key, weight in shop.target.model.state_dict().items()}
    modification = install_safeguard(spec, shop)
    assert shop.meter.total("laboratory").steps == spec.training.steps
    assert shop.meter.total("attacker").train_tokens == 0
    assert told.stages == [
        "odd_safeguard: self-distilled answers",
        f"odd_safeguard: training, {spec.training.steps} steps",
    ]
    with modification.lifted():
        assert not modification.model.training
    merged = modification.merge().state_dict()
    assert merged.keys() == before.keys()
    assert any(not torch.equal(merged[key], before[key]) for key in before)


def test_the_training_set_is_refusals_and_then_answers(
    plain_spec: Any, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(install, "tune", lambda spec, examples, shop: seen.extend(examples))
    install_safeguard(plain_spec, shop)
    assert seen[:184] == refusal_sft.build_refusals(plain_spec, shop.target)
    assert len(seen) == 184 + 8


def test_the_code_of_a_kind_is_what_decides_it(plain_spec: Any, deep_spec: Any, resistant_spec: Any) -> None:
    plain, deep, resistant = (set(code_of(spec)) for spec in (plain_spec, deep_spec, resistant_spec))
    assert {refusal_sft, sft, rows, tuning} <= plain and not {deep_refusal_sft, tar} & plain
    assert {deep_refusal_sft, sft} <= deep and not {refusal_sft, tamper_resistant, tar} & deep
    assert {refusal_sft, tamper_resistant, tar} <= resistant and sft not in resistant
    # A module's source can be read and hashed.
    assert len({source_fingerprint(*code_of(spec)) for spec in (plain_spec, deep_spec, resistant_spec)}) == 3


def test_the_kinds_make_three_targets_of_the_rows_that_they_name(
    new_shop: Callable[[], Workshop], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()
    made: set[str] = set()

    def load(name: Any) -> Any:
        read.add(name)
        return load_builtin(name)

    for home in (rows, data_rows):
        monkeypatch.setattr(home, "load_builtin", load)
    for name in KINDS:
        spec = request.getfixturevalue(name)
        read.clear()
        made.add(install_safeguard(spec, new_shop()).digest())
        assert read == set(rows_of(spec))
    assert len(made) == 3
