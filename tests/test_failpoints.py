"""Failpoints are spelled in the code as they are listed, and kill, count and list as the environment asks."""

import ast
import os
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import robustlab
from robustlab import failpoints
from robustlab.errors import ConfigError
from robustlab.failpoints import LOG, NAMES, POINT, arm, reach

PACKAGE = Path(robustlab.__file__).parent


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm({})


def reached_names() -> list[str]:
    """What every call of ``reach`` in the package passes."""
    calls = [
        node
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reach"
    ]
    return [ast.literal_eval(call.args[0]) for call in calls]


def test_every_listed_point_is_in_the_code_and_every_point_of_the_code_is_listed() -> None:
    assert sorted(set(reached_names())) == sorted(NAMES)
    assert len(NAMES) >= 50


@pytest.mark.parametrize("name", NAMES)
def test_a_point_has_an_area_and_a_meaning(name: str) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", name)
    assert NAMES[name]


def fate(environment: Mapping[str, str], *passed: str) -> int:
    """Exit code of a child that passes points, below 0 for a signal."""
    pid = os.fork()
    if pid == 0:
        arm(environment)
        for name in passed:
            reach(name)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_an_armed_point_kills_at_its_count_and_no_other_does() -> None:
    assert fate({}, "file.named", "file.named") == 0
    assert fate({POINT: "file.named"}, "file.begun") == 0
    assert fate({POINT: "file.named"}, "file.begun", "file.named") == -signal.SIGKILL
    assert fate({POINT: "file.named:2"}, "file.named") == 0
    assert fate({POINT: "file.named:2"}, "file.named", "file.begun", "file.named") == -signal.SIGKILL


def test_passed_points_are_listed_up_to_the_kill(tmp_path: Path) -> None:
    listed = tmp_path / "passed.txt"
    assert fate({LOG: str(listed)}, "file.begun", "file.named") == 0
    assert listed.read_text() == "file.begun\nfile.named\n"
    listed.unlink()
    fate({LOG: str(listed), POINT: "file.named"}, "file.begun", "file.named", "file.begun")
    assert listed.read_text() == "file.begun\nfile.named\n"


def test_an_unknown_point_and_a_count_that_is_none_are_refused() -> None:
    message = "ROBUSTLAB_FAILPOINT: names no failpoint, got 'file.lost'; take one that robustlab/failpoints.py lists"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        arm({POINT: "file.lost:2"})
    for count in ("", "0", "-1", "x", "²"):
        message = f"ROBUSTLAB_FAILPOINT: must count from 1, got {count!r}; write it as name:count"
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            arm({POINT: f"file.named:{count}"})


def test_arming_anew_takes_the_place_of_what_was_armed() -> None:
    arm({POINT: "file.named"})
    arm({})
    assert failpoints._watch is None
    reach("file.named")
