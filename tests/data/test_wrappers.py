"""Frames around requests: the request stands in them byte for byte, and the row stays the behavior that it is."""

from typing import get_args

import pytest
from pydantic import ValidationError

from robustlab.data.rows import load_eval_rows
from robustlab.data.wrappers import WRAPPERS
from robustlab.spec.catalog import load
from robustlab.spec.evals import RefusalEval, WrapperName


@pytest.fixture
def spec() -> RefusalEval:
    found = load("evals", "smoke_refusal")
    assert isinstance(found, RefusalEval)
    return found.model_copy(update={"by_category": False})


def test_every_kind_has_one_frame_with_its_source() -> None:
    assert set(WRAPPERS) == set(get_args(WrapperName))
    assert all(wrapper.text.count("{request}") == 1 and "arXiv" in wrapper.source for wrapper in WRAPPERS.values())


@pytest.mark.parametrize("name", sorted(WRAPPERS))
def test_a_request_stands_in_its_frame_as_it_is(spec: RefusalEval, name: WrapperName) -> None:
    plain = load_eval_rows(spec, data_csv=None)
    framed = load_eval_rows(spec.model_copy(update={"wrapper": name}), data_csv=None)
    before, after = WRAPPERS[name].text.split("{request}")
    assert [row.prompt for row in framed] == [before + row.prompt + after for row in plain]
    assert [row.text_sha256 for row in framed] == [row.text_sha256 for row in plain]
    assert [row.text for row in framed] == [row.text for row in plain]


def test_braces_in_a_request_are_left_alone() -> None:
    assert WRAPPERS["hypothetical"].wrap("What is {request} or {0}?").count("What is {request} or {0}?") == 1


@pytest.mark.parametrize(
    ("changes", "name"),
    [({}, "refusal"), ({"wrapper": "fiction"}, "wrapper/fiction"), ({"prefill": "Sure"}, "prefill")],
)
def test_the_property_is_named_for_what_is_measured(spec: RefusalEval, changes: dict[str, str], name: str) -> None:
    assert spec.model_copy(update=changes).property_id == name


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"wrapper": "fiction", "prefill": "Sure"}, "wrapper and prefill must not both be set, got both"),
        ({"prefill": "Sure", "by_category": True}, "by_category must be false for prefill, got true"),
        ({"prefill": " \n "}, "should match pattern"),
        ({"prefill": 201 * "a"}, "at most 200 characters"),
    ],
)
def test_an_eval_of_two_properties_is_refused(spec: RefusalEval, changes: dict[str, object], problem: str) -> None:
    plain = spec.model_dump(mode="json") | changes
    with pytest.raises(ValidationError, match=problem):
        RefusalEval.model_validate(plain, strict=False)


def test_what_is_null_does_not_change_the_hash_of_an_eval(spec: RefusalEval) -> None:
    assert not {"wrapper", "prefill"} & set(spec.model_dump(mode="json"))
