"""What the controls showed, in words: whether the training loop at learning rate 0 changed a completion."""

from robustlab.record.results import Control, Results
from robustlab.report.wording import cell_title
from robustlab.units import format_count


def control_lines(results: Results) -> list[str]:
    """Say for each control whether its completions are byte-identical to the baseline's."""
    lines = [
        f"Control {_control_name(results, key, control)}: {_control_outcome(results, control)} "
        f"({format_count(control.compared)} completions compared)"
        for key, control in results.controls.items()
    ]
    return lines or ["No control was run: nothing here shows that the training loop alone changes no completion"]


def is_changed(results: Results, control: Control) -> bool:
    """Whether a control changed completions; one that took no step, or was not measured in full, shows nothing."""
    return not (control.identical or control.steps == 0 or _is_incomplete(results, control))


def _control_name(results: Results, key: str, control: Control) -> str:
    """Title of a control's cell; the key, which may name no budget, only where the results lack the cell."""
    cell = next((each for each in results.cells if each.cell_id == control.cell_id), None)
    return key if cell is None else cell_title(results, cell)


def _control_outcome(results: Results, control: Control) -> str:
    steps = f"{format_count(control.steps)} step{'' if control.steps == 1 else 's'}"
    if control.steps == 0:
        return "took no step and shows nothing"
    if control.identical:
        return f"byte-identical to the baseline after {steps}"
    if is_changed(results, control):
        return f"NOT byte-identical to the baseline after {steps}"
    return f"not measured in full after {steps}, which shows nothing"


def _is_incomplete(results: Results, control: Control) -> bool:
    return any(cell.cell_id == control.cell_id and cell.status == "incomplete" for cell in results.cells)
