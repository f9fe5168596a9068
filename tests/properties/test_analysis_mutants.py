"""Each deliberate mistake in the mathematics is caught by a test that the product passes."""

from __future__ import annotations

import pytest

from tests.properties.analysis_mutants import MUTANTS, mutant


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mistake_is_caught(name: str) -> None:
    """The test passes with the mathematics as they are, and fails with this mistake in them."""
    MUTANTS[name][1]()

    with mutant(name) as check, pytest.raises(AssertionError):
        check()
