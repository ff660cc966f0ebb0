"""A dozen critical points at which a run is killed and gone on with; `make faults` does the same at all of them.

One process loads the libraries, every run is forked from it. The killed run must end as the undisturbed one did, byte
for byte, and pay for what it did twice and for nothing else: ``tests.faults.evidence`` says how that is compared.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robustlab.engine import baseline
from robustlab.failpoints import NAMES
from robustlab.report import html
from tests.faults.campaign import Fault, Undisturbed, disturb, prepare
from tests.faults.child import run, warm_up
from tests.faults.evidence import Evidence, find_differences, list_places, read_evidence, units_of, without
from tests.faults.workplace import NAME, make_cells

CRITICAL = (
    "run.session_begun:1",  # nothing but a plan
    "baseline.kept:1",  # paid for, cached, and known to no cell
    "journal.record_written:70",  # a charge that nobody was told of
    "transcript.written:4",  # text on the disk that custody does not know to stay
    "store.announced:2",  # custody knows of a state that is not there
    "state.staged:3",  # a state without its name
    "state.named:4",  # a state that nobody was told of
    "state.removed:2",  # a state that is gone, and custody does not know
    "store.saved:5",  # one state more than are kept
    "cell.items_written:1",  # half of a cell's record
    "cell.result_written:1",  # a finished cell with its states
    "run.results_written:1",  # a record without its seal
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    """A run that nothing disturbed, and this process warmed up for those that are."""
    kept = baseline.secrets, html.render_report
    mask = os.umask(0o077)
    root = tmp_path_factory.mktemp("kill_points")
    warm_up(make_cells(root / "warm"))
    yield prepare("cells", root / "undisturbed")
    os.umask(mask)
    vars(baseline)["secrets"], html.render_report = kept


def test_the_undisturbed_run_ends_by_its_steps_and_by_its_tokens(undisturbed: Undisturbed) -> None:
    cells = undisturbed.evidence.results["cells"]
    assert [(cell["status"], cell["stopped_by"]) for cell in cells] == [
        ("done", "max_steps"),
        ("done", "max_train_tokens"),
    ]
    assert find_differences(undisturbed.evidence, undisturbed.evidence, 0) == []
    assert {point.partition(":")[0] for point in CRITICAL} <= NAMES.keys()


@pytest.mark.parametrize("point", CRITICAL)
def test_a_run_killed_at_a_critical_point_ends_as_if_it_had_not_been(
    point: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    verdict = disturb(Fault("cells", (point,)), undisturbed, tmp_path)
    assert (verdict.kills, verdict.faults) == (1, ())


def test_a_run_killed_again_while_it_goes_on_survives_too(undisturbed: Undisturbed, tmp_path: Path) -> None:
    fault = Fault("cells", ("state.named:5", "journal.record_ready:9", "store.saved:1"), torn=9)
    verdict = disturb(fault, undisturbed, tmp_path)
    assert (verdict.kills, verdict.faults) == (3, ())


def skip_the_generator() -> None:
    """A trainer that does not put its generator back."""
    from robustlab.train.trainer import MeteredTrainer

    whole = MeteredTrainer.training_step

    def forgetful(self: Any, *args: Any, **options: Any) -> Any:
        self.resume = None
        return whole(self, *args, **options)

    MeteredTrainer.training_step = forgetful  # type: ignore[method-assign]


def test_what_a_broken_resume_does_is_seen(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """The comparison is worth something: a resume that forgets the state of the generator does not pass."""
    place = make_cells(tmp_path)
    assert run(place, point="state.named:3").killed
    assert run(place, "resume", NAME, "--runs", "runs", within=skip_the_generator).code == 0
    faults = find_differences(read_evidence(place.folder), undisturbed.evidence, 1)
    assert "a modification that was saved is another" in faults
    assert any(fault.startswith("results.json: /cells/0/losses/") for fault in faults)


def test_what_is_lost_or_paid_twice_is_seen(undisturbed: Undisturbed) -> None:
    whole = undisturbed.evidence
    missing = next(n for n, record in enumerate(whole.records) if units_of([record]))
    cut = Evidence(whole.folder, whole.records[:missing] + whole.records[missing + 1 :], whole.results)
    assert "process 1 did not do what the undisturbed run did" in find_differences(cut, whole, 0)
    twice = Evidence(whole.folder, [*whole.records, whole.records[missing]], whole.results)
    assert "process 1 did not do what the undisturbed run did" in find_differences(twice, whole, 0)


def test_documents_are_compared_place_by_place() -> None:
    ours, theirs = {"a": [{"b": 1, "cost": 2}], "c": 1}, {"a": [{"b": 2, "cost": 3}], "c": 1.0}
    assert list_places(without(ours, {"cost"}), without(theirs, {"cost"})) == ["/a/0/b", "/c"]
    assert list_places({"a": 1}, {"b": 1}) == ["/"]
