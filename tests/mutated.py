"""Bytes with a few of them changed, as a fault or an attacker would."""

import random

__all__ = ["mutated"]


def mutated(data: bytes, numbers: random.Random) -> bytes:
    """Return ``data`` with 1 to 20 places overwritten, cut off, inserted, or made a very large or small number."""
    changed = bytearray(data)
    for _ in range(numbers.choice([1, 1, 3, 20])):
        at = numbers.randrange(len(changed) or 1)
        match numbers.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([numbers.randrange(256)])
            case 1:
                del changed[at:]
            case 2:
                changed[at:at] = numbers.randbytes(numbers.randrange(1, 9))
            case _:
                changed[at : at + 4] = numbers.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
        if not changed:
            break
    return bytes(changed)
