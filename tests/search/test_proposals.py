"""What is proposed next: by one sampler, or by workers that read the board."""

import pytest

from robustlab.search.board import Finding
from robustlab.search.proposals import draw_point, find_better, propose, vary_point
from robustlab.search.space import Point, Region, narrow_region
from robustlab.spec.search import Search
from tests.search.conftest import make_direction, make_finding, make_point, make_region, make_search

WHOLE = {"first": make_region("first"), "second": make_region("second")}
GENTLE = make_direction("gentle", learning_rate=(1e-4, 1e-3), rank=(4,))
HARSH = make_direction("harsh", attack="second", learning_rate=(1e-3, 1e-2), rank=(16,))
NARROW = {each.name: narrow_region(WHOLE[each.attack], each) for each in (GENTLE, HARSH)}
GENTLE_POINT = make_point(learning_rate=3e-4, rank=4)
HARSH_POINT = make_point(attack="second", learning_rate=3e-3, rank=16)


def directed(**changes: object) -> Search:
    return make_search(strategy="directed", directions=(GENTLE, HARSH), **changes)


def of(direction: str, trial: int, value: float | None, **changes: object) -> Finding:
    point = GENTLE_POINT if direction == "gentle" else HARSH_POINT
    return make_finding(trial, value, **{"direction": direction, "point": point, **changes})


