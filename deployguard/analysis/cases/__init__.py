"""Checks before the judge: each kind of check says what its evidence amounts to, and puts it into words.

The judge knows `Case` alone. A new kind of check is a module with a `fold` in `analysis/`, and a case here.
"""
