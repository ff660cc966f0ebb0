"""A run under a name: begun once, gone on with after that, and refused for another plan."""

from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustlab.cost.prices import load_price_card
from robustlab.engine import named
from robustlab.engine.held import describe_difference, read_plan
from robustlab.engine.launch import Launched, count_exactly, find_device
from robustlab.engine.named import launch_named
from robustlab.engine.resolve import resolve_plan
from robustlab.errors import ConfigError, RecordError
from robustlab.record.kept import ADAPTERS, TRANSCRIPTS, Area, Keeping, begin_keeping
from robustlab.record.run_folder import RunFolder
from robustlab.report.live import LiveLine
from robustlab.spec.loader import dump_yaml
from robustlab.spec.plan import Plan, ResolvedPlan

PLAN = Plan(
    kind="plan", targets=("tiny",), safeguards=("none",), attacks=("lora_sft_smoke",), budgets=("smoke",),
    evals=("smoke_refusal",), seeds=(0, 1),
)  # fmt: skip


def resolve(plan: Plan) -> ResolvedPlan:
    return resolve_plan(
        plan,
        card=load_price_card(None),
        device=find_device(),
        counter_of=count_exactly,
        data_csv=None,
        shadow_price=None,
    ).plan


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResolvedPlan:
    """The plan, resolved on this machine."""
    monkeypatch.setenv("ROBUSTLAB_CACHE", str(tmp_path / "cache"))
    return resolve(PLAN)


class Lab:
    """Launches named runs, with stand-ins for what would run models."""

    def __init__(self, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs, self.calls, self.said = runs, list[str](), StringIO()
        monkeypatch.setattr(named, "launch_plan", self._launch)
        monkeypatch.setattr(named, "resume_run", self._resume)
        monkeypatch.setattr(named, "read_results", self._read)

    def _launch(self, plan: Any, *, run_id: str, **given: Any) -> str:
        self.calls.append(f"launch {run_id}")
        self.keeping = given["keeping"]
        return "launched"

    def _resume(self, run_id: str, **given: Any) -> str:
        self.calls.append(f"resume {run_id}")
        return "resumed"

    def _read(self, runs: Path, run_id: str) -> tuple[Path, Any]:
        self.calls.append(f"read {run_id}")
        return runs / run_id, SimpleNamespace(run_id=run_id)

    def make(self, plan: ResolvedPlan | Plan | None, name: str = "sweep") -> RunFolder:
        folder = RunFolder.create(self.runs, name)
        if plan is not None:
            folder.plan.write_text(dump_yaml(plan), encoding="utf-8")
        return folder

    def launch(self, plan: Plan | ResolvedPlan = PLAN, name: str = "sweep", **changes: Any) -> Any:
        given = {"data_csv": None, "shadow_price": None, "card": load_price_card(None), **changes}
        return launch_named(plan, name, runs=self.runs, line=LiveLine(self.said), **given)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: ResolvedPlan) -> Lab:
    return Lab(tmp_path / "runs", monkeypatch)


def test_a_new_name_begins_a_run(lab: Lab) -> None:
    assert lab.launch() == "launched"
    assert lab.calls == ["launch sweep"]


@pytest.mark.parametrize("resolved", [False, True])
def test_the_same_plan_goes_on_where_it_was(lab: Lab, held: ResolvedPlan, resolved: bool) -> None:
    folder = lab.make(held)
    (folder.path / "cells").mkdir()
    (folder.path / "cells" / f"{held.cells[0].cell_id}.json").write_text("{}")
    assert lab.launch(held if resolved else PLAN) == "resumed"
    assert lab.calls == ["resume sweep"]
    assert "run sweep: 1 of 2 cells are done, going on\n" in lab.said.getvalue()


def test_a_finished_run_is_only_reported_again(lab: Lab, held: ResolvedPlan) -> None:
    folder = lab.make(held)
    folder.write_manifest()
    launched = lab.launch()
    assert isinstance(launched, Launched)
    assert (launched.folder, launched.results.run_id) == (folder, "sweep")
    assert lab.calls == ["read sweep"]


@pytest.mark.parametrize("finished", [False, True])
def test_another_plan_is_refused(lab: Lab, held: ResolvedPlan, finished: bool) -> None:
    folder = lab.make(held)
    if finished:
        folder.write_manifest()
    with pytest.raises(ConfigError) as caught:
        lab.launch(PLAN.model_copy(update={"seeds": (0, 7)}))
    assert str(caught.value) == (
        "run 'sweep': holds another plan: it has 2 cells, got 2, 1 of them not its own, such as tiny / none / "
        "lora_sft_smoke / seed 7; take another name, or go on with the plan that it holds by `robustlab resume sweep`"
    )
    assert lab.calls == []


