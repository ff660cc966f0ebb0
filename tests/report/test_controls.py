"""What the controls showed, in words."""

from types import SimpleNamespace

from robustlab.report.controls import control_lines, is_changed


def test_a_control_that_shows_nothing_is_not_read_as_a_change(synthetic: SimpleNamespace) -> None:
    control = {"cell_id": "c0ffee000003", "identical": False, "steps": 0, "compared": 3}
    (line,) = control_lines(synthetic.results(synthetic.broken_cell(), controls={"odd": control}))
    assert line == "Control odd: took no step and shows nothing (3 completions compared)"
    incomplete = synthetic.control_cell(status="incomplete", stopped_by="laboratory.max_usd")
    results = synthetic.results(incomplete, controls={"odd": {**control, "steps": 4}})
    assert control_lines(results) == [
        "Control synthetic_1b / refusal_sft / control / seed 0: not measured in full after 4 steps, which shows "
        "nothing (3 completions compared)"
    ]
    assert not is_changed(results, results.controls["odd"])
