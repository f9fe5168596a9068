"""Deliberate mistakes in the mathematics, each with a test that must notice: tests that nobody has seen fail prove nothing."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import msgspec

from deployguard.analysis import arms, categories, counters, counts, eprocess, events, gauges, strata
from deployguard.analysis.bets import settled
from deployguard.model.evidence import Happened
from deployguard.model.reading import Counter
from tests.unit import test_categories, test_counting, test_enumeration, test_gauges, test_guarantee, test_noise

FAR = dt.datetime.max.replace(tzinfo=dt.UTC)
Check = Callable[[], None]


def _unprojected(w: float, th1: float, th0: float, rho: float) -> float:
    return th0


def _peeking(stratum: Any) -> Any:
    after, ripe = _closed(stratum)
    return after, tuple(strata.Ripe(block, settled(block.e1 + block.e0, block.n1 + block.n0)) for block, _ in ripe)


def _reset(evidence: Any, *args: Any, changed: bool, **kwargs: Any) -> Any:
    return _counted(msgspec.structs.replace(evidence, worse=None) if changed else evidence, *args, changed=changed, **kwargs)


def _own_noise(evidence: Any, *args: Any, **kwargs: Any) -> Any:
    return _counted(msgspec.structs.replace(evidence, spread=args[-1]), *args, **kwargs)


def _raised(log_factors: Sequence[float], dispersion: float, cap: float | None) -> Sequence[float]:
    return [max(f, math.log(cap)) for f in log_factors] if cap else [f / dispersion for f in log_factors]


def _lasting(process: Any, *args: Any) -> Any:
    return msgspec.structs.replace(_play(process, *args), rest=process.rest)


def _zeroed(old: Mapping[str, Any], now: dict[str, Any], unread: tuple[str, ...]) -> dict[str, Any]:
    return {**{uid: Counter(0.0, 0.0) for uid in unread if uid in old}, **now}


def _always_warm(last: Any, arm: str, now: Any, born: Any, began: dt.datetime, warm: dt.datetime) -> Any:
    return _tallied(last, arm, now, born, began, FAR)


def _nominal(mine: Happened, theirs: Happened, grid: Any, ratio: float) -> list[float]:
    return _event_factors(Happened(mine.events, 1.0), Happened(theirs.events, 1.0), grid, ratio)


def _intolerant(block: Any, th0: float, grid: Any, ratio: float, margin: float) -> list[float]:
    return _worse_factors(block, th0, grid, 1.0, 0.0)


_closed, _counted, _play, _tallied, _event_factors, _worse_factors = (
    strata.closed,
    counts._counted,
    eprocess.play,
    counters.tallied,
    events.event_factors,
    arms.worse_factors,
)

MUTANTS: dict[str, tuple[list[Any], Check]] = {
    "no projection onto the null": (
        [mock.patch.object(arms, "without_margin", _unprojected)],
        lambda: test_enumeration.test_two_arms(1.25, 0.0, None),
    ),
    "a tolerance that is forgotten": (
        [mock.patch.object(categories, "worse_factors", _intolerant)],
        test_enumeration.test_marked_tails,
    ),
    "bets that look into the block": (
        [mock.patch.object(strata, "closed", _peeking)],
        lambda: test_guarantee.test_piles_keep_the_guarantee(test_guarantee.CONSTANT, test_guarantee.LATE),
    ),
    "bad requests judged by the share of the polls before": (
        [mock.patch.object(strata, "_good", return_value=False)],
        lambda: test_guarantee.test_piles_keep_the_guarantee(test_guarantee.RISING, test_guarantee.LATE),
    ),
    "evidence that starts anew with a stage": (
        [mock.patch.object(counts, "_counted", _reset)],
        lambda: test_guarantee.test_piles_keep_the_guarantee(test_guarantee.CONSTANT, test_guarantee.LATE),
    ),
    "dispersion ignored": (
        [mock.patch.object(counts, "tempered", lambda factors, *_: factors)],
        test_guarantee.test_clumps_keep_the_guarantee,
    ),
    "dispersion of the poll itself": (
        [mock.patch.object(counts, "_counted", _own_noise)],
        test_noise.test_what_a_poll_says_of_the_noise_tempers_the_next_one_alone,
    ),
    "a cap that raises": (
        [mock.patch.object(eprocess, "tempered", _raised)],
        lambda: test_enumeration.test_two_arms(1.0, 0.0, 3.0),
    ),
    "a floor that does not hold": (
        [mock.patch.object(counts, "evidence_of", return_value=math.inf)],
        lambda: test_guarantee.test_the_floor_keeps_the_guarantee((0.1, 0.02)),
    ),
    "late capital that does not get less": (
        [mock.patch.object(eprocess, "play", _lasting)],
        lambda: test_enumeration.test_several_blocks_with_late_onset(True, 1.0),
    ),
    "exposure ignored": (
        [mock.patch.object(events, "event_factors", _nominal)],
        lambda: test_enumeration.test_events(1.0),
    ),
    "warm-up of a histogram ignored": (
        [mock.patch.object(categories, "tallied", _always_warm)],
        test_categories.test_warm_up_is_left_out,
    ),
    "warm-up of a gauge ignored": (
        [mock.patch.object(gauges, "_warm", lambda reading, _: reading.by_instance)],
        test_gauges.test_warm_up_delays_the_first_block,
    ),
    "an instance that does not answer counted as zero": (
        [mock.patch.object(counts, "kept", _zeroed)],
        test_counting.test_an_instance_that_comes_and_one_that_does_not_answer,
    ),
}


@contextlib.contextmanager
def mutant(name: str) -> Iterator[Check]:
    """While this lasts, the mathematics makes the mistake `name`; the test that must notice."""
    patches, check = MUTANTS[name]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield check
