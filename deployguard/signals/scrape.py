"""Reads the instances' own metrics pages: no monitoring system is needed, and none can lag.

All scrape checks of a rollout share one `ScrapePool`: each instance is asked once per tick, whatever the number of checks.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Iterable

from deployguard.model.check import ScrapeCheck
from deployguard.model.reading import Answer, Missing
from deployguard.model.target import STABLE, Arm, Instance
from deployguard.signals.crew import missing, speaks, started
from deployguard.signals.exposition import Memo, openmetrics, parse_page
from deployguard.signals.fetch import PROTOBUF, Failure, Fetcher, Page
from deployguard.signals.kinds import kind_of
from deployguard.signals.places import Proxy, behind, page_of
from deployguard.signals.proxied import Proxied
from deployguard.signals.shown import Shown, unknown

_NO_PORT = Failure("no_port", "no port is known to ask the instance on; name it with `target.port` in the guard")
_log = logging.getLogger(__name__)


class ScrapePool:
    """The pages of all instances at one instant, read once and parsed once for all checks.

    Text is asked for, as it costs the instances least and every one of them speaks it. Only where a wanted histogram shows no bucket in
    it, which is how native histograms look in text, is protobuf asked for from then on, by all instances at that path.
    """

    def __init__(self, timeout: float = 0.8, proxy: Proxy | None = None) -> None:
        """A pool whose reads take at most `timeout` seconds; choose it below the poll interval. `proxy` leads to pods by `kube://`."""
        self._fetcher = Fetcher(timeout)
        self._proxied = Proxied(proxy, timeout)
        self._lock = threading.Lock()
        self._memo = Memo()
        self._names: dict[str, set[str]] = {}
        self._histograms: dict[str, set[str]] = {}
        self._binary: set[str] = set()
        self._tick: dt.datetime | None = None
        self._asked: dict[str, str] = {}
        self._got: dict[str, Shown | Failure] = {}

    def want(self, path: str, names: Iterable[str], histogram: str = "") -> None:
        """From now on the metrics `names` are read from the pages at `path`, and `histogram`, which may be a native one."""
        with self._lock:
            self._names.setdefault(path, set()).update(names)
            self._histograms.setdefault(path, set()).update([histogram] if histogram else [])
            self._tick = None

    def pages(self, path: str, instances: tuple[Instance, ...], now: dt.datetime, port: int | None = None) -> dict[str, Shown | Failure]:
        """By uid, what `instances` show at the tick `now`. A second call within the tick asks nobody again."""
        found = {one.uid: page_of(one.address, path, port) for one in instances}
        urls = {uid: url for uid, url in found.items() if url}
        with self._lock:
            if self._tick != now:
                # Those asked in the last tick are asked together, so that a frozen instance in each arm costs one
                # timeout and not two.
                before, self._asked, self._got, self._tick = self._asked, {}, {}, now
                self._load({**before, **dict.fromkeys(urls.values(), path)})
            self._asked.update(dict.fromkeys(urls.values(), path))
            self._load({url: path for url in urls.values() if url not in self._got})
            return {uid: self._got[url] if url else _NO_PORT for uid, url in found.items()}

    def close(self) -> None:
        """Close all connections; a later read opens new ones."""
        with self._lock:
            self._fetcher.close()
            self._proxied.close()

    def _load(self, urls: dict[str, str]) -> None:
        if not urls:
            return
        binary = {url for url, path in urls.items() if path in self._binary}
        distant = {url for url in urls if behind(url)}
        pending = self._proxied.begin(distant, binary)
        pages = self._fetcher.fetch(urls.keys() - distant, binary) | self._proxied.end(pending)
        for url, page in pages.items():
            self._got[url] = self._parsed(page, urls[url])
        native = {url for url, path in urls.items() if path not in self._binary and self._shows_native(self._got[url], path)}
        if native:
            self._binary.update(urls[url] for url in native)
            self._load({url: urls[url] for url in native})

    def _shows_native(self, page: Shown | Failure, path: str) -> bool:
        """Whether a wanted histogram is on the page without a single bucket that has a bound."""
        return isinstance(page, Shown) and any(
            page.columns[f"{name}_count"].series
            and not any(series.labels.get("le") not in (None, "+Inf") for series in page.columns[f"{name}_bucket"].series)
            for name in self._histograms.get(path, ())
        )

    def _parsed(self, page: Page | Failure, path: str) -> Shown | Failure:
        if isinstance(page, Failure):
            return page
        if openmetrics(page.content_type) and not page.body.rstrip(b"\r\n").endswith(b"# EOF"):
            return Failure("error", "the OpenMetrics page does not end with `# EOF`: it is cut off")
        names = self._names.get(path, set())
        try:
            if page.content_type.partition(";")[0].strip().lower() == PROTOBUF:
                from deployguard.signals.protobuf import parse_protobuf

                return Shown(*parse_protobuf(page.body, names, self._histograms.get(path, ()), self._memo), binary=True)
            return Shown({name: parse_page(page.body, name, self._memo) for name in names})
        except ValueError as error:
            return Failure("error", str(error))


class ScrapeSource:
    """The numbers of one scrape check."""

    def __init__(self, check: ScrapeCheck, pool: ScrapePool) -> None:
        self._name, self._path, self._port, self._pool, self._kind = check.name, check.path, check.port, pool, kind_of(check)
        self._noted = False
        pool.want(check.path, self._kind.names, self._kind.histogram)

    def read(self, arm: Arm, instances: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:  # noqa: ARG002
        """What the arm's instances show at `now`, or why there are too few of them to speak for the arm."""
        asked = started(instances)
        if not asked:
            return Missing("no_instance", f"no instance of the {arm} arm has started")
        pages = self._pool.pages(self._path, asked, now, self._port)
        found = {uid: page if isinstance(page, Failure) else self._kind.of(page) for uid, page in pages.items()}
        found = self._kind.agreed(found, arm)
        read = {uid: what for uid, what in found.items() if not isinstance(what, Failure)}
        failed = {one.id: what for one in asked if isinstance(what := found[one.uid], Failure)}
        if not speaks(arm, asked, read):
            return missing(failed, len(asked))
        if self._kind.note and not self._noted:
            self._noted = True
            _log.warning("check %s: %s", self._name, self._kind.note)
        born = {one.uid: one.started for one in asked if one.uid in read and one.started is not None}
        return self._kind.reading(now, read, born, tuple(one.uid for one in asked if one.uid not in read))

    def remarks(self, instances: tuple[Instance, ...], now: dt.datetime) -> list[str]:
        """What a person should know before a rollout: that nothing can be read, how it is read, and what is selected in vain."""
        self._noted = True
        answer = self.read(STABLE, instances, None, now)
        if isinstance(answer, Missing):
            return [f"cannot be read ({answer.reason}): {answer.detail}"]
        pages = [page for page in self._pool.pages(self._path, started(instances), now, self._port).values() if isinstance(page, Shown)]
        return [text for text in (self._kind.note, *(unknown(one, pages) for one in self._kind.optional)) if text]

    def close(self) -> None:
        """Close the connections of the pool; another source that still reads opens new ones."""
        self._pool.close()
