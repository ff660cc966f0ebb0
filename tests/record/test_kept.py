"""When something that was kept must be gone."""

from datetime import UTC, datetime

import pytest

from robustlab.errors import CustodyError
from robustlab.record.custody import Artefact
from robustlab.record.kept import has_expired

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def artefact(expires: str | None) -> Artefact:
    return Artefact("adapters/a.sealed", "0" * 64, "kept", None, "an audit", expires)


@pytest.mark.parametrize(
    ("expires", "gone"),
    [("2026-11-22T12:00:00+00:00", True), ("2026-11-22T12:00:01+00:00", False), (None, False)],
)
def test_it_is_gone_from_its_moment_on(expires: str | None, gone: bool) -> None:
    assert has_expired(artefact(expires), NOW) == gone


@pytest.mark.parametrize("expires", ["soon", "2026-11-22T12:00:00"])
def test_a_crafted_end_is_an_error_of_the_audit(expires: str) -> None:
    with pytest.raises(CustodyError) as error:
        has_expired(artefact(expires), NOW)
    assert str(error.value) == (
        f"adapters/a.sealed: expires at what is no moment, got {expires!r}; do not trust this run; remove its folder"
    )
