"""The only door to peft: a low-rank adapter on a resident target, and the merge that makes a released one.

Source: Hu et al. 2021, arXiv 2106.09685.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedModel

from robustlab.errors import ConfigError, DataError
from robustlab.models.modification import Modification, tensors_digest
from robustlab.spec.base import canonical_json
from robustlab.spec.training import Lora


class LoraModification:
    """A fresh low-rank adapter; with its second factor zero it changes nothing, byte for byte."""

    def __init__(self, base: PreTrainedModel, lora: Lora, *, seed: int) -> None:
        """Put an adapter on the target.

        Args:
            base: The target; it stays resident and frozen.
            lora: Shape of the adapter.
            seed: Seed of its first factor.

        Raises:
            ConfigError: If the target has none of the named modules.
        """
        names = _module_names(base, lora)
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=names,
            task_type="CAUSAL_LM",
        )
        self._base, self._lora = base, lora
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._peft = cast(PeftModel, get_peft_model(base, config))
        self._peft.eval()

    @property
    def model(self) -> torch.nn.Module:
        """The module to run forward and to train."""
        return self._peft

    @property
    def base(self) -> PreTrainedModel:
        """The target underneath, with the adapter applied."""
        return self._base

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """A context in which the target is untouched, byte for byte."""
        with self._peft.disable_adapter():
            yield

    def digest(self) -> str:
        """sha256 over names, shapes and bytes of the adapter."""
        return tensors_digest(self._tensors())

    def state(self) -> dict[str, Tensor]:
        """Copies of the adapter's tensors."""
        return {name: tensor.detach().clone() for name, tensor in self._tensors().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put an adapter back that ``state`` gave."""
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(state[name])

    def pack(self, metadata: Mapping[str, str]) -> bytes:
        """Make a safetensors file of the adapter in memory, with its shape as ``robustlab.lora`` in the metadata."""
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.state().items()}
        return save(tensors, {**metadata, "robustlab.lora": canonical_json(self._lora)})

    def dispose(self) -> None:
        """Take the adapter off; the target's own modules are back in their places."""
        self._peft.unload()
        self._base.requires_grad_(False)

    def merge(self) -> PreTrainedModel:
        """Merge into the target for good: for a safeguard before release, never for an attack."""
        return cast(PreTrainedModel, self._peft.merge_and_unload())

    def _tensors(self) -> dict[str, Tensor]:
        return {name: p for name, p in self._peft.named_parameters() if "lora_" in name}


def pack_adapter(modification: Modification, metadata: Mapping[str, str]) -> bytes:
    """Make a safetensors file of an adapter in memory. No other modification is ever written.

    Args:
        modification: What an attack has made.
        metadata: What the file says of itself.

    Returns:
        The file's bytes.

    Raises:
        DataError: If it is no adapter.
    """
    if not isinstance(modification, LoraModification):
        problem = f"must be an adapter to be written, got {type(modification).__name__}"
        raise DataError("modification", problem, "keep what an attack of kind lora_sft or lora_dpo makes")
    return modification.pack(metadata)


def _module_names(base: PreTrainedModel, lora: Lora) -> list[str]:
    """Names of the modules that get an adapter."""
    linear = {name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    there = sorted({name.rpartition(".")[2] for name in linear} - {"lm_head"})
    if lora.modules == "all-linear":
        return there
    missing = sorted(set(lora.modules) - set(there))
    if missing:
        raise ConfigError(
            "training.lora.modules", f"the target has no module {missing[0]!r}", f"it has {', '.join(there)}"
        )
    return list(lora.modules)
