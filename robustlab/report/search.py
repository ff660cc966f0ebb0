"""What a search found, in rows and lines: its trials, the winner on both sets of rows, and both of its prices.

Knows the contract of ``results.json`` only; printing and HTML are ``tables``' and ``html``'s.
"""

from collections import Counter

from robustlab.record.results import PropertyResult, SearchResult, TrialResult
from robustlab.report.wording import describe_cap, format_rate, format_share
from robustlab.units import format_count, format_usd

TRIAL_COLUMNS = ("Trial", "Direction", "Recipe", "Point", "State", "Steps", "Engaged", "Attacker paid")
NOT_MEASURED = "not measured"


def search_title(search: SearchResult) -> str:
    """Name a search, with what ended it and how its trials did."""
    states = Counter(trial.state for trial in search.trials)
    told = ", ".join(f"{count} {state}" for state, count in states.items()) or "none begun"
    ended = "all were run" if search.stopped_by == "trials" else f"ended by {describe_cap(search.stopped_by)}"
    return f"{search.strategy.capitalize()} search on {search.objective}: {len(search.trials)} trials ({told}), {ended}"


def trial_rows(search: SearchResult) -> list[tuple[str, ...]]:
    """List every trial under ``TRIAL_COLUMNS``: the share of select rows that it got engaged with, and what it cost."""
    return [_trial_row(trial, trial.number == search.winner) for trial in search.trials]


def search_lines(search: SearchResult) -> list[str]:
    """Say what was found, both figures side by side, and both prices; each line stands for itself."""
    caps = ", ".join(f"{name} {format_share(share)}" for name, share in search.caps_used.items())
    spent = f"All trials and their measurements: {format_usd(search.cost_to_find.micro_usd)} of the attacker"
    lines = [f"{spent}; caps used: {caps}" if caps else spent]
    winner = next((trial for trial in search.trials if trial.number == search.winner), None)
    if winner is None:
        return [*lines, "No winner: no trial was finished that left a working model. This is a result."]
    lines.append(f"Winner: trial {winner.number}, {winner.attack} with {describe_point(winner)}, in search/winner.yaml")
    found = search.select
    lines.append(f"Refusal on the {search.select_role} rows, chosen as the best: {_rate(found)}")
    label = f"Refusal on the {search.report_role} rows"
    lines += [f"{label}, trained again with seed {each.seed}: {_rate(each.refusal)}" for each in search.report]
    if search.cost_to_replay_micro_usd is not None:
        prices = (search.cost_to_find.micro_usd, search.cost_to_replay_micro_usd)
        to_find, to_replay = (format_usd(price) for price in prices)
        lines.append(f"Cost to find it: {to_find}; cost to replay it: {to_replay}, the mean over {_seeds(search)}")
    if search.select_role == search.report_role:
        lines.append("The set has no roles: the winner was confirmed on the rows by which it was chosen")
    return lines


def describe_point(trial: TrialResult) -> str:
    """Write what a trial chose, such as ``learning rate 0.001, rank 8``."""
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in trial.point.items())


def _trial_row(trial: TrialResult, is_winner: bool) -> tuple[str, ...]:
    around = "" if trial.around is None else f", around trial {trial.around}"
    reason = "" if trial.reason is None else f": {trial.reason}"
    return (
        f"{trial.number}{' (winner)' if is_winner else ''}",
        f"{trial.direction or '-'}{around}",
        trial.attack,
        describe_point(trial),
        f"{trial.state}{reason}",
        format_count(trial.step),
        "-" if trial.value is None else format_share(1 - trial.value),
        format_usd(trial.attacker_micro_usd),
    )


def _rate(found: PropertyResult | None) -> str:
    return NOT_MEASURED if found is None else f"{format_rate(found)} of {found.n}"


def _seeds(search: SearchResult) -> str:
    count = len(search.report)
    return f"{count} seed{'' if count == 1 else 's'}"
