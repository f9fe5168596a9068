"""Counts requests from the instances' own metrics pages: no monitoring system is needed, and none can lag.

All scrape checks of a rollout share one `ScrapePool`: each instance is asked once per tick, whatever the number of checks.
"""

from __future__ import annotations

import collections
import datetime as dt
import itertools
import math
import threading
from collections.abc import Iterable

from deployguard.model.check import ScrapeCheck
from deployguard.model.reading import Answer, Counter, Counters, Missing
from deployguard.model.selector import Selector, parse_selector
from deployguard.model.target import STABLE, Arm, Instance
from deployguard.signals.exposition import Memo, Sample, Series, openmetrics, parse_page
from deployguard.signals.fetch import Failure, Fetcher, Page

_ACCEPTED_LIMIT = 50_000
Samples = dict[str, list[Sample]]
"""What a page shows, by metric name."""


class ScrapePool:
    """The pages of all instances at one instant, read once and parsed once for all checks."""

    def __init__(self, timeout: float = 0.8) -> None:
        """A pool whose reads take at most `timeout` seconds; choose it below the poll interval."""
        self._fetcher = Fetcher(timeout)
        self._lock = threading.Lock()
        self._memo = Memo()
        self._names: dict[str, set[str]] = {}
        self._tick: dt.datetime | None = None
        self._asked: dict[str, str] = {}
        self._got: dict[str, Samples | Failure] = {}

    def want(self, path: str, names: Iterable[str]) -> None:
        """From now on the metrics `names` are read from the pages at `path`."""
        with self._lock:
            self._names.setdefault(path, set()).update(names)
            self._tick = None

    def pages(self, path: str, instances: tuple[Instance, ...], now: dt.datetime) -> dict[str, Samples | Failure]:
        """By uid, what `instances` show at the tick `now`. A second call within the tick asks nobody again."""
        urls = {one.uid: _url(one.address, path) for one in instances}
        with self._lock:
            if self._tick != now:
                # Those asked in the last tick are asked together, so that a frozen instance in each arm costs one
                # timeout and not two.
                before, self._asked, self._got, self._tick = self._asked, {}, {}, now
                self._load({**before, **dict.fromkeys(urls.values(), path)})
            self._asked.update(dict.fromkeys(urls.values(), path))
            self._load({url: path for url in urls.values() if url not in self._got})
            return {uid: self._got[url] for uid, url in urls.items()}

    def close(self) -> None:
        """Close all connections; a later read opens new ones."""
        with self._lock:
            self._fetcher.close()

    def _load(self, urls: dict[str, str]) -> None:
        if urls:
            for url, page in self._fetcher.fetch(urls).items():
                self._got[url] = self._parsed(page, urls[url])

    def _parsed(self, page: Page | Failure, path: str) -> Samples | Failure:
        if isinstance(page, Failure):
            return page
        if openmetrics(page.content_type) and not page.body.rstrip(b"\r\n").endswith(b"# EOF"):
            return Failure("error", "the OpenMetrics page does not end with `# EOF`: it is cut off")
        try:
            return {name: parse_page(page.body, (name,), self._memo) for name in self._names.get(path, ())}
        except ValueError as error:
            return Failure("error", str(error))


class ScrapeSource:
    """The numbers of one scrape check."""

    def __init__(self, check: ScrapeCheck, pool: ScrapePool) -> None:
        self._check, self._pool = check, pool
        self._total, self._bad = parse_selector(check.total), parse_selector(check.bad)
        self._names = tuple(dict.fromkeys((self._total.name, self._bad.name)))
        self._accepted: dict[Series, tuple[bool, bool]] = {}
        pool.want(check.path, self._names)

    def read(self, arm: Arm, instances: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:  # noqa: ARG002
        """Cumulative counts of the arm's instances at `now`, or why there are too few of them to speak for the arm."""
        asked = tuple(one for one in instances if one.address and one.started is not None)
        if not asked:
            return Missing("no_instance", f"no started instance of the {arm} arm has an address")
        pages = self._pool.pages(self._check.path, asked, now)
        found = {one.uid: self._count(pages[one.uid]) for one in asked}
        read = {uid: count for uid, count in found.items() if isinstance(count, Counter)}
        failed = {one.id: what for one in asked if isinstance(what := found[one.uid], Failure)}
        if not _speaks(arm, asked, read):
            return _missing(failed, len(asked))
        born = {one.uid: one.started for one in asked if one.uid in read and one.started is not None}
        return Counters(now, read, born, tuple(one.uid for one in asked if one.uid not in read))

    def close(self) -> None:
        """Close the connections of the pool; another source that still reads opens new ones."""
        self._pool.close()

    def _count(self, page: Samples | Failure) -> Counter | Failure:
        if isinstance(page, Failure):
            return page
        total = bad = 0.0
        matched = False
        # Only this check's own names: the page holds those of all checks.
        for sample in itertools.chain.from_iterable(page.get(name, ()) for name in self._names):
            in_total, in_bad = self._accepts(sample.series)
            if not (in_total or in_bad):
                continue
            if not math.isfinite(sample.value) or sample.value < 0:
                return Failure("nan", f"`{sample.series.name}` shows {sample.value}, which is not a count")
            if in_total:
                matched = True
                total += sample.value
            if in_bad:
                bad += sample.value
        if not matched:
            return Failure("no_series", f"no series matches `{self._check.total}`")
        return Counter(min(bad, total), total)

    def _accepts(self, series: Series) -> tuple[bool, bool]:
        known = self._accepted.get(series)
        if known is None:
            if len(self._accepted) >= _ACCEPTED_LIMIT:
                self._accepted.clear()
            known = self._accepted[series] = (_matches(self._total, series), _matches(self._bad, series))
        return known


def _matches(selector: Selector, series: Series) -> bool:
    return selector.accepts(series.name, series.labels)


def _url(address: str, path: str) -> str:
    return (address.rstrip("/") if "://" in address else f"http://{address}") + path


def _speaks(arm: Arm, asked: tuple[Instance, ...], read: dict[str, Counter]) -> bool:
    """Whether what was read may stand for the arm: any candidate says something, a lone stable instance is no control."""
    if arm != STABLE:
        return bool(read)
    ready = [one for one in asked if one.ready]
    return bool(read) and 2 * sum(one.uid in read for one in ready) >= len(ready)


def _missing(failed: dict[str, Failure], asked: int) -> Missing:
    reason = collections.Counter(what.reason for what in failed.values()).most_common(1)[0][0]
    name, first = next((name, what) for name, what in failed.items() if what.reason == reason)
    return Missing(reason, f"{asked - len(failed)} of {asked} instances read; {name}: {first.detail}")
