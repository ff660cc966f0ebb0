"""Weights, adapters, configs and tokenizers from strangers: refused with one message, or loaded without any code."""

import hashlib
import io
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from robustlab.models import load
from robustlab.models.load import load_pinned, load_weights
from robustlab.spec.judges import FolderWeights
from robustlab.spec.targets import FolderTarget, HubTarget, TinyTarget
from tests.hostile.conftest import Room

REVISION = "0" * 40
TRAP = "import os, pathlib; pathlib.Path(os.environ['HOSTILE_SENTINEL']).write_text('ran')"


class Trap:
    """What a pickle can do to whoever opens it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, (TRAP,))


@pytest.fixture(scope="session")
def honest(new_tiny: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny target in the format of transformers."""
    folder = tmp_path_factory.mktemp("honest") / "model"
    tiny = new_tiny()
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(honest: Path, room: Room) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(honest, room.work / "model"))


def pin(folder: Path, spec: TinyTarget, **more: str) -> FolderTarget:
    pinned = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*") if path.is_file()}
    plain = spec.model_dump(exclude={"kind", "seed"})
    return FolderTarget.model_validate(plain | {"kind": "folder", "path": str(folder), "sha256": pinned | more})


def opened(target: FolderTarget, cache: Path = Path("unused")) -> Any:
    return load_pinned("theirs", target, artefact=None, cache=cache)


def change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def header(shapes: object, data: bytes = b"\0" * 16, *, length: int | None = None) -> bytes:
    text = shapes if isinstance(shapes, bytes) else json.dumps(shapes).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def test_the_honest_folder_is_loaded(room: Room, folder: Path, tiny_spec: TinyTarget) -> None:
    with room.watched():
        found = opened(pin(folder, tiny_spec))
    assert found.tokenizer.chat_template


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "weights.PKL", "adapter_model.bin", "m.ckpt", "t.npz"]
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_pickle_among_the_weights(room: Room, folder: Path, tiny_spec: TinyTarget, name: str, alone: bool) -> None:
    (folder / name).write_bytes(pickle.dumps(Trap()))
    if alone:
        (folder / "model.safetensors").unlink()
    target = pin(folder, tiny_spec)
    assert room.refused(lambda: opened(target)) == (
        f"target theirs: {name} is a pickle by its name, which can run code; take it away, and keep the weights as "
        "safetensors"
    )


def torch_zip() -> bytes:
    kept = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, kept)
    return kept.getvalue()


