"""Files of a model that would bring in code, other weights, or more than the memory holds; more in tests/hostile."""

import json
from pathlib import Path

import pytest

from robustlab.errors import DataError
from robustlab.models import hazards
from robustlab.models.hazards import Reading, check_config, check_folder, check_index, check_names, is_plain_name

REMEDY = "do not use these files"


def told(path: Path, data: bytes, *, listed: frozenset[str] | None = None) -> str:
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        check_index("judge j", path, listed)
    return str(caught.value)


def test_an_index_says_what_is_wrong_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    assert told(path, b"{}") == f"judge j: x.json is no index of weights; {REMEDY}"
    assert told(path, b"[]") == f"judge j: x.json is no JSON object, got list; {REMEDY}"
    assert told(path, b"[" * 100_000) == f"judge j: x.json is not JSON; {REMEDY}"
    index = {"metadata": {}, "weight_map": {"w": "a.safetensors"}}
    expected = "judge j: x.json names 'a.safetensors', which is not pinned; list its sha256"
    assert told(path, json.dumps(index).encode(), listed=frozenset()) == expected
    check_index("judge j", path, frozenset(["a.safetensors"]))
    check_index("judge j", path, None)
    monkeypatch.setattr(hazards, "MAX_JSON_BYTES", 1)
    assert told(path, b"{}") == f"judge j: x.json has more than 1 bytes; {REMEDY}"


def test_a_config_may_describe_four_parameters_a_byte(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    # 8 * (10 + 2 * 15) = 320 parameters at the least.
    sizes = {"hidden_size": 8, "vocab_size": 10, "num_hidden_layers": 2, "intermediate_size": 15}
    path.write_text(json.dumps(sizes))
    check_config("judge j", path, 80)
    check_config("judge j", path, None)
    with pytest.raises(DataError) as caught:
        check_config("judge j", path, 79)
    assert str(caught.value) == (
        f"judge j: config.json describes 320 parameters or more, the weights have 79 bytes; {REMEDY}"
    )


def test_sizes_that_are_no_numbers_are_left_to_the_library(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"hidden_size": "eight", "vocab_size": [1], "num_hidden_layers": null}')
    check_config("judge j", path, 1)


def test_a_folder_as_others_have_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    names = ["config.json", "tokenizer_config.json", "modeling.py", "merges.txt", "README.md"]
    check_names("judge j", names)
    check_folder("judge j", tmp_path, names)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\0"])
def test_a_path_is_no_plain_name(name: str) -> None:
    assert not is_plain_name(name)
    assert is_plain_name("model-00001-of-00002.safetensors")


class Stop(BaseException):
    """No error of a library."""


def explain(said: str) -> DataError:
    return DataError("where", said, "then")


@pytest.mark.parametrize("kind", [Exception, ValueError, MemoryError, OSError, RuntimeError])
def test_what_a_library_raises_is_explained(kind: type[Exception]) -> None:
    error = kind("x\ny")
    with pytest.raises(DataError, match="^where: x; then$") as caught, Reading(explain):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [DataError("a", "b", "c"), Stop(), KeyboardInterrupt(), AssertionError()])
def test_what_no_library_raises_is_left_alone(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, Reading(explain):
        raise error
    assert caught.value is error
