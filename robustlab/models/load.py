"""From a target's pinned files to a resident model, and the content-addressed cache of released targets.

A cached folder is complete exactly when its manifest, written last, is there and agrees with the files. Only
safetensors and GGUF weights are read, and no code that comes with a model is ever run.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never, cast

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from robustlab.errors import ConfigError, DataError, RecordError
from robustlab.failpoints import reach
from robustlab.models.gguf import check_gguf, load_gguf
from robustlab.models.hazards import (
    ADAPTER_CONFIG,
    CONFIG,
    INDEX,
    Reading,
    check_config,
    check_folder,
    check_index,
    check_names,
)
from robustlab.models.reasoning import set_switch
from robustlab.models.tiny import build_tiny_model, build_tiny_tokenizer
from robustlab.spec.base import content_hash
from robustlab.spec.judges import FolderWeights, HubWeights
from robustlab.spec.targets import FolderTarget, GgufTarget, HubTarget, OpenAiTarget, Target, TinyTarget
from robustlab.templates import try_template

MANIFEST = "manifest.json"
Pair = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@dataclass(frozen=True)
class LoadedTarget:
    """A target in memory.

    Attributes:
        model: In eval mode, all parameters frozen.
        tokenizer: Its tokenizer, with a chat template.
        system_prompt: As the target's YAML fixes it.
        content_id: Hash of everything that the weights depend on.
        answer_after: Marker that ends its thinking; None where it does not think.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    system_prompt: str | None
    content_id: str
    answer_after: str | None = None

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end a completion."""
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        listed = configured if isinstance(configured, list) else [configured]
        return frozenset(int(token) for token in [*listed, self.tokenizer.eos_token_id] if token is not None)

    @property
    def device_name(self) -> str:
        """``cpu``, or the name of the accelerator that it is on: another device gives other bits."""
        device = self.model.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    @property
    def pad_id(self) -> int:
        """Filler for shorter prompts."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else min(self.eos_ids))


def load_pinned(target_id: str, target: Target, *, artefact: Path | None, cache: Path) -> LoadedTarget:
    """Load a target as its pinned files are, without any safeguard of the lab's.

    Args:
        target_id: Named in errors.
        target: Its spec.
        artefact: The fetched file of a ``gguf`` target; None for the other kinds.
        cache: Root of the cache; a dequantised GGUF is kept there.

    Returns:
        The target in eval mode, frozen; ``content_id`` is the hash of its spec.

    Raises:
        ConfigError: If the target has no chat template, or a local folder is not there.
        DataError: If a file does not have its pinned hash.
    """
    content_id = content_hash(target)
    with quiet():
        model, tokenizer = _load_kind(target_id, target, artefact, cache / "targets" / content_id)
    return _loaded(target_id, target, model, tokenizer, content_id)


def load_tokenizer(target_id: str, target: Target, *, artefact: Path | None, cache: Path) -> PreTrainedTokenizerBase:
    """Load a target's tokenizer alone where its files allow for that; see ``load_pinned``."""
    cached = cache / "targets" / content_hash(target)
    match target:
        case TinyTarget():
            tokenizer: PreTrainedTokenizerBase = build_tiny_tokenizer()
        case GgufTarget() if is_complete(cached):
            tokenizer = AutoTokenizer.from_pretrained(cached, trust_remote_code=False, local_files_only=True)
        case _:
            return load_pinned(target_id, target, artefact=artefact, cache=cache).tokenizer
    _set_switch(target_id, tokenizer, target)
    return tokenizer


def load_released(target_id: str, target: Target, folder: Path, *, content_id: str) -> LoadedTarget:
    """Load a released target out of the cache.

    Args:
        target_id: Named in errors.
        target: Spec of the target that it was made from.
        folder: A folder that ``save_released`` wrote.
        content_id: Hash of everything that its weights depend on.

    Returns:
        The target in eval mode, frozen, with the safeguard merged into its weights.

    Raises:
        DataError: If a file is not as the manifest says.
    """
    verify_folder(folder)
    with quiet():
        model, tokenizer = _load_folder(f"target {target_id}", folder, target)
    return _loaded(target_id, target, model, tokenizer, content_id)


