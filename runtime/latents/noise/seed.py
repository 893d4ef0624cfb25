"""Checks seeds."""

import operator

from ....engines.errors import UsageError
from ....engines.scalars import shortened

__all__ = ["LARGEST_SEED", "SMALLEST_SEED", "check_seed"]

SMALLEST_SEED = -(2**63)
LARGEST_SEED = 2**64 - 1


def check_seed(seed: object) -> int:
    """Return the seed as the unsigned 64-bit number that ``torch.Generator.manual_seed`` converts it to.

    torch takes -2**63 to 2**64 - 1 and wraps negative numbers around 2**64.

    Raises:
        UsageError: not a whole number, or out of that range.

    """
    try:
        number = operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(seed, bool):
        raise UsageError(f"seed: a seed is a whole number, not {shortened(seed)}")
    if not SMALLEST_SEED <= number <= LARGEST_SEED:
        raise UsageError(
            f"seed {shortened(number)} is out of range: seeds run from 0 to {LARGEST_SEED} (-1 means {LARGEST_SEED})"
        )
    return number % 2**64
