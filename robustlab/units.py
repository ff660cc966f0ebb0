"""The quantities that the lab counts and prices, and how they are written for people.

Integers everywhere: nanoseconds, tokens, FLOPs, millionths of a US dollar. This module does not know prices.
"""

from fractions import Fraction
from typing import NewType

MicroUsd = NewType("MicroUsd", int)
Nanoseconds = NewType("Nanoseconds", int)
Seconds = NewType("Seconds", float)
Tokens = NewType("Tokens", int)
Flops = NewType("Flops", int)

NS_PER_SECOND = 1_000_000_000
MICRO_PER_USD = 1_000_000


def usd_to_micro(usd: Fraction) -> MicroUsd:
    """Round an exact amount of US dollars up to whole millionths of a dollar."""
    return MicroUsd(-((-usd * MICRO_PER_USD) // 1))


def exact_usd(usd: float) -> Fraction:
    """Read a dollar figure as it was written: 0.1 becomes 1/10, not the nearest binary fraction."""
    return Fraction(str(usd))


def to_seconds(duration: Nanoseconds | int) -> Seconds:
    """Convert nanoseconds to seconds."""
    return Seconds(duration / NS_PER_SECOND)


def to_nanoseconds(seconds: float) -> Nanoseconds:
    """Convert seconds to whole nanoseconds."""
    return Nanoseconds(round(seconds * NS_PER_SECOND))


def format_usd(amount: MicroUsd | int) -> str:
    """Write an amount as ``$0.001033`` below a cent's precision, ``$12.35`` from a dollar up."""
    usd = amount / MICRO_PER_USD
    return f"${usd:,.2f}" if abs(usd) >= 1 else f"${usd:.6f}"


def format_seconds(seconds: float) -> str:
    """Write a duration as ``0.4 s``, ``42 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_count(count: int) -> str:
    """Write a count of tokens, steps or rows with thousands separators."""
    return f"{count:,}"


def format_flops(flops: Flops | int) -> str:
    """Write a count of floating-point operations with a decimal prefix: ``11.2 TFLOP``."""
    scaled, prefix = float(flops), ""
    for larger in "kMGTPEZY":
        if scaled < 999.5:
            break
        scaled, prefix = scaled / 1000, larger
    return f"{scaled:.3g} {prefix}FLOP"
