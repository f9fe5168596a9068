"""The balancer's throughput (`balancer.py`, which also runs by itself) as a subject among the others."""

from __future__ import annotations

from benchmarks import balancer
from benchmarks.rows import Result, Row

ROWS = (
    ("direct", "requests/s", "direct_rps"),
    ("through the balancer", "requests/s", "balancer_rps"),
    ("direct, 99th percentile", "ms", "direct_p99_ms"),
    ("through the balancer, 99th percentile", "ms", "balancer_p99_ms"),
    ("the balancer's own processor time per request", "us", "balancer_cpu_us"),
)


def measure(*, quick: bool) -> Result:
    """Requests per second through the balancer and directly."""
    runs, seconds = (3, 1.0) if quick else (balancer.RUNS, balancer.SECONDS)
    got = balancer.measure(runs, seconds)
    one_core = 1e6 / got["balancer_cpu_us"]
    return Result(
        subject="balancer",
        compared=f"the same backend with {balancer.CONNECTIONS} connections that always wait for an answer, "
        f"directly and through it in turns of {seconds:g} s; load, balancer and backend share the machine",
        rows=tuple(Row(what, unit, got[key], got[f"{key}_min"], got[f"{key}_max"], runs) for what, unit, key in ROWS),
        notes=(f"{got['share']:.0%} of direct through it; by its processor time one core could serve {one_core:,.0f} requests/s",),
    )
