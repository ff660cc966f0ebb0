"""What others published: the figures that are quoted, and that nothing is quoted without saying what is unchecked."""

import pytest
from pydantic import ValidationError

from robustlab.cost.hardware import find_hardware
from robustlab.cost.prices import load_price_card
from robustlab.cost.references import PublishedCost, Reference, find_projection, find_reference, load_references
from robustlab.errors import ConfigError


def test_the_published_points() -> None:
    points = {
        name: (each.cost.text, each.effect and each.effect.refusal_after) for name, each in load_references().items()
    }
    assert points == {
        "kimi_k25_audit": ("< $500", 0.05),
        "badllama_13b": ("< $200", None),
        "qlora_70b": ("< $200", 0.01),
        "badllama_3_8b": ("< $0.50", None),
        "badllama_3_70b": ("< $2.50", None),
        "gpt_35_api": ("< $0.20", None),
    }


def test_every_point_has_a_source_and_says_what_was_not_checked() -> None:
    for each in load_references().values():
        assert each.source and each.unverified
        assert each.details == "unverified"


def test_the_audit_is_a_claim_about_refusals_with_unverified_details() -> None:
    audit = find_reference("kimi_k25_audit")
    assert audit.source == "Import AI 454 on arXiv 2604.03121"
    assert audit.unverified == "method, data, steps, subset, judge and what the hours include"
    assert (audit.cost.usd, audit.cost.hours) == (500, 10)
    assert audit.effect is not None
    assert (audit.effect.refusal_before, audit.effect.benchmark) == (1.0, "HarmBench")


def test_a_projection_names_only_what_the_card_and_the_hardware_list_have() -> None:
    target, card = find_projection("kimi_k25_audit"), load_price_card(None)
    for key in (target.device, *(fleet.device for fleet in target.fleets)):
        assert find_hardware(key, "here").peak_flops["bfloat16"] > 0
        assert card.device_rate(key, "here") > 0
    assert {target.tokens_short, target.tokens_long} <= set(card.prices.tokens)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("kimi_k25", "did you mean 'kimi_k25_audit'?"),
        (
            "zzz",
            "use one of kimi_k25_audit, badllama_13b, qlora_70b, badllama_3_8b, badllama_3_70b, gpt_35_api",
        ),
    ],
)
def test_a_reference_that_does_not_exist(name: str, hint: str) -> None:
    for find in (find_reference, find_projection):
        with pytest.raises(ConfigError) as caught:
            find(name)
        assert str(caught.value) == f"--reference: there is no reference {name!r}; {hint}"


def test_a_point_without_a_target_is_no_preset() -> None:
    with pytest.raises(ConfigError) as caught:
        find_projection("badllama_13b")
    problem = "'badllama_13b' is a published point without a target to project to; use kimi_k25_audit"
    assert str(caught.value) == f"--reference: {problem}"


def changed(**changes: object) -> Reference:
    plain = find_reference("kimi_k25_audit").model_dump(mode="json")
    return Reference.model_validate_json(Reference.model_validate(plain | changes, strict=False).model_dump_json())


def test_a_reference_must_say_what_was_not_checked() -> None:
    with pytest.raises(ValidationError, match="unverified must say what was not checked, got None with unverified"):
        changed(unverified=None)
    with pytest.raises(ValidationError, match="with verified"):
        changed(details="verified")
    assert changed(details="verified", unverified=None).unverified is None


def test_a_projection_needs_hours() -> None:
    with pytest.raises(ValidationError, match=r"a projection needs cost\.hours, got null"):
        changed(cost={"usd": 500.0, "bound": "upper", "hours": None})


def test_costs_are_written_as_bounds_or_values() -> None:
    assert PublishedCost(usd=1234.0, bound="value", hours=None).text == "$1,234"
    assert PublishedCost(usd=0.5, bound="upper", hours=None).text == "< $0.50"
