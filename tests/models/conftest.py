"""What tests of models share."""

from typing import Any

import pytest
import torch


@pytest.fixture
def lively(tiny: Any) -> Any:
    """The tiny target with larger random weights, so that its greedy answers differ from prompt to prompt."""
    generator = torch.Generator().manual_seed(3)
    for parameter in tiny.model.parameters():
        if parameter.dim() == 2:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return tiny.model