def test_the_cells_decide_and_not_the_card_under_which_they_were_priced(lab: Lab, held: ResolvedPlan) -> None:
    lab.make(held.model_copy(update={"price_card_sha256": "0" * 64}))
    assert lab.launch() == "resumed"


def test_every_difference_is_named(held: ResolvedPlan) -> None:
    first, second = held.cells
    edited = first.model_copy(update={"schedule": first.schedule.model_copy(update={"steps": 9})})
    assert describe_difference(held, held.model_copy()) is None
    for changes, words in (
        ({"cells": (first,)}, "it has 2 cells, got 1, all of them its own"),
        ({"cells": (second, first)}, "it has 2 cells, got 2 in another order"),
        (
            {"cells": (edited, second)},
            "it has 2 cells, got 2, 1 of them not its own, such as tiny / none / lora_sft_smoke / seed 0, which it "
            "holds with another recipe, eval or schedule",
        ),
        ({"shadow_price": "h100_sxm"}, "its shadow_price is None, got 'h100_sxm'"),
        ({"data_csv": "/x.csv"}, "its data_csv is None, got '/x.csv'"),
        ({"devices": 8}, "its devices is 1, got 8"),
    ):
        assert describe_difference(held, held.model_copy(update=changes)) == words


KEEPING = Keeping(reason="to label", public_key="a key", expire_days=30)
FLAG = {TRANSCRIPTS: "--keep-transcripts", ADAPTERS: "--keep-adapter"}


def test_a_new_run_is_told_what_to_keep(lab: Lab) -> None:
    lab.launch()
    assert lab.keeping is None
    lab.launch(keeping={TRANSCRIPTS: KEEPING})
    assert lab.keeping == {TRANSCRIPTS: KEEPING}


@pytest.mark.parametrize("area", [TRANSCRIPTS, ADAPTERS])
@pytest.mark.parametrize("kept", [None, KEEPING.model_copy(update={"public_key": "another"})])
def test_a_run_goes_on_keeping_as_it_began(lab: Lab, held: ResolvedPlan, kept: Keeping | None, area: Area) -> None:
    folder = lab.make(held)
    if kept is not None:
        begin_keeping(folder, area, kept)
    with pytest.raises(ConfigError) as caught:
        lab.launch(keeping={area: KEEPING})
    assert str(caught.value) == (
        f"run 'sweep': keeps {area.name} otherwise than asked now, or none: another key, reason or expiry; "
        f"take another name, or leave {FLAG[area]} out to go on as is"
    )
    assert lab.calls == []
    assert lab.launch() == "resumed"
    assert kept is None or lab.launch(keeping={area: kept}) == "resumed"


def test_a_run_that_holds_a_search_is_another_plan(held: ResolvedPlan) -> None:
    search = held.model_copy(update={"search": "made up"})
    assert describe_difference(search, held) == "its cells are those of a search"
    assert describe_difference(held, search) == "its search is another, or none"
    assert describe_difference(search, search) is None


def test_a_folder_without_a_plan_is_begun(lab: Lab) -> None:
    folder = lab.make(None)
    with pytest.raises(ConfigError) as caught:
        read_plan(folder)
    assert str(caught.value) == (
        "run 'sweep': never began: it holds no plan.yaml; run the plan again with --as sweep, or take another name"
    )
    assert lab.launch() == "launched"


def test_a_folder_with_a_plan_of_ids_is_none_of_a_run(lab: Lab) -> None:
    folder = lab.make(PLAN)
    with pytest.raises(ConfigError) as caught:
        lab.launch()
    assert str(caught.value) == f"{folder.plan}: is no resolved plan, got kind 'plan'; take another name"


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-flag", "a/b", "a b", "ä", "x" * 65, "sweep\n"])
def test_what_is_no_name_is_refused(lab: Lab, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lab.launch(name=name)
    assert str(caught.value) == (
        f"run {name!r}: is not a run id; ids look like 20261122T021733Z-a1b2c3, or hold at most 64 letters, digits, "
        "dots, dashes, underscores"
    )
    assert lab.calls == []


@pytest.mark.parametrize("name", ["s", "Sweep.2_b-c", "7", "x" * 64])
def test_what_a_name_may_be(lab: Lab, name: str) -> None:
    assert lab.launch(name=name) == "launched"


def test_a_link_is_no_run(lab: Lab, tmp_path: Path, held: ResolvedPlan) -> None:
    lab.make(held, "other")
    (lab.runs / "sweep").symlink_to(lab.runs / "other")
    with pytest.raises(ConfigError, match="run 'sweep': is not in "):
        lab.launch()


def test_a_name_that_another_process_took_meanwhile_is_refused(lab: Lab) -> None:
    lab.make(None)
    with pytest.raises(RecordError, match="exists already; take another name"):
        RunFolder.create(lab.runs, "sweep")
