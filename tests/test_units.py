"""Quantities: exact sums inside, words for people outside."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.units import (
    MicroUsd,
    exact_usd,
    format_count,
    format_flops,
    format_seconds,
    format_usd,
    to_nanoseconds,
    to_seconds,
    usd_to_micro,
)


def test_a_dollar_figure_is_read_as_it_was_written() -> None:
    assert exact_usd(0.1) == Fraction(1, 10)
    assert exact_usd(1e-7) == Fraction(1, 10_000_000)
    # Ten dimes are a dollar, which binary fractions do not give.
    assert sum([exact_usd(0.1)] * 10) == 1


@pytest.mark.parametrize(
    ("usd", "micro"),
    [
        (Fraction(0), 0),
        (Fraction(1), 1_000_000),
        (Fraction(1, 3), 333_334),  # 333,333.33 goes up: a bill is never less than what was used
        (Fraction(1, 10_000_000), 1),
        (Fraction(-1, 3), -333_333),
    ],
)
def test_dollars_round_up_to_millionths(usd: Fraction, micro: int) -> None:
    assert usd_to_micro(usd) == micro


@settings(deadline=None)
@given(st.fractions(min_value=0, max_value=10**9))
def test_rounding_never_loses_and_never_adds_a_millionth(usd: Fraction) -> None:
    rounded = Fraction(usd_to_micro(usd), 1_000_000)
    assert usd <= rounded < usd + Fraction(1, 1_000_000)


def test_seconds_and_nanoseconds() -> None:
    assert to_seconds(1_500_000_000) == 1.5
    assert to_nanoseconds(0.25) == 250_000_000
    assert to_nanoseconds(to_seconds(123_456_789)) == 123_456_789


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "$0.000000"),
        (1_033, "$0.001033"),
        (999_999, "$0.999999"),
        (1_000_000, "$1.00"),
        (12_345_678, "$12.35"),
        (1_234_567_000_000, "$1,234,567.00"),
    ],
)
def test_money_is_written_for_people(micro: int, text: str) -> None:
    assert format_usd(MicroUsd(micro)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (0.44, "0.4 s"),
        (10.0, "10 s"),
        (42.4, "42 s"),
        (59.7, "1 min 00 s"),
        (185.0, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7620.0, "2 h 07 min"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("flops", "text"),
    [
        (0, "0 FLOP"),
        (999, "999 FLOP"),
        (1_000, "1 kFLOP"),
        (999_600, "1 MFLOP"),  # three digits of 999.6 k are 1000 k
        (11_200_000_000_000, "11.2 TFLOP"),
        (3_500_000_000_000_000_000_000, "3.5 ZFLOP"),
        (1_000_000_000_000_000_000_000_000, "1 YFLOP"),
    ],
)
def test_operations_are_written_for_people(flops: int, text: str) -> None:
    assert format_flops(flops) == text


def test_counts_get_thousands_separators() -> None:
    assert format_count(1_234_567) == "1,234,567"
