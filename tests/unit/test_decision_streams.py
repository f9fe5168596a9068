"""The decision benchmark measures what it says: floors, streams, the peers' clocks, the engine's adapter, and the rows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

np = pytest.importorskip("numpy", reason="the benchmarks' extra is not installed")
from benchmarks.decisions import before, floors, latency, real, rows, streams  # noqa: E402 - they need numpy
from benchmarks.decisions.engine import BARE, SHIPPED, Deployguard, bets_of  # noqa: E402
from benchmarks.decisions.peers.dkw import Bands  # noqa: E402
from benchmarks.decisions.peers.kayenta import Kayenta  # noqa: E402
from benchmarks.decisions.peers.sequential import LindonMalek, Oracle  # noqa: E402
from benchmarks.decisions.peers.tools import Argo, Flagger  # noqa: E402
from benchmarks.decisions.reference import ReferenceGRO  # noqa: E402
from benchmarks.decisions.streams import NEVER, Stream  # noqa: E402
from deployguard.engine.rules import rules_of  # noqa: E402

QUIET = Stream("test: quiet", 0.003, 0.003, 0.05, 50.0)


@pytest.mark.parametrize(
    ("share", "p0", "p1", "expected"),
    [
        (0.01, 0.001, 0.002, 1_206_153),
        (0.05, 0.001, 0.002, 254_305),
        (0.05, 0.001, 0.01, 7_495),
        (0.05, 0.001, 1.0, 24),
        (0.5, 0.01, 0.1, 205),
    ],
)
def test_floors_of_counts(share: float, p0: float, p1: float, expected: float) -> None:
    """The floors of docs/statistics.md, section 17, to a request."""
    assert floors.requests(p1, p0, share, 0.01) == pytest.approx(expected, abs=0.5)


def test_floors_with_tolerance() -> None:
    """A tolerance raises the floor, what it tolerates can never be found, and the floor of a union is that of its nearer part."""
    plain = floors.requests(0.01, 0.001, 0.05, 0.01)
    tolerant = floors.requests(0.01, 0.001, 0.05, 0.01, ratio=1.25, margin=0.0002)
    both = floors.requests(0.01, 0.001, 0.05, 0.01, ratio=1.25, margin=0.0002, floor=0.005)

    assert plain < tolerant < both
    assert both == pytest.approx(math.log(100) / (0.05 * floors.divergence(0.01, 0.005)))
    assert floors.requests(0.0012, 0.001, 0.05, 0.01, ratio=1.25) == math.inf


@pytest.mark.parametrize(
    ("lift", "share", "expected", "within"),
    [("all x2", 0.05, 118, 0.005), ("all x2", 0.5, 25, 0.02), ("all x1.2", 0.05, 1_547, 0.001), ("all x1.05", 0.5, 4_003, 0.02)],
)
def test_floors_of_latency(lift: str, share: float, expected: float, within: float) -> None:
    """The floors of latency shifts, by integration over the densities; fewer buckets need more requests."""
    found = floors.latency_requests(latency.LIFTS[lift], latency.STABLE_PARTS, share, 0.01)
    on_buckets = floors.bucket_requests(latency.LIFTS[lift], latency.STABLE_PARTS, latency.CLIENT_BOUNDS, share, 0.01)

    assert found == pytest.approx(expected, rel=within)
    assert found < on_buckets < 1.3 * found


def test_streams_are_the_same_for_every_rule() -> None:
    """The same name, seed and chunk give the same arrays; another chunk gives others."""
    first, again, other = (streams.make(QUIET, 5, 1, chunk) for chunk in (0, 0, 1))
    assert (first.n1 == again.n1).all()
    assert (first.history_e == again.history_e).all()
    assert not (first.n1 == other.n1).all()


def test_a_lost_scrape_is_made_up_for() -> None:
    """A poll that was lost shows nothing, and the next delta covers it: no request is lost but those after the last scrape."""
    found = streams.make(replace(QUIET, lost=0.3), 50, 1, 0)
    whole = streams.make(replace(QUIET, lost=1e-12), 50, 1, 0)

    assert (found.n1[~found.seen] == 0).all()
    assert 0.6 < found.seen.mean() < 0.8
    assert (found.n1.sum(axis=1) <= whole.n1.sum(axis=1)).all()
    assert found.n1.sum() == pytest.approx(whole.n1.sum(), rel=0.01)
    assert (found.e1 <= found.n1).all()


@pytest.mark.parametrize(("clump", "phi"), [(None, 1.0), (streams.copies_of(5), 5.0), (streams.geometric(4.0), 7.0)])
def test_clumps_keep_the_rate_and_have_the_dispersion_they_should(clump: Any, phi: float) -> None:
    """Clumps change how errors hang together, not how many there are."""
    found = streams.make(replace(QUIET, rps=200.0, clump=clump), 20, 1, 0)
    spreads = before.spreads_of(found.history_n, found.history_e)

    assert found.history_e.sum() / found.history_n.sum() == pytest.approx(0.003, rel=0.05)
    assert sum(s.num for s in spreads) / sum(s.den for s in spreads) == pytest.approx(phi, rel=0.06)


@pytest.mark.parametrize("settings", [SHIPPED, BARE])
@pytest.mark.parametrize("how", [{}, {"burst": 0.3, "burst_of": "pod"}], ids=["independent", "bursts"])
def test_the_hour_before_is_learnt_as_the_product_does(settings: Any, how: dict[str, Any]) -> None:
    """History and dispersion for many runs at once are those of the product's own code, placebos included."""
    found = streams.make(replace(QUIET, history_polls=60, **how), 8, 3, 0)
    policy = settings.policy("counts")
    rules = rules_of(policy, policy.checks[0])
    together = before.counts_before(found.history_n, found.history_e, 10.0, rules)
    for run, mine in enumerate(together):
        theirs = before.by_product(found.history_n[run], found.history_e[run], 10.0, rules)
        assert mine.learnt.phi == pytest.approx(theirs.learnt.phi, rel=1e-9)
        assert mine.learnt.bad == theirs.learnt.bad
        assert mine.strata == theirs.strata


