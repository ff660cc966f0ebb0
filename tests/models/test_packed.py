"""Weights that are laid out once: the same products to the last bit, and a model that is afterwards as it was."""

from typing import Any

import pytest
import torch
from torch import nn

from robustlab.models import packed
from robustlab.models.packed import pack_linears

needs_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch has no MKL here")


def build() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 8, bias=False)).eval()


def is_patched(model: nn.Module) -> list[bool]:
    return ["forward" in vars(layer) for layer in model.modules() if isinstance(layer, nn.Linear)]


@needs_mkl
@pytest.mark.parametrize("shape", [(5, 24), (5, 1, 24), (3, 24), (2, 3, 24)])
def test_products_are_the_same(shape: tuple[int, ...]) -> None:
    model, states = build(), torch.randn(shape)
    with torch.inference_mode():
        plain = model(states)
        with pack_linears(model, rows=5):
            assert is_patched(model) == [True, True]
            assert torch.equal(model(states), plain)
    assert is_patched(model) == [False, False]


@needs_mkl
def test_only_that_many_rows_use_the_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    with torch.inference_mode(), pack_linears(model, rows=5):
        for layer in model:
            layer.weight.data.zero_()
        # The copies were made before: five rows do not see the change, four do.
        assert model[1](torch.ones(5, 40)).abs().sum() > 0
        assert model[1](torch.ones(4, 40)).abs().sum() == 0


def test_a_model_is_afterwards_as_it_was_even_if_it_failed() -> None:
    model = build()
    with pytest.raises(InterruptedError), pack_linears(model, rows=5):
        raise InterruptedError
    assert is_patched(model) == [False, False]


def test_what_is_large_of_another_type_or_another_kind_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scaled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # the name is torch's
            return 2 * super().forward(input)

    mixed: Any = nn.Sequential(Scaled(4, 4), nn.Linear(4, 4).double())
    with pack_linears(mixed, rows=5):
        assert is_patched(mixed) == [False, False]
    monkeypatch.setattr(packed, "PACKED_BYTES", 4 * (24 * 40 + 40 * 8) - 1)
    model = build()
    with pack_linears(model, rows=5):
        assert is_patched(model) == [False, False]


def test_without_mkl_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    model = build()
    with pack_linears(model, rows=5):
        assert is_patched(model) == [False, False]