def test_equal_findings_and_seeds_give_equal_points() -> None:
    regions = list(WHOLE.values())
    findings = [make_finding(n, n / 10, point=draw_point(regions, [], seed=n, startup=2)) for n in range(8)]
    drawn = [draw_point(regions, findings, seed=seed, startup=2) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert draw_point(regions, findings, seed=1, startup=99) != drawn[0]  # past the start-up the findings count


def test_points_lie_in_their_regions() -> None:
    regions = [make_region("first"), make_region("second", rank=None, benign_share=None)]
    drawn = [draw_point(regions, [], seed=seed, startup=2) for seed in range(40)]
    assert {point.attack for point in drawn} == {"first", "second"}
    assert all(any(region.holds(point) for region in regions) for point in drawn)


def test_the_sampler_learns_where_low_values_are() -> None:
    # What is under 1e-3 is worth 0.1, what is above it 0.9: in log space that is half of the region.
    region = make_region()
    findings: list[Finding] = []
    for number in range(24):
        point = draw_point([region], findings, seed=number, startup=6)
        value = 0.1 if (point.learning_rate or 0) < 1e-3 else 0.9
        findings.append(make_finding(number, value, point=point))
    late = [finding.value for finding in findings[12:]]
    assert late.count(0.1) >= 9


def test_the_sampler_keeps_away_from_what_diverged() -> None:
    region = make_region()
    lost = [make_finding(n, None, state="diverged", point=make_point(learning_rate=5e-3 + n * 1e-4)) for n in range(10)]
    kept = [make_finding(n, 0.5, point=make_point(learning_rate=2e-4 + n * 1e-5)) for n in range(10, 14)]
    drawn = [draw_point([region], [*lost, *kept], seed=seed, startup=2).learning_rate or 0 for seed in range(10)]
    assert sum(rate < 2e-3 for rate in drawn) >= 8


@pytest.mark.parametrize("state", ["pruned", "unfinished", "failed", "destructive"])
def test_every_kind_of_ending_can_be_told(state: str) -> None:
    rungs = {2: 0.5} if state == "pruned" else {}
    findings = [make_finding(n, None, state=state, rungs=rungs) for n in range(4)]
    assert make_region().holds(draw_point([make_region()], findings, seed=0, startup=1))


def test_an_undirected_search_draws_from_everything() -> None:
    search = make_search(seed=5)
    proposal = propose(search, WHOLE, {}, [make_finding(0)])
    assert (proposal.direction, proposal.around) == (None, None)
    assert proposal.point == draw_point(list(WHOLE.values()), [make_finding(0)], seed=6, startup=2)


def test_workers_take_turns_in_their_own_directions() -> None:
    findings: list[Finding] = []
    for number in range(4):
        proposal = propose(directed(), WHOLE, NARROW, findings)
        assert proposal.direction == ("gentle", "harsh")[number % 2] and proposal.around is None
        assert NARROW[proposal.direction].holds(proposal.point)
        findings.append(make_finding(number, 0.5, direction=proposal.direction, point=proposal.point))


def test_a_worker_learns_from_its_own_findings_only() -> None:
    own = [of("gentle", 0, 0.5), of("gentle", 2, 0.4)]
    others = [of("harsh", 1, 0.5), of("harsh", 3, 0.4)]
    alone = draw_point([NARROW["gentle"]], own, seed=4, startup=2)
    findings = [own[0], others[0], own[1], others[1]]
    assert propose(directed(), WHOLE, NARROW, findings).point == alone
    # Another worker's variation counts for that worker, also where it lies in this one's direction.
    findings[3] = of("harsh", 3, 0.4, around=2, point=make_point(learning_rate=1e-4, rank=4))
    assert propose(directed(), WHOLE, NARROW, findings).point == alone


def test_a_worker_leaves_when_another_direction_is_clearly_better() -> None:
    # gentle has 0.9 and 0.8; harsh 0.71 is lower by 0.09, 0.69 by 0.11.
    close = [of("gentle", 0, 0.9), of("harsh", 1, 0.9), of("gentle", 2, 0.8), of("harsh", 3, 0.71)]
    assert find_better("gentle", close) is None
    clear = [*close[:3], of("harsh", 3, 0.69)]
    assert find_better("gentle", clear) == clear[3]
    assert find_better("harsh", clear) is None
    proposal = propose(directed(), WHOLE, NARROW, clear)
    assert (proposal.direction, proposal.around, proposal.point.attack) == ("gentle", 3, "second")
    assert proposal.point not in [finding.point for finding in clear]


def test_a_worker_stays_until_it_has_two_findings_of_its_own() -> None:
    assert find_better("gentle", [of("gentle", 0, 0.9), of("harsh", 1, 0.1)]) is None


def test_a_worker_that_has_nothing_finished_leaves() -> None:
    lost = [of("gentle", 0, None, state="diverged"), of("harsh", 1, 0.95), of("gentle", 2, None, state="destructive")]
    assert find_better("gentle", lost) == lost[1]
    assert find_better("gentle", [lost[0], lost[2]]) is None


def test_a_worker_that_left_stays_at_home_every_other_turn() -> None:
    away = of("gentle", 4, 0.95, around=3, point=make_point(attack="second"))
    findings = [
        of("gentle", 0, 0.9), of("harsh", 1, 0.9), of("gentle", 2, 0.8), of("harsh", 3, 0.3), away, of("harsh", 5, 0.3),
    ]  # fmt: skip
    home = propose(directed(), WHOLE, NARROW, findings)
    assert (home.direction, home.around) == ("gentle", None) and NARROW["gentle"].holds(home.point)
    findings += [make_finding(6, 0.85, direction="gentle", point=home.point), of("harsh", 7, 0.3)]
    assert propose(directed(), WHOLE, NARROW, findings).around == 3


def test_what_a_worker_found_elsewhere_is_not_its_directions_own() -> None:
    away = of("gentle", 4, 0.35, around=3, point=make_point(attack="second"))
    findings = [of("gentle", 0, 0.9), of("harsh", 1, 0.9), of("gentle", 2, 0.8), of("harsh", 3, 0.3), away]
    assert find_better("gentle", findings) == findings[3]  # 0.3 is far under the 0.8 that it has at home
    best = of("gentle", 4, 0.1, around=3, point=make_point(attack="second"))
    assert find_better("gentle", [*findings[:4], best]) is None  # its own variation leads: there is nobody to follow


def test_variations_are_near_new_and_within_the_region() -> None:
    region, point = make_region(), make_point(learning_rate=9e-3, rank=16, benign_share=0.6, steps=8)
    varied = [vary_point(point, region, [point], seed=seed) for seed in range(30)]
    assert all(region.holds(each) and each != point for each in varied)
    assert {each.rank for each in varied} == {8, 16} and {each.steps for each in varied} == {8, 16}
    assert all(2e-3 < (each.learning_rate or 0) <= 1e-2 for each in varied)
    assert vary_point(point, region, [], seed=1) == vary_point(point, region, [], seed=1)


def test_a_variation_leaves_alone_what_is_not_varied() -> None:
    region = Region("first", make_region(rank=None, benign_share=None, steps=None).ranges)
    point = Point("first", learning_rate=1e-3)
    varied = vary_point(point, region, [point], seed=0)
    assert (varied.rank, varied.benign_share, varied.steps) == (None, None, None)
    assert varied.learning_rate != 1e-3


def test_a_variation_is_none_of_the_points_that_were_tried() -> None:
    region = make_region(learning_rate=None, benign_share=None)
    near = [Point("first", rank=rank, steps=steps) for rank in (4, 8, 16) for steps in (8, 16)]
    for left in near:
        tried = [point for point in near if point != left]
        assert vary_point(Point("first", rank=8, steps=8), region, tried, seed=0) == left


def test_a_used_up_region_still_gives_a_point() -> None:
    single = make_region(learning_rate=None, benign_share=None, rank=(4,), steps=(8,))
    point = Point("first", rank=4, steps=8)
    assert vary_point(point, single, [point], seed=0) == point