def load_weights(where: str, weights: HubWeights | FolderWeights) -> Pair:
    """Load a model that is no target, such as a judge, and its tokenizer.

    Args:
        where: Named in errors.
        weights: The pinned files.

    Returns:
        The model in eval mode, frozen, in host memory, and its tokenizer.

    Raises:
        ConfigError: If a local folder is not there or holds no whole model.
        DataError: If a file does not have its pinned hash, or the hub does not give it.
    """
    with quiet():
        model, tokenizer = _load_hub(where, weights) if isinstance(weights, HubWeights) else _load_local(where, weights)
    model.requires_grad_(False)
    model.train(False)
    return model, tokenizer


def save_released(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model and its tokenizer as safetensors, whole or not at all.

    A folder that another process completed meanwhile stays as it is, since somebody may be loading it: load the target
    from the folder afterwards.

    Args:
        model: The model, with its safeguard merged.
        tokenizer: Its tokenizer.
        folder: Its place in the cache, made with those above it.

    Raises:
        RecordError: If the disk is full or cannot be written; what was there before is intact.
    """
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".staged-"))
    try:
        with quiet():
            model.save_pretrained(staged)
            tokenizer.save_pretrained(staged)
        reach("released.staged")
        files = sorted(path for path in staged.iterdir() if path.is_file())
        manifest = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files}
        (staged / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in [*files, staged / MANIFEST]:
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        reach("released.manifested")
        _put_in_place(staged, folder)
        reach("released.named")
    except (OSError, SafetensorError) as error:
        raise RecordError(str(folder), f"cannot be written: {error}", "make room and run again") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _put_in_place(staged: Path, folder: Path) -> None:
    try:
        staged.rename(folder)
    except OSError:
        if is_complete(folder):
            return
        if not folder.is_dir():
            raise
        shutil.rmtree(folder)
        staged.rename(folder)


def is_complete(folder: Path) -> bool:
    """Whether a cached folder was written to its end."""
    return (folder / MANIFEST).is_file()


def verify_folder(folder: Path) -> None:
    """Hold every file of a cached folder against its manifest.

    Args:
        folder: A folder of the cache with a manifest.

    Raises:
        DataError: At the first file that is not as the manifest says, or that it does not list.
    """
    remedy = f"remove {folder} and run again"
    for name, pinned in _read_manifest(folder, remedy).items():
        path = folder / name
        found = _sha256(path) if path.is_file() else "no file"
        if found != pinned:
            raise DataError(str(path), f"should have sha256 {pinned}, got {found}", remedy)


def _read_manifest(folder: Path, remedy: str) -> dict[str, str]:
    """Pinned hash of each file by name."""
    path = folder / MANIFEST
    try:
        listed = {str(name): str(entry["sha256"]) for name, entry in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(str(path), "is not a manifest", remedy) from None
    # A file that nobody listed would be read all the same: transformers takes up an adapter beside the weights.
    extra = sorted(entry.name for entry in folder.iterdir() if entry.name not in (*listed, MANIFEST))
    if extra:
        raise DataError(str(folder / extra[0]), "is not in the manifest", remedy)
    return listed


def _load_kind(target_id: str, target: Target, artefact: Path | None, cached: Path) -> Pair:
    match target:
        case GgufTarget():
            return _load_gguf(target_id, target, artefact, cached)
        case HubTarget():
            return _load_hub(f"target {target_id}", target)
        case FolderTarget():
            return _load_local(f"target {target_id}", target)
        case TinyTarget():
            return build_tiny_model(target), build_tiny_tokenizer()
        case OpenAiTarget():
            problem = f"weights cannot be had over HTTP, got {target.endpoint.base_url}"
            raise DataError(f"target {target_id}", problem, "measure it with the attack `untouched`")
        case _:
            assert_never(target)


def _load_gguf(target_id: str, target: GgufTarget, artefact: Path | None, cached: Path) -> Pair:
    if not is_complete(cached):
        if artefact is None:
            raise DataError(
                f"target {target_id}", "its GGUF file was not fetched", f"run `robustlab fetch {target_id}`"
            )
        model, tokenizer = _dequantise(f"target {target_id}", target, artefact)
        save_released(model, tokenizer, cached)
    verify_folder(cached)
    return _load_folder(f"target {target_id}", cached, target)


def _dequantise(where: str, target: GgufTarget, artefact: Path) -> Pair:
    check_gguf(where, artefact)
    with Reading(lambda said: DataError(where, f"{artefact.name} cannot be read: {said}", "pin another file")):
        return load_gguf(artefact, pre_tokenizer=target.pre_tokenizer, dtype=getattr(torch, target.dtype))


def _load_hub(where: str, target: HubTarget | HubWeights) -> Pair:
    pinned = {"revision": target.revision, "trust_remote_code": False}
    problem, remedy = (
        f"{target.model} at {target.revision} cannot be had",
        "connect once, or pin a local copy as a folder",
    )
    with Reading(lambda said: DataError(where, f"{problem}: {said}", remedy)):
        _check_repository(where, target)
        tokenizer = AutoTokenizer.from_pretrained(target.model, **pinned)
        try_template(where, tokenizer)
        model = AutoModelForCausalLM.from_pretrained(
            target.model, dtype=getattr(torch, target.dtype), use_safetensors=True, **pinned
        )
    return model, tokenizer


def _check_repository(where: str, target: HubTarget | HubWeights) -> None:
    """Look at what would lead elsewhere, before anything is loaded."""
    adapter, index, config = (
        cached_file(
            target.model,
            name,
            revision=target.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        for name in (ADAPTER_CONFIG, INDEX, CONFIG)
    )
    if adapter is not None:
        problem = f"{target.model} is an adapter, which brings in weights from elsewhere"
        raise DataError(where, problem, "merge the adapter into its base model and pin the result")
    if index is not None:
        check_index(where, Path(index), None)
    if config is not None:
        check_config(where, Path(config), None)


def _load_local(where: str, target: FolderTarget | FolderWeights) -> Pair:
    folder = Path(target.path)
    check_names(where, target.sha256)
    for name, pinned in sorted(target.sha256.items()):
        if not (folder / name).is_file():
            raise ConfigError(where, f"{folder / name} is missing", "put the file there or mend `path`")
        found = _sha256(folder / name)
        if found != pinned:
            raise DataError(where, f"{name} should have sha256 {pinned}, got {found}", "pin what you mean")
    unpinned = sorted(path.name for path in folder.glob("*") if path.name not in target.sha256 and path.is_file())
    if unpinned:
        raise DataError(where, f"{unpinned[0]} is not pinned", "list its sha256 or take the file away")
    check_folder(where, folder, target.sha256)
    remedy = "add the missing file, or name a whole model"
    with Reading(lambda said: ConfigError(where, f"cannot be loaded from {folder}: {said}", remedy)):
        return _load_folder(where, folder, target)


def _load_folder(where: str, folder: Path, target: Target | FolderWeights) -> Pair:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    try_template(where, tokenizer)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, target.dtype), use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    return model, tokenizer


def _loaded(
    target_id: str, target: Target, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, content_id: str
) -> LoadedTarget:
    if not tokenizer.chat_template:
        raise ConfigError(
            f"target {target_id}", "has no chat template", "name a chat model, or add the template to its tokenizer"
        )
    model.requires_grad_(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    placed = cast(PreTrainedModel, model.to(device))  # type: ignore[arg-type]
    placed.train(False)
    _set_switch(target_id, tokenizer, target)
    return LoadedTarget(placed, tokenizer, target.system_prompt, content_id, target.answer_after)


def _set_switch(target_id: str, tokenizer: PreTrainedTokenizerBase, target: Target) -> None:
    try_template(f"target {target_id}", tokenizer)
    set_switch(tokenizer, target.reasoning)
    # What the switch was set in is another text, and is tried here rather than beside a model's first use.
    try_template(f"target {target_id}", tokenizer)


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own progress bars off the terminal: the lab has one live line."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
