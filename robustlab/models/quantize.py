"""The only door to bitsandbytes: a 4-bit copy of a resident target, made in memory.

On a processor with AVX512-BF16 a 4-bit layer repacks its weights at its first forward pass in eval mode, and what it
runs from then on has no backward pass: an attack that is measured before it trains would lose nearly all of its
gradient without a word. Every layer is told that the processor cannot do that, before anything is run.
This module does not train and does not know why a copy is wanted. Importing bitsandbytes takes seconds, so it is
imported where it is used.

Source: Dettmers et al. 2023 (QLoRA), arXiv 2305.14314, for NormalFloat4 and the quantisation of its scales.
"""

import copy
import importlib.util
from dataclasses import replace
from importlib.metadata import version

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from robustlab.errors import DataError
from robustlab.models.load import LoadedTarget, quiet
from robustlab.spec.base import content_hash

_WHERE = "nf4"


def require_nf4() -> None:
    """Make sure that 4-bit layers run here, and that they run the code that was installed.

    Raises:
        DataError: If bitsandbytes is not installed or has no native library for this machine, or if it would fetch
            and run code from the hub, which it does where the package ``kernels`` can be imported.
    """
    if importlib.util.find_spec("kernels") is not None:
        problem = "bitsandbytes would fetch and run unpinned code from the hub, got an importable package 'kernels'"
        raise DataError(_WHERE, problem, "pip uninstall kernels")
    if importlib.util.find_spec("bitsandbytes") is None:
        problem = "bitsandbytes cannot be imported, got no package of that name"
        raise DataError(_WHERE, problem, "install the versions that constraints.txt pins")
    from bitsandbytes.cextension import ErrorHandlerMockBNBNativeLibrary, lib

    # It stands in where the library cannot be loaded: on a processor slow substitutes would run, elsewhere nothing.
    if isinstance(lib, ErrorHandlerMockBNBNativeLibrary):
        problem = f"bitsandbytes {version('bitsandbytes')} has no native library here, got {type(lib).__name__}"
        raise DataError(_WHERE, problem, "install its wheel for this platform, or take a recipe without quantization")


def quantize_nf4(target: LoadedTarget) -> LoadedTarget:
    """Make a 4-bit copy of a resident target; the target itself stays as it is.

    The matrices of all blocks become NormalFloat4 in blocks of 64 with quantised scales: 0.52 bytes a weight.
    Embeddings, lm_head and norms keep their type and, frozen on both sides, share the target's memory. Nothing is
    written to the disk.

    Args:
        target: The released target.

    Returns:
        The copy in eval mode, frozen, computing in the target's own type. Its ``content_id`` is the hash of the
        target's and of the settings; tokenizer and system prompt are the target's.

    Raises:
        DataError: As ``require_nf4``, or if the target lies on a device that bitsandbytes does not know.
    """
    require_nf4()
    _require_device(target.model.device)
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=target.model.dtype,
        bnb_4bit_quant_storage=torch.uint8,
    )
    model = _quantize(target.model, config)
    settings = {name: value for name, value in config.to_dict().items() if name.startswith("bnb_4bit_")}
    identity = {"released": target.content_id, "quantization": "nf4", **settings}
    return replace(target, model=model, content_id=content_hash(identity))


def _require_device(device: torch.device) -> None:
    from bitsandbytes import supported_torch_devices

    if device.type not in supported_torch_devices:
        known = ", ".join(sorted(supported_torch_devices))
        problem = f"bitsandbytes cannot compute where the target lies, got {device.type!r}"
        raise DataError(_WHERE, problem, f"use one of {known}")


def _quantize(model: PreTrainedModel, config: BitsAndBytesConfig) -> PreTrainedModel:
    with quiet():
        quantised = type(model).from_pretrained(
            None,
            config=model.config,
            state_dict=model.state_dict(),
            dtype=model.dtype,
            quantization_config=config,
            device_map={"": str(model.device)},
        )
    # Without a folder to read it from, what ends a completion would be guessed from the model's configuration.
    quantised.generation_config = copy.deepcopy(model.generation_config)
    _keep_gradients(quantised)
    quantised.requires_grad_(False)
    quantised.train(False)
    return quantised


def _keep_gradients(model: PreTrainedModel) -> None:
    """Keep every 4-bit layer from repacking its weights for good, whatever the processor can do."""
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