def trapped_zip() -> bytes:
    """What torch.load takes for weights, with a pickle that runs code."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
        archive.writestr("archive/version", "3")
    return packed.getvalue()


TENSOR = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
BROKEN_WEIGHTS: dict[str, Callable[[], bytes]] = {
    "a pickle under the name of safetensors": lambda: pickle.dumps(Trap()),
    "an archive of pickles under the name of safetensors": trapped_zip,
    "sound safetensors with an archive of pickles behind them": lambda: header({"w": TENSOR}) + trapped_zip(),
    "weights of torch.save under the name of safetensors": torch_zip,
    "a header of 2^63 bytes": lambda: header(b"{}", length=1 << 63),
    "a header of 4 GiB": lambda: header(b"{}", length=1 << 32),
    "a header longer than the file": lambda: header(b"{}", length=10_000),
    "an empty file": lambda: b"",
    "offsets behind the end": lambda: header({"w": TENSOR | {"data_offsets": [0, 1 << 40]}}),
    "offsets below zero": lambda: header({"w": TENSOR | {"data_offsets": [-16, 0]}}),
    "offsets turned round": lambda: header({"w": TENSOR | {"data_offsets": [16, 0]}}),
    "tensors on top of each other": lambda: header({"a": TENSOR, "b": TENSOR}),
    "a gap between tensors": lambda: header({"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}),
    "a shape whose product overflows": lambda: header({"w": TENSOR | {"shape": [1 << 40, 1 << 40]}}),
    "a shape of a million axes": lambda: header({"w": TENSOR | {"shape": [1] * 100_000 + [5]}}),
    "two tensors of one name": lambda: header(
        b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    ),
    "a type that there is not": lambda: header({"w": TENSOR | {"dtype": "PICKLE"}}),
    "a header nested 100,000 deep": lambda: header(b'{"a":' * 100_000),
    "a header that is not UTF-8": lambda: header(b"\xff\xfe{}"),
    "metadata that is no text": lambda: header({"__metadata__": {"format": {"a": 1}}, "w": TENSOR}),
}


@pytest.mark.parametrize("name", BROKEN_WEIGHTS)
def test_weights_that_are_none(room: Room, folder: Path, tiny_spec: TinyTarget, name: str) -> None:
    (folder / "model.safetensors").write_bytes(BROKEN_WEIGHTS[name]())
    target = pin(folder, tiny_spec)
    message = room.refused(lambda: opened(target))
    assert message.startswith("target theirs: ")
    assert len(message) < 600


def test_metadata_of_a_million_entries_is_only_text(room: Room, folder: Path, tiny_spec: TinyTarget) -> None:
    metadata = {f"k{number}": "<script>" for number in range(100_000)} | {"format": "pt"}
    save_file({"w": torch.zeros(4)}, folder / "model.safetensors", metadata=metadata)
    target = pin(folder, tiny_spec)
    with room.watched():
        opened(target)


ADAPTERS = {
    "a repository": "somebody/else",
    "a folder above": "../elsewhere",
    "an absolute path": "/etc",
    "nothing": None,
}


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("has_base", [True, False])
def test_an_adapter_that_points_elsewhere(
    room: Room, folder: Path, tiny_spec: TinyTarget, name: str, has_base: bool
) -> None:
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": ADAPTERS[name],
        "auto_mapping": {"base_model_class": "Trap", "parent_library": "trap"},
        "r": 1,
        "target_modules": ["q_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"w": torch.zeros(1)}, folder / "adapter_model.safetensors")
    if not has_base:
        (folder / "config.json").unlink()
    assert room.refused(lambda: opened(pin(folder, tiny_spec))) == (
        "target theirs: adapter_config.json makes it an adapter, which brings in weights from elsewhere; merge the "
        "adapter into its base model and pin the result"
    )


INDEXES: dict[str, object] = {
    "a path upwards": {"metadata": {}, "weight_map": {"w": "../elsewhere.safetensors"}},
    "an absolute path": {"metadata": {}, "weight_map": {"w": "/etc/hostname.safetensors"}},
    "a folder below": {"metadata": {}, "weight_map": {"w": "sub/model.safetensors"}},
    "a path of another system": {"metadata": {}, "weight_map": {"w": "..\\elsewhere.safetensors"}},
    "a pickle": {"metadata": {}, "weight_map": {"w": "pytorch_model.bin"}},
    "a file that nobody pinned": {"metadata": {}, "weight_map": {"w": "other.safetensors"}},
    "a number": {"metadata": {}, "weight_map": {"w": 7}},
    "a NUL": {"metadata": {}, "weight_map": {"w": "a\0.safetensors"}},
    "a list": {"metadata": {}, "weight_map": ["model.safetensors"]},
    "no metadata": {"weight_map": {"w": "model.safetensors"}},
    "nothing": [],
}


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_that_names(room: Room, folder: Path, tiny_spec: TinyTarget, name: str) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (room.work / "elsewhere.safetensors").write_bytes((folder / "other.safetensors").read_bytes())
    (folder / "model.safetensors.index.json").write_text(json.dumps(INDEXES[name]))
    target = pin(folder, tiny_spec)
    pinned = {name: sha256 for name, sha256 in target.sha256.items() if name != "other.safetensors"}
    (folder / "other.safetensors").unlink()
    message = room.refused(lambda: opened(target.model_copy(update={"sha256": pinned})))
    assert message.startswith("target theirs: model.safetensors.index.json ")


def test_an_index_nested_100_000_deep(room: Room, folder: Path, tiny_spec: TinyTarget) -> None:
    (folder / "model.safetensors.index.json").write_text("[" * 100_000)
    assert "index.json is not JSON" in room.refused(lambda: opened(pin(folder, tiny_spec)))


@pytest.mark.parametrize("name", ["../elsewhere.json", "/etc/hostname", "sub/config.json", "..", ""])
def test_a_pin_that_is_a_path(room: Room, folder: Path, tiny_spec: TinyTarget, name: str) -> None:
    (room.work / "elsewhere.json").write_text("{}")
    target = pin(folder, tiny_spec, **{name: hashlib.sha256(b"{}").hexdigest()})
    assert room.refused(lambda: opened(target)) == (
        f"target theirs: {name!r} is no plain file name; name files of the folder itself"
    )


def test_a_link_that_is_turned_after_the_pin(room: Room, folder: Path, tiny_spec: TinyTarget) -> None:
    target = pin(folder, tiny_spec)
    (room.work / "elsewhere").write_text("{}")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(room.work / "elsewhere")
    assert "config.json should have sha256" in room.refused(lambda: opened(target))


def test_templates_that_no_hash_covers(room: Room, folder: Path, tiny_spec: TinyTarget) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "default.jinja").write_text("other")
    assert room.refused(lambda: opened(pin(folder, tiny_spec))) == (
        "target theirs: additional_chat_templates/ holds chat templates that no hash covers; keep one template, in the "
        "tokenizer's own files"
    )


AUTO_MAPS: dict[str, tuple[str, dict[str, Any]]] = {
    "a model of its own": ("config.json", {"model_type": "trap", "auto_map": {"AutoModelForCausalLM": "trap.Trap"}}),
    "a config of its own": ("config.json", {"model_type": "trap", "auto_map": {"AutoConfig": "trap.Trap"}}),
    "a model beside a known one": ("config.json", {"auto_map": {"AutoModelForCausalLM": "trap.Trap"}}),
    "a model in another repository": ("config.json", {"auto_map": {"AutoModelForCausalLM": "else/where--trap.Trap"}}),
    "a tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["trap.Trap", "trap.Trap"]}}),
    "a tokenizer of an unknown class": (
        "tokenizer_config.json",
        {"tokenizer_class": "Trap", "auto_map": {"AutoTokenizer": ["trap.Trap", None]}},
    ),
    "custom generation": ("generation_config.json", {"custom_generate": "else/where", "trust_remote_code": True}),
    "a quantiser": ("config.json", {"quantization_config": {"quant_method": "trap", "modules": ["trap"]}}),
}


@pytest.mark.parametrize("name", AUTO_MAPS)
def test_code_that_comes_with_a_model(room: Room, folder: Path, tiny_spec: TinyTarget, name: str) -> None:
    file, keys = AUTO_MAPS[name]
    change(folder / file, **keys)
    (folder / "trap.py").write_text(TRAP)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(TRAP)
    target = pin(folder, tiny_spec)
    message = room.outcome(lambda: opened(target))
    assert message is None or message.startswith("target theirs: cannot be loaded from")


def test_code_that_comes_with_a_judge(room: Room, folder: Path, tiny_spec: TinyTarget) -> None:
    change(folder / "config.json", model_type="trap", auto_map={"AutoConfig": "trap.Trap"})
    (folder / "trap.py").write_text(TRAP)
    pinned = pin(folder, tiny_spec).sha256
    weights = FolderWeights(kind="folder", path=str(folder), sha256=pinned, dtype="float32")
    assert "judge j: cannot be loaded from" in room.refused(lambda: load_weights("judge j", weights))


CONFIGS: dict[str, tuple[str, bytes | dict[str, Any]]] = {
    "a million layers": ("config.json", {"num_hidden_layers": 1_000_000}),
    "a width of 2^40": ("config.json", {"hidden_size": 1 << 40}),
    "a vocabulary of a billion": ("config.json", {"vocab_size": 1_000_000_000}),
    "a negative width": ("config.json", {"hidden_size": -8}),
    "text for a width": ("config.json", {"hidden_size": "eight"}),
    "a list": ("config.json", b"[]"),
    "100,000 brackets": ("config.json", b"[" * 100_000),
    "a number of 5,000 digits": ("config.json", b'{"hidden_size":' + b"9" * 5000 + b"}"),
    "a tokenizer of 100,000 brackets": ("tokenizer.json", b"[" * 100_000),
    "a tokenizer that is none": ("tokenizer.json", b"{}"),
    "an unpaired surrogate": ("tokenizer_config.json", b'{"tokenizer_class": "\\ud800"}'),
    "a tokenizer class of another module": ("tokenizer_config.json", {"tokenizer_class": "os.system"}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_with(room: Room, folder: Path, tiny_spec: TinyTarget, name: str) -> None:
    file, given = CONFIGS[name]
    if isinstance(given, bytes):
        (folder / file).write_bytes(given)
    else:
        change(folder / file, **given)
    target = pin(folder, tiny_spec)
    message = room.outcome(lambda: opened(target))
    assert message is None or (message.startswith("target theirs: ") and len(message) < 600)


@pytest.fixture
def hub(room: Room, honest: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in the hub's cache, as it lies there after a download."""
    from huggingface_hub import constants

    root = room.cache / "hub"
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(constants, name, str(root), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = root / "models--some--model" / "snapshots" / REVISION
    shutil.copytree(honest, snapshot)
    return snapshot


def from_hub(spec: TinyTarget) -> Any:
    plain = spec.model_dump(exclude={"kind", "seed"})
    target = HubTarget.model_validate(plain | {"kind": "hub", "model": "some/model", "revision": REVISION})
    return load_pinned("theirs", target, artefact=None, cache=Path("unused"))


def test_an_honest_repository_is_loaded(room: Room, hub: Path, tiny_spec: TinyTarget) -> None:
    with room.watched():
        assert from_hub(tiny_spec).tokenizer.chat_template


def test_a_repository_of_an_adapter(room: Room, hub: Path, tiny_spec: TinyTarget) -> None:
    (hub / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/etc", "peft_type": "LORA"}))
    assert room.refused(lambda: from_hub(tiny_spec)) == (
        "target theirs: some/model is an adapter, which brings in weights from elsewhere; merge the adapter into its "
        "base model and pin the result"
    )


def test_a_repository_whose_index_leads_out(room: Room, hub: Path, tiny_spec: TinyTarget) -> None:
    index = {"metadata": {}, "weight_map": {"w": "../../../../x.safetensors"}}
    (hub / "model.safetensors.index.json").write_text(json.dumps(index))
    assert room.refused(lambda: from_hub(tiny_spec)) == (
        "target theirs: model.safetensors.index.json names '../../../../x.safetensors', which is no safetensors file "
        "here; do not use these files"
    )


def test_a_repository_of_pickles(room: Room, hub: Path, tiny_spec: TinyTarget) -> None:
    (hub / "model.safetensors").unlink()
    (hub / "pytorch_model.bin").write_bytes(trapped_zip())
    assert "some/model at " in room.refused(lambda: from_hub(tiny_spec))


def test_a_repository_with_code(room: Room, hub: Path, tiny_spec: TinyTarget) -> None:
    change(hub / "config.json", model_type="trap", auto_map={"AutoConfig": "trap.T", "AutoModelForCausalLM": "trap.T"})
    (hub / "trap.py").write_text(TRAP)
    assert "some/model at " in room.refused(lambda: from_hub(tiny_spec))


def test_a_repository_with_numbers_beyond_memory(room: Room, hub: Path, tiny_spec: TinyTarget) -> None:
    change(hub / "config.json", num_hidden_layers=1 << 40)
    assert room.refused(lambda: from_hub(tiny_spec)) == (
        "target theirs: config.json states a num_hidden_layers beyond 2,147,483,648; do not use these files"
    )


def test_no_pickle_of_torch_is_needed_by_the_loader() -> None:
    assert not hasattr(load, "pickle")
