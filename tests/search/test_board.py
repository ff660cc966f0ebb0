"""The board, and who is ahead on it."""

from pathlib import Path

from robustlab.search.board import Board, find_best
from tests.search.conftest import make_finding, make_point


def test_what_is_posted_is_read(tmp_path: Path) -> None:
    board = Board(tmp_path / "board.jsonl")
    assert board.read() == []
    first = make_finding(0, 0.25, direction="low", rungs={2: 0.75, 4: 0.5})
    second = make_finding(1, None, around=0, state="diverged", step=3, point=make_point(rank=None))
    board.post([first])
    board.post([first, second])
    assert board.read() == [first, second]
    assert len((tmp_path / "board.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "board.jsonl").stat().st_mode & 0o777 == 0o600


def test_only_a_finished_trial_can_be_the_best() -> None:
    states = ("pruned", "failed", "diverged", "destructive", "unfinished")
    lost = [make_finding(number, 0.0, state=state) for number, state in enumerate(states)]
    assert find_best(lost) is None
    assert find_best([*lost, make_finding(9, 0.9)]) == make_finding(9, 0.9)


def test_of_equals_the_shorter_wins_and_then_the_earlier() -> None:
    findings = [make_finding(0, 0.5), make_finding(1, 0.25, step=16), make_finding(2, 0.25, step=8)]
    assert find_best(findings) == findings[2]
    assert find_best([*findings, make_finding(3, 0.25, step=8)]) == findings[2]
    assert find_best([]) is None
