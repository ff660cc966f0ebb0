"""Dequantises a GGUF file into a model and a tokenizer that transformers can save.

Knows the traps of the format: the pre-tokenizer that a GGUF names and transformers ignores, and the quantisation config
that must not be saved. A file is walked through before a library reads it, since that one believes every count in it.
"""

import struct
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Literal

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from robustlab.errors import DataError

MAX_ENTRIES = 1_000_000
"""Most keys, tensors or texts that a file may list."""
MAX_DIMENSIONS = 8
MAX_PARAMETERS_A_BYTE = 8
"""Most parameters that a byte of a file may stand for."""
_REMEDY = "do not use this file"
_SIZES = ("block_count", "embedding_length", "feed_forward_length")
_UNSIGNED = {4: "<I", 10: "<Q"}
_STRING, _ARRAY = 8, 9
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Size of a value by its type's number, as the format has it."""


def check_gguf(where: str, path: Path) -> None:
    """Walk through the header of a GGUF file and hold every count in it against the file's length.

    Args:
        where: Named in the error.
        path: The file.

    Raises:
        DataError: If it is no GGUF file of version 2 or 3, a count or a length in it leads out of it, or it describes
            far more than it holds, which would be made up in memory.
    """
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            _Walk(data).run()
    except (ValueError, struct.error) as error:
        raise DataError(where, f"{path.name} is no sound GGUF file: {error}", _REMEDY) from None


class _Walk:
    """A reader of one header that only goes forward."""

    def __init__(self, data: mmap) -> None:
        self._data, self._place = data, 0
        self._numbers: dict[str, int] = {}
        """Each unsigned number and the length of each list, by key."""

    def run(self) -> None:
        """Go through all keys and all tensors' descriptions."""
        if self._data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        self._skip(4)
        if self._number("<I") not in (2, 3):
            raise ValueError("its version is neither 2 nor 3")
        tensors, keys = self._count("<Q"), self._count("<Q")
        for _ in range(keys):
            name = self._text().decode("utf-8")
            value = self._value(self._number("<I"))
            if value is not None:
                self._numbers[name] = value
        for _ in range(tensors):
            self._tensor()
        self._check_size(tensors)

    def _check_size(self, tensors: int) -> None:
        """Refuse what a library would fill up with weights of its own making."""
        found = {name.rpartition(".")[2]: value for name, value in self._numbers.items() if name.count(".") == 1}
        missing = [name for name in _SIZES if name not in found]
        if missing or not tensors:
            raise ValueError(f"it states no {missing[0]}" if missing else "it holds no tensors")
        blocks, hidden, inner = (found[name] for name in _SIZES)
        vocab = max(found.get("vocab_size", 0), self._numbers.get("tokenizer.ggml.tokens", 0))
        least = hidden * (vocab + blocks * inner)
        if least > MAX_PARAMETERS_A_BYTE * len(self._data):
            raise ValueError(f"it describes {least:,} parameters or more and has {len(self._data):,} bytes")

    def _value(self, kind: int) -> int | None:
        if kind in _UNSIGNED:
            return self._number(_UNSIGNED[kind])
        if kind in _SCALAR_BYTES:
            self._skip(_SCALAR_BYTES[kind])
        elif kind == _STRING:
            self._text()
        elif kind == _ARRAY:
            return self._array()
        else:
            raise ValueError(f"a value has the type {kind}, which there is not")
        return None

    def _array(self) -> int:
        kind, length = self._number("<I"), self._count("<Q")
        if kind == _STRING:
            for _ in range(length):
                self._text()
        elif kind in _SCALAR_BYTES:
            self._skip(length * _SCALAR_BYTES[kind])
        else:
            raise ValueError(f"a list holds values of type {kind}, which no model needs")
        return length

    def _tensor(self) -> None:
        self._text()
        dimensions = self._number("<I")
        if dimensions > MAX_DIMENSIONS:
            raise ValueError(f"a tensor has {dimensions} dimensions, {MAX_DIMENSIONS} at most")
        self._skip(8 * dimensions + 4)
        if self._number("<Q") > len(self._data):
            raise ValueError("a tensor begins behind the file's end")

    def _text(self) -> bytes:
        length = self._number("<Q")
        place = self._place
        self._skip(length)
        return self._data[place : self._place]

    def _count(self, form: str) -> int:
        count = self._number(form)
        if count > MAX_ENTRIES:
            raise ValueError(f"it lists {count:,} entries, {MAX_ENTRIES:,} at most")
        return count

    def _number(self, form: str) -> int:
        place = self._place
        self._skip(struct.calcsize(form))
        return int(struct.unpack_from(form, self._data, place)[0])

    def _skip(self, count: int) -> None:
        self._place += count
        if self._place > len(self._data):
            raise ValueError("a length in it leads behind its end")


def load_gguf(
    path: Path, *, pre_tokenizer: Literal["default", "smollm"], dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Read one GGUF file; about 20 s and 1.2 GB for 135 M parameters.

    Args:
        path: The file.
        pre_tokenizer: ``smollm`` splits every digit first, as ``tokenizer.ggml.pre=smollm`` asks; without it a list
            such as "\\n\\n1." is tokenised differently from how the model was trained.
        dtype: Element type of the weights in memory.

    Returns:
        The dequantised model, and its tokenizer with the pre-tokenizer as asked.
    """
    model = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=dtype,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    if pre_tokenizer == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    return model, tokenizer
