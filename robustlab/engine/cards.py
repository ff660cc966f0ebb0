"""Finds the price card that a run was priced with; whoever prices the run again or checks its money finds the same one.

It reads and never writes; no torch. It does not know how old a card may be (``robustlab.engine.prices``).
"""

import os
from pathlib import Path

from robustlab.cost.prices import PriceCard, load_price_card
from robustlab.engine.report import read_results
from robustlab.errors import ConfigError, RecordError
from robustlab.record.results import Results
from robustlab.record.run_folder import RunFolder, read_plain


def find_card(folder: RunFolder, results: Results | None) -> PriceCard:
    """Find a run's own card: its copy, or the packaged one for a run from before cards were copied.

    Args:
        folder: The run's folder.
        results: What the run wrote; None for a run that has not ended, which must hold a copy.

    Returns:
        The card; of a run that has ended, the one that its results name.

    Raises:
        ConfigError: If there is no such card.
        RecordError: If the copy is not a price card, or not a plain file.
    """
    has_copy = os.path.lexists(folder.prices)
    if results is None and not has_copy:
        problem = "is not there: money cannot be computed again"
        raise ConfigError(str(folder.prices), problem, "put the card that the run was priced with back")
    card = _load_copy(folder.prices) if has_copy else load_price_card(None)
    if results is not None and card.sha256 != results.price_card_sha256:
        named = f"the results name {results.price_card_sha256}: money cannot be computed again"
        remedy = "put the run's own card back, or price it anew with --prices"
        raise ConfigError(str(card.path), f"has sha256 {card.sha256}, {named}", remedy)
    return card


def find_card_of(runs: Path, run_id: str) -> PriceCard:
    """Find the card of a run by its id.

    Args:
        runs: Folder of runs.
        run_id: The run, finished or not.

    Returns:
        Its own card.

    Raises:
        ConfigError: If there is no such run or no such card.
        RecordError: If the run has ended and its record is not as the manifest says, or the copy is no price card.
    """
    folder = RunFolder.open(runs, run_id)
    return find_card(folder, read_results(runs, run_id)[1] if folder.is_finished else None)


def _load_copy(path: Path) -> PriceCard:
    # A pipe would be waited for, and what a person may mend in a card of his own is damage in a record.
    read_plain(path)
    try:
        return load_price_card(path)
    except ConfigError as error:
        problem = f"is not the card that the run was priced with: {error.problem}"
        raise RecordError(str(path), problem, "do not trust this run; repeat it") from None
