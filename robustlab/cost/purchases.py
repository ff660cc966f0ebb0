"""What an amount buys: devices for some hours, hours of some devices, tokens at a price or by their operations.

Exact and not rounded. This module does not know prices, nor who published the amount.
"""

from fractions import Fraction

from robustlab.cost.prices import NS_PER_HOUR, TOKENS_PER_RATE, price_device_time, price_flops
from robustlab.units import Flops


def lora_flops(active: int) -> Flops:
    """FLOPs of one token of low-rank training without attention and adapter: 4N, see ``robustlab.cost.flops``."""
    return Flops(4 * active)


def trainer_overcount(parameters: int, active: int) -> Fraction:
    """How many times too high a trainer's ``total_flos`` is for low-rank training: 6 x all parameters against 4N."""
    return Fraction(6 * parameters, lora_flops(active))


def million_tokens_usd(
    active: int, *, peak_flops: int, utilisation: Fraction, usd_per_device_hour: Fraction
) -> Fraction:
    """US dollars of a million tokens of low-rank training, by their operations.

    Args:
        active: Parameters that are active for one token.
        peak_flops: Dense peak of one device, operations a second.
        utilisation: Share of the peak that is reached, in (0, 1].
        usd_per_device_hour: Rate of one device.

    Returns:
        Exact; attention and adapter left out.
    """
    flops = lora_flops(active) * TOKENS_PER_RATE
    return price_flops(flops, peak_flops=peak_flops, utilisation=utilisation, usd_per_device_hour=usd_per_device_hour)


def tokens_for(usd: Fraction, usd_per_million: Fraction) -> Fraction:
    """Tokens that an amount buys at a price per million."""
    return usd / usd_per_million * TOKENS_PER_RATE


def fleet_usd(devices: int, hours: Fraction, usd_per_device_hour: Fraction) -> Fraction:
    """US dollars of some devices for some hours."""
    return price_device_time(devices * NS_PER_HOUR, usd_per_device_hour) * hours


def hours_until(usd: Fraction, devices: int, usd_per_device_hour: Fraction) -> Fraction:
    """Hours after which some devices have cost an amount."""
    return usd / (devices * usd_per_device_hour)


def most_devices(usd: Fraction, hours: Fraction, usd_per_device_hour: Fraction) -> int:
    """The most devices that an amount pays for over some hours; 0 when it does not pay for one."""
    return int(usd / (hours * usd_per_device_hour))