def test_the_engine_agrees_with_an_independent_form_of_its_test() -> None:
    """Without tolerance, cap and late onset both roll back the same runs, nearly always at nearly the same poll."""
    found = streams.make(Stream("test: lift", 0.001, 0.01, 0.05, 100.0, polls=60), 16, 1, 0)
    engine, reference = Deployguard(BARE).decide(found), ReferenceGRO(*bets_of(BARE), late_share=0.0).decide(found)

    assert ((engine == NEVER) == (reference == NEVER)).mean() > 0.9
    assert (np.abs(engine - reference) <= 1).mean() > 0.8


def test_tools_act_at_the_minutes_they_say() -> None:
    """On a total failure: Argo at its first or fourth minute, Flagger one after its fifth, Kayenta at its fifth, others at once."""
    found = streams.make(Stream("test: down", 0.001, 1.0, 0.05, 100.0, polls=60), 4, 1, 0)
    minutes = {0: Argo(0), 3: Argo(3), 5: Flagger(5), 4: Kayenta()}
    for minute, rule in minutes.items():
        assert rule.decide(found).tolist() == [6 * minute + 5] * 4, rule.name
    for rule in (LindonMalek(), Oracle(), Deployguard(SHIPPED)):
        assert (rule.decide(found) <= 1).all(), rule.name
    assert (Bands().decide(found) <= 2).all()


def test_a_minute_without_requests() -> None:
    """Argo and Flagger take it for a failure, Argo with a guard and Kayenta do not, Kayenta as written does."""
    found = streams.make(Stream("test: no traffic", 0.001, 0.001, 0.5, 1e-9), 2, 1, 0)
    assert (Argo(3).decide(found) == 23).all()
    assert (Flagger(5).decide(found) == 35).all()
    assert (Argo(3, guarded=True).decide(found) == NEVER).all()
    assert (Kayenta().decide(found) == NEVER).all()
    assert (Kayenta(strict=True).decide(found) == 29).all()


def test_quantiles_of_buckets() -> None:
    """Linear inside a bucket, the last bound above it, nothing without requests."""
    counts = np.zeros((1, 3, 4), dtype=np.int64)
    counts[0, 0], counts[0, 1] = [0, 100, 0, 0], [0, 0, 0, 5]
    found = latency.Histograms((0.1, 0.2, 0.4), 0.5, 10.0, counts, counts, counts[:, :, None]).quantile(counts, 0.95, 1)
    assert found[0, :2].tolist() == pytest.approx([0.195, 0.4])
    assert np.isnan(found[0, 2])


def test_rows() -> None:
    """Exact intervals, medians as order statistics that are infinite beyond the horizon, requests up to the rollback."""
    assert rows.clopper_pearson(0, 3000) == (0.0, pytest.approx(1 - 0.025 ** (1 / 3000)))
    requests = np.full((4, 3), 10)
    found = rows.decided(np.array([0, 2, 1, NEVER]), 10.0, requests, requests // 5)
    half = rows.row(found, stream="s", null=False, rule="r", alpha=0.01, floor=10.0)

    assert (half.rate, half.n, half.median_s, half.p95_s) == (0.75, 4, 30.0, None)
    assert (half.median_requests, half.ratio, half.failed_requests) == (30.0, 3.0, 6.0)
    assert rows.row(found, stream="s", null=True, rule="r", alpha=0.01, floor=None).median_s is None


@pytest.mark.parametrize(
    ("written", "stamped", "at"),
    [("2023-01-29 10:00:00", 1674957600, 1674986400.0), ("2023-01-29 10:00:05", 1674986400, 1674986400.0)],
)
def test_time_stamps_that_are_eight_hours_early(written: str, stamped: int, at: float) -> None:
    """The written time is believed when the stamp is hours away from it, and the stamp otherwise."""
    one = {"date": "2023-01-29", "inject_time_utc_or_local": written, "inject_timestamp": stamped, "service": "s", "type": "return"}
    assert real._fault(one).at == at
