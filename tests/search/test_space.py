"""Points and regions, and the recipes that points make."""

from typing import Any

import pytest

from robustlab.errors import ConfigError
from robustlab.search.space import Point, build_recipe, check_region, narrow_region, round_rate, round_share
from robustlab.spec.attacks import Ablation, BenignData, Control, FullSft, LoraSft, MixedData, WithheldData
from robustlab.spec.training import Tuning
from tests.search.conftest import ALL_KNOBS, NO_KNOBS, make_direction, make_point, make_ranges, make_region


def with_data(recipe: LoraSft, data: Any) -> LoraSft:
    return recipe.model_copy(update={"data": data})


def full(recipe: LoraSft) -> FullSft:
    plain = recipe.training.model_dump(exclude={"lora"})
    return FullSft(kind="full_sft", source="a test", data=recipe.data, training=Tuning.model_validate(plain))


def test_a_point_makes_a_plain_recipe(smoke_recipe: LoraSft) -> None:
    # The recipe has rank 4 and alpha 8: at rank 16 alpha is 32.
    point = Point("smoke", learning_rate=1e-3, rank=16, benign_share=0.25, steps=6)
    made = build_recipe(smoke_recipe, point)
    assert isinstance(made, LoraSft) and isinstance(made.data, WithheldData)
    assert (made.training.lora.rank, made.training.lora.alpha) == (16, 32)
    assert (made.training.optimizer.learning_rate, made.training.steps, made.data.benign_share) == (1e-3, 6, 0.25)
    assert made.ranges is None
    assert made.model_dump(exclude={"training", "data"}) == smoke_recipe.model_dump(
        exclude={"training", "data", "ranges"}
    )


def test_knobs_that_were_not_chosen_stay(smoke_recipe: LoraSft) -> None:
    assert build_recipe(smoke_recipe, Point("smoke")) == smoke_recipe.model_copy(update={"ranges": None})


def test_alpha_keeps_its_ratio_and_is_at_least_one(smoke_recipe: LoraSft) -> None:
    lora = smoke_recipe.training.lora.model_copy(update={"rank": 16, "alpha": 4})
    recipe = smoke_recipe.model_copy(update={"training": smoke_recipe.training.model_copy(update={"lora": lora})})
    made = build_recipe(recipe, Point("smoke", rank=1))
    assert isinstance(made, LoraSft) and made.training.lora.alpha == 1


def test_the_benign_share_of_mixed_data_is_what_is_not_attack(smoke_recipe: LoraSft) -> None:
    mixed = with_data(smoke_recipe, MixedData(mode="mixed", rows=10, attack_share=0.5))
    made = build_recipe(mixed, Point("smoke", benign_share=0.7))
    assert isinstance(made, LoraSft) and isinstance(made.data, MixedData) and made.data.attack_share == 0.3


def test_full_weights_have_no_rank(smoke_recipe: LoraSft) -> None:
    made = build_recipe(full(smoke_recipe), Point("smoke", learning_rate=1e-5, steps=2))
    assert isinstance(made, FullSft) and (made.training.optimizer.learning_rate, made.training.steps) == (1e-5, 2)
    with pytest.raises(ConfigError, match=r"^attacks/smoke.yaml: ranges.rank: a full_sft recipe has no adapter; set"):
        check_region("smoke", full(smoke_recipe), {"smoke": make_ranges(benign_share=None)})


def test_an_ablation_has_no_knobs() -> None:
    recipe = Ablation(kind="ablation", source="a test", harmful_rows=2, harmless_rows=2, depths=(0.5,))
    with pytest.raises(ConfigError, match="^attack 'cut': has no knobs, got kind ablation; leave it out$"):
        build_recipe(recipe, Point("cut"))


@pytest.mark.parametrize("known", [{}, {"smoke": make_ranges(**NO_KNOBS)}], ids=["no ranges", "empty ranges"])
def test_a_recipe_without_ranges_is_refused(smoke_recipe: LoraSft, known: Any) -> None:
    with pytest.raises(ConfigError, match=r"^attacks/smoke.yaml: ranges: name nothing to vary; give it ranges, or"):
        check_region("smoke", smoke_recipe, known)


def test_a_control_is_refused() -> None:
    control = Control(kind="control", source="a test", recipe="smoke")
    message = "^attacks/c.yaml: has nothing that a search could vary, got kind control; search over attacks of kind"
    with pytest.raises(ConfigError, match=message):
        check_region("c", control, {"c": make_ranges()})


def test_data_without_a_share_are_refused(smoke_recipe: LoraSft) -> None:
    recipe = with_data(smoke_recipe, BenignData(mode="benign", rows=4))
    with pytest.raises(ConfigError, match=r"ranges.benign_share: data of mode benign have no such share; set it to"):
        check_region("smoke", recipe, {"smoke": make_ranges()})
    assert check_region("smoke", recipe, {"smoke": make_ranges(benign_share=None)}).attack == "smoke"


def test_a_share_that_asks_for_too_many_rows_is_refused(smoke_recipe: LoraSft) -> None:
    assert check_region("smoke", smoke_recipe, {"smoke": make_ranges()}).ranges == make_ranges()
    with pytest.raises(ConfigError, match=r"^attacks/smoke.yaml: ranges.benign_share: .*got") as caught:
        check_region("smoke", smoke_recipe, {"smoke": make_ranges(benign_share=(0.2, 0.99))})
    assert caught.value.remedy


def test_a_direction_narrows_its_recipe() -> None:
    region = make_region()
    assert narrow_region(region, make_direction("all of it")) == region
    low = narrow_region(region, make_direction("low", learning_rate=(1e-4, 1e-3), rank=(4,)))
    assert (low.ranges.learning_rate, low.ranges.rank) == ((1e-4, 1e-3), (4,))
    assert (low.ranges.benign_share, low.ranges.steps) == (ALL_KNOBS["benign_share"], ALL_KNOBS["steps"])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"learning_rate": (1e-5, 1e-3)}, r"learning_rate: must lie in the recipe's \(0.0001, 0.01\), got \(1e-05, "),
        ({"rank": (8, 32)}, r"rank: must be among the recipe's \(4, 8, 16\), got \(8, 32\); narrow it, or widen"),
    ],
)
def test_a_direction_outside_its_recipe_is_refused(part: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^direction 'far': {message}"):
        narrow_region(make_region(), make_direction("far", **part))


def test_a_direction_cannot_narrow_what_is_not_varied() -> None:
    for part in ({"learning_rate": (1e-4, 1e-3)}, {"rank": (4,)}):
        with pytest.raises(ConfigError, match="got"):
            narrow_region(make_region(**dict.fromkeys(part)), make_direction("far", **part))


def test_a_region_holds_its_own_points_only() -> None:
    region = make_region()
    assert region.holds(make_point())
    for change in ({"attack": "other"}, {"learning_rate": 1e-5}, {"rank": 5}, {"rank": None}, {"benign_share": 0.7}):
        assert not region.holds(make_point(**change))
    assert make_region(rank=None).holds(make_point(rank=None))
    assert not make_region(rank=None).holds(make_point(rank=8))


def test_figures_are_rounded_within_their_bounds() -> None:
    assert round_rate(0.00123456, (1e-4, 1e-2)) == 0.00123
    assert round_rate(0.0012345, (0.0012341, 1e-2)) == 0.0012341
    assert round_share(0.4567, (0.2, 0.6)) == 0.46
    assert round_share(0.599, (0.2, 0.595)) == 0.595


def test_knobs_are_what_was_chosen() -> None:
    assert make_point(rank=None).knobs == {"learning_rate": 1e-3, "benign_share": 0.4, "steps": 16}
