"""Targets from files: pinned byte for byte, whole or not at all, and one clear message for each fault."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from robustlab.errors import ConfigError, DataError, RecordError
from robustlab.models import load
from robustlab.models.load import (
    MANIFEST,
    LoadedTarget,
    is_complete,
    load_pinned,
    load_released,
    load_tokenizer,
    save_released,
    verify_folder,
)
from robustlab.models.modification import tensors_digest
from robustlab.spec.base import content_hash
from robustlab.spec.targets import FolderTarget, GgufTarget, HubTarget, TinyTarget


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def released(tiny: LoadedTarget, tmp_path: Path) -> Path:
    """A released target in its folder."""
    folder = tmp_path / "released" / "abc"
    save_released(tiny.model, tiny.tokenizer, folder)
    return folder


@pytest.fixture
def local(tiny: LoadedTarget, tmp_path: Path) -> Path:
    """A folder as someone else would hand it over."""
    folder = tmp_path / "theirs"
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


def pin(folder: Path, spec: TinyTarget, **changes: Any) -> FolderTarget:
    pinned = {path.name: sha256(path) for path in folder.iterdir()}
    plain = spec.model_dump(exclude={"kind", "seed"}) | {"kind": "folder", "path": str(folder), "sha256": pinned}
    return FolderTarget.model_validate(plain | changes)


def load_folder(target: FolderTarget) -> LoadedTarget:
    return load_pinned("theirs", target, artefact=None, cache=Path("unused"))


def test_a_released_target_comes_back_byte_for_byte(tiny: LoadedTarget, released: Path, tiny_spec: TinyTarget) -> None:
    found = load_released("tiny", tiny_spec, released, content_id="c0ffee")
    assert tensors_digest(found.model.state_dict()) == tensors_digest(tiny.model.state_dict())
    assert found.tokenizer.chat_template == tiny.tokenizer.chat_template
    assert found.tokenizer("é🙂")["input_ids"] == tiny.tokenizer("é🙂")["input_ids"]
    assert (found.eos_ids, found.pad_id, found.content_id, found.system_prompt) == ({2}, 0, "c0ffee", None)
    assert not found.model.training and not any(p.requires_grad for p in found.model.parameters())


def test_a_released_folder_holds_safetensors_and_no_pickle(released: Path) -> None:
    assert is_complete(released)
    names = {path.name for path in released.iterdir()}
    assert "model.safetensors" in names
    assert not {name for name in names if Path(name).suffix in {".bin", ".pt", ".pth", ".pkl", ".py"}}
    assert set(json.loads((released / MANIFEST).read_text())) == names - {MANIFEST}
    assert [path.name for path in released.parent.iterdir()] == ["abc"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_changed_or_missing_file_is_named(released: Path, tiny_spec: TinyTarget, name: str) -> None:
    path, pinned = released / name, json.loads((released / MANIFEST).read_text())[name]["sha256"]
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DataError) as caught:
        load_released("tiny", tiny_spec, released, content_id="c0ffee")
    remedy = f"remove {released} and run again"
    assert str(caught.value) == f"{path}: should have sha256 {pinned}, got {sha256(path)}; {remedy}"
    path.unlink()
    with pytest.raises(DataError) as caught:
        verify_folder(released)
    assert str(caught.value) == f"{path}: should have sha256 {pinned}, got no file; {remedy}"


def test_a_file_that_the_manifest_does_not_list_is_refused(released: Path) -> None:
    (released / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError) as caught:
        verify_folder(released)
    assert str(caught.value) == (
        f"{released / 'adapter_config.json'}: is not in the manifest; remove {released} and run again"
    )


@pytest.mark.parametrize("text", ["", "[]", "{", '{"config.json": 3}', '{"config.json": {}}', "null", "\x00"])
def test_a_manifest_that_is_none_is_refused(released: Path, text: str) -> None:
    (released / MANIFEST).write_text(text)
    with pytest.raises(DataError) as caught:
        verify_folder(released)
    assert str(caught.value) == f"{released / MANIFEST}: is not a manifest; remove {released} and run again"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
@pytest.mark.parametrize("before", [False, True])
def test_a_write_that_fails_leaves_nothing_half_written(
    tiny: LoadedTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, before: bool
) -> None:
    folder = tmp_path / "cache" / "abc"
    if before:
        save_released(tiny.model, tiny.tokenizer, folder)

    def fail(path: Path) -> None:
        (Path(path) / "tokenizer.json").write_text("half")
        raise error

    monkeypatch.setattr(tiny.tokenizer, "save_pretrained", fail)
    with pytest.raises(RecordError) as caught:
        save_released(tiny.model, tiny.tokenizer, folder)
    assert str(caught.value) == f"{folder}: cannot be written: {error}; make room and run again"
    assert [path.name for path in folder.parent.iterdir()] == (["abc"] if before else [])
    if before:
        verify_folder(folder)


def test_a_folder_whose_manifest_was_not_reached_is_not_complete(released: Path) -> None:
    (released / MANIFEST).unlink()
    assert not is_complete(released)
    assert not is_complete(released / "nowhere")


def test_a_folder_that_another_process_completed_is_kept(
    tiny: LoadedTarget, released: Path, tiny_spec: TinyTarget
) -> None:
    weights, files = released / "model.safetensors", sorted(released.iterdir())
    before = weights.stat()
    with torch.no_grad():
        next(tiny.model.parameters()).add_(1)
    save_released(tiny.model, tiny.tokenizer, released)
    after = weights.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (sorted(released.iterdir()), list(released.parent.iterdir())) == (files, [released])
    verify_folder(released)


def test_a_folder_that_was_not_completed_is_replaced(tiny: LoadedTarget, released: Path) -> None:
    (released / MANIFEST).unlink()
    (released / "left_over").write_text("half")
    save_released(tiny.model, tiny.tokenizer, released)
    verify_folder(released)
    assert list(released.parent.iterdir()) == [released]


def test_a_folder_that_cannot_take_its_place_is_an_error(tiny: LoadedTarget, tmp_path: Path) -> None:
    folder = tmp_path / "abc"
    folder.write_text("a file")
    with pytest.raises(RecordError, match=r"abc: cannot be written: .*; make room and run again"):
        save_released(tiny.model, tiny.tokenizer, folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_target_names_the_device_that_it_is_on(tiny: LoadedTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiny.device_name == "cpu"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA Example {device.index}")
    away = replace(tiny, model=SimpleNamespace(device=torch.device("cuda", 1)))  # type: ignore[arg-type]
    assert away.device_name == "NVIDIA Example 1"


def test_a_local_folder_is_loaded_as_it_is_pinned(tiny: LoadedTarget, local: Path, tiny_spec: TinyTarget) -> None:
    target = pin(local, tiny_spec, system_prompt="Be kind.")
    found = load_folder(target)
    assert tensors_digest(found.model.state_dict()) == tensors_digest(tiny.model.state_dict())
    assert found.system_prompt == "Be kind."
    assert found.content_id == content_hash(target)


def test_a_pinned_file_that_is_missing(local: Path, tiny_spec: TinyTarget) -> None:
    target = pin(local, tiny_spec)
    (local / "config.json").unlink()
    with pytest.raises(ConfigError) as caught:
        load_folder(target)
    assert str(caught.value) == (
        f"target theirs: {local / 'config.json'} is missing; put the file there or mend `path`"
    )


def test_a_pinned_file_with_another_hash(local: Path, tiny_spec: TinyTarget) -> None:
    target = pin(local, tiny_spec)
    config = local / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(DataError) as caught:
        load_folder(target)
    pinned = target.sha256["config.json"]
    assert str(caught.value) == (
        f"target theirs: config.json should have sha256 {pinned}, got {sha256(config)}; pin what you mean"
    )


def test_a_file_that_is_not_pinned(local: Path, tiny_spec: TinyTarget) -> None:
    target = pin(local, tiny_spec)
    (local / "modeling_other.py").write_text("raise SystemExit")
    with pytest.raises(DataError) as caught:
        load_folder(target)
    assert str(caught.value) == (
        "target theirs: modeling_other.py is not pinned; list its sha256 or take the file away"
    )


def test_a_folder_without_what_a_model_needs(local: Path, tiny_spec: TinyTarget) -> None:
    (local / "model.safetensors").unlink()
    with pytest.raises(
        ConfigError, match=r"target theirs: cannot be loaded from .*theirs: .*; add the missing file"
    ) as caught:
        load_folder(pin(local, tiny_spec))
    assert "\n" not in str(caught.value)


def test_a_repository_that_cannot_be_had(tiny_spec: TinyTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise OSError("We couldn't connect to the hub.\nCheck your connection.")

    monkeypatch.setattr(load, "cached_file", lambda *args, **options: None)
    monkeypatch.setattr(load.AutoTokenizer, "from_pretrained", offline)
    plain = tiny_spec.model_dump(exclude={"kind", "seed"})
    target = HubTarget.model_validate(plain | {"kind": "hub", "model": "some/model", "revision": "0" * 40})
    with pytest.raises(DataError) as caught:
        load_pinned("theirs", target, artefact=None, cache=Path("unused"))
    assert str(caught.value) == (
        f"target theirs: some/model at {'0' * 40} cannot be had: We couldn't connect to the hub.; "
        "connect once, or pin a local copy as a folder"
    )


def test_a_target_without_a_chat_template(local: Path, tiny_spec: TinyTarget) -> None:
    (local / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError) as caught:
        load_folder(pin(local, tiny_spec))
    assert str(caught.value) == (
        "target theirs: has no chat template; name a chat model, or add the template to its tokenizer"
    )


def test_a_gguf_target_that_was_not_fetched(tiny_spec: TinyTarget, tmp_path: Path) -> None:
    target = GgufTarget.model_construct(
        kind="gguf", dtype="float32", pre_tokenizer="default", shape=tiny_spec.shape, source=None, system_prompt=None
    )
    with pytest.raises(DataError) as caught:
        load_pinned("some_model", target, artefact=None, cache=tmp_path)
    assert str(caught.value) == ("target some_model: its GGUF file was not fetched; run `robustlab fetch some_model`")


def test_the_tokenizer_alone_is_that_of_the_target(tiny: LoadedTarget, tiny_spec: TinyTarget) -> None:
    found = load_tokenizer("tiny", tiny_spec, artefact=None, cache=Path("unused"))
    assert found.get_vocab() == tiny.tokenizer.get_vocab()
    assert found.chat_template == tiny.tokenizer.chat_template


def test_progress_bars_of_transformers_are_as_they_were(released: Path, tiny_spec: TinyTarget) -> None:
    from transformers.utils import logging

    was = logging.is_progress_bar_enabled()
    load_released("tiny", tiny_spec, released, content_id="c0ffee")
    assert logging.is_progress_bar_enabled() == was


def test_dtype_is_the_spec_s(released: Path, tiny_spec: TinyTarget) -> None:
    half = tiny_spec.model_copy(update={"dtype": "bfloat16"})
    assert load_released("tiny", half, released, content_id="c0ffee").model.dtype is torch.bfloat16
