"""The worked examples of docs/statistics.md for signals other than counts: histograms, events, gauges, shares, noise, averages."""

from __future__ import annotations

import math

import pytest

from deployguard.analysis import arms, beta, bets, counters, dispersion, eprocess, events, share, signs, tilts
from deployguard.model.evidence import Block, Happened, Split, Spread, Tallies
from deployguard.model.reading import Counter


def close(found: list[float], expected: list[float]) -> None:
    assert found == pytest.approx(expected, abs=1e-9)


def test_w3_histogram() -> None:
    """Three polls of a histogram with four buckets give the printed distribution, factors and evidence of the twelve tilts."""
    past: Tallies
    edges, past = (0.1, 0.25, 0.5), (600.0, 260.0, 110.0, 30.0)
    canary = [(10, 8, 4, 3), (9, 7, 5, 4), (8, 9, 7, 6)]
    stable = [(286, 121, 52, 16), (283, 125, 56, 16), (285, 118, 52, 15)]
    close(list(tilts.scores(edges, 4)), [-2.995732274, -1.844439727, -1.039720771, 0.0])
    close(tilts.share_of(past), [0.599580503, 0.259988014, 0.110167799, 0.030263684])
    first = [1.123250343, 2.512893574, -1.337150095, -61.524916423, 1.919213774, -2.045850698, 1.167268578, 0.965975996, 0, 0, 0, 0]
    close(tilts.tilt_factors(canary[0], stable[0], past, edges, tilts.REFERENCE), first)
    process, found, weights = eprocess.start(12, late_onset=False), [], tilts.REFERENCE.weight
    for mine, theirs in zip(canary, stable, strict=True):
        process = eprocess.play(process, tilts.tilt_factors(mine, theirs, past, edges, tilts.REFERENCE), weights, 10)
        past = counters.added(past, theirs)
        found.append(eprocess.log_value(process, weights))
    close(found, [0.995207720, 3.946768432, 10.463336043])


def test_w4_events() -> None:
    """Events per instance-second: the closed form for a constant share, and the grid for exposures that change."""
    close(
        [beta.log_share(c1, c0, 0.05, 4, 0.05, above=True) for c1, c0 in ((1, 3), (3, 5), (5, 6))], [0.600094685, 2.892322910, 6.028875718]
    )
    polls = [((1, 60), (0, 540)), ((2, 60), (1, 540)), ((1, 120), (0, 480))]
    for ratio, expected in ((1.0, [1.606047149, 3.735033801, 5.123402256]), (1.25, [1.407596210, 3.164373597, 4.378388665])):
        process, found = eprocess.start(6, late_onset=False), []
        for mine, theirs in polls:
            factors = events.event_factors(Happened(*mine), Happened(*theirs), bets.REFERENCE, ratio)
            process = eprocess.play(process, factors, bets.REFERENCE.weight, 10)
            found.append(eprocess.log_value(process, bets.REFERENCE.weight))
        close(found, expected)


def test_w5_sign_betting() -> None:
    """Six blocks of a gauge, of which one was not worse; eight worse ones in a row pass a hundred, and seven do not."""
    process, found = None, []
    for worse in (True, True, False, True, True, True):
        process = signs.signed(process, worse=worse)
        found.append(eprocess.log_value(process, signs.WEIGHTS))
    close(found, [0.604315967, 1.216898901, -0.744720514, -0.221850226, 0.307845889, 0.844792238])
    process, values = None, []
    for _ in range(8):
        process = signs.signed(process, worse=True)
        values.append(math.exp(eprocess.log_value(process, signs.WEIGHTS)))
    assert values[6:] == pytest.approx([79.939121, 152.907574], abs=1e-6)


def test_w8_share() -> None:
    """A candidate that was given a twentieth and gets less and less of it is found out from below."""
    counts = [(12, 488), (20, 980), (30, 1970)]
    both = [share.log_evidence(mine, theirs, 0.05, 1.25) for mine, theirs in counts]
    close([up for up, _ in both], [-3.607994461, -4.359495958, -5.145200542])
    close([down for _, down in both], [-0.182430234, 3.968191992, 18.601722169])
    values = [math.exp(share.value_of(Split(0.05, mine, theirs), 1.25)) for mine, theirs in counts]
    assert values == pytest.approx([0.430174, 26.450803, 5.992324e7], rel=2e-6)


def test_w10_dispersion() -> None:
    """Four polls of three instances give the printed sums and their ratio."""
    totals = [(100, 100, 120), (90, 110, 100), (100, 100, 100), (110, 95, 105)]
    bad = [(0, 5, 1), (1, 0, 0), (0, 0, 6), (2, 1, 0)]
    spread = Spread()
    for n, e in zip(totals, bad, strict=True):
        parts = [Counter(*both) for both in zip(e, n, strict=True)]
        spread = dispersion.spread_after(spread, parts, counters.summed(parts))
    assert (spread.num, spread.den, spread.free) == pytest.approx((41.493457, 10.502915, 7), abs=1e-6)
    assert dispersion.phi_of(spread.num, spread.den, spread.free, 5, 2) == pytest.approx(3.950661, abs=1e-6)


def test_w12_average() -> None:
    """The weighted average of three signals, as the judge forms it from logarithms."""
    signals = [math.log(w) + math.log(e) for w, e in ((0.25, 423799.779017), (0.25, 0.9), (0.5, 1.0))]
    assert math.exp(eprocess.log_sum(signals)) == pytest.approx(105950.669754, abs=1e-6)


def test_rare_errors_are_events() -> None:
    """Where errors are rare a block of requests is worth what a poll of events is worth, with the requests as exposure."""
    th0, grid = 1e-9, bets.REFERENCE
    block = Block(2000, 3, 38000, 4)
    found = arms.worse_factors(block, th0, grid, 1.25, 0.0)

    assert found == pytest.approx(events.event_factors(Happened(3, 2000), Happened(4, 38000), grid, 1.25), abs=1e-4)
