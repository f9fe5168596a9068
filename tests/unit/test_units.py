"""Durations and shares, as people write them."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.model.units import format_duration, format_share, parse_duration, parse_share


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172800),
        ("366d", 31622400),
    ],
)
def test_a_duration_is_numbers_with_units(text: str, seconds: float) -> None:
    """Units add up, and spaces between them do not matter."""
    assert parse_duration(text) == dt.timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a duration; write a number with ms, s, m, h or d"),
        ("5", "is not a duration"),
        ("-5m", "is not a duration"),
        ("5 minutes", "is not a duration"),
        ("m5", "is not a duration"),
        ("1e3s", "is not a duration"),
        ("5:30", "write `5m30s`, or `5h30m` if hours were meant"),
        ("0.1ms", "is shorter than a millisecond; write at least `1ms`"),
        ("367d", "is longer than a year; write at most `366d`"),
        ("9" * 400 + "d", "is longer than a year"),
    ],
)
def test_a_wrong_duration_says_what_would_be_right(text: str, says: str) -> None:
    """The message shows the text and the way to write it."""
    with pytest.raises(ValueError, match=r"is not a|is shorter|is longer") as caught:
        parse_duration(text)
    assert says in str(caught.value)


@given(st.integers(min_value=0, max_value=366 * 86_400_000))
def test_a_printed_duration_reads_back_equal(milliseconds: int) -> None:
    """`format_duration` loses nothing down to the millisecond."""
    value = dt.timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (0.25, "250ms"), (1.5, "1.5s"), (60, "1m"), (61.5, "1m1.5s"), (90000, "1d1h")])
def test_a_duration_is_printed_short(seconds: float, text: str) -> None:
    """Whole units are used where there are any."""
    assert format_duration(dt.timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("written", "fraction"), [("25%", 0.25), ("0.02%", 0.0002), (" 5 %", 0.05), ("100%", 1.0), (0.25, 0.25), (0, 0.0), (1, 1.0)]
)
def test_a_share_is_a_percentage_or_a_fraction(written: str | float, fraction: float) -> None:
    """Both ways of writing a share give the fraction."""
    assert parse_share(written) == fraction


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("25", "write a percentage such as `25%`"),
        ("x%", "is not a share"),
        ("150%", "`150%` is outside 0% to 100%"),
        (25, "25 is more than the whole; write `25%` if per cent was meant"),
        (-0.1, "is outside 0% to 100%"),
        (float("nan"), "is outside 0% to 100%"),
    ],
)
def test_a_wrong_share_says_what_would_be_right(written: str | float, says: str) -> None:
    """A number above one is taken as a forgotten per cent sign."""
    with pytest.raises(ValueError, match=r"share|whole|outside") as caught:
        parse_share(written)
    assert says in str(caught.value)


@given(st.floats(min_value=0, max_value=1))
def test_a_printed_share_reads_back_equal(fraction: float) -> None:
    """`format_share` loses nothing, whatever the fraction."""
    assert parse_share(format_share(fraction)) == fraction


@pytest.mark.parametrize(
    ("fraction", "text"), [(0, "0%"), (0.25, "25%"), (0.0002, "0.02%"), (0.99, "99%"), (1, "100%"), (1e-9, "0.0000001%")]
)
def test_a_share_is_printed_without_exponent(fraction: float, text: str) -> None:
    """Small shares are written out, as a person would."""
    assert format_share(fraction) == text
