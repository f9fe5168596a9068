"""Reads what a monitoring system has collected of the instances, over Prometheus' HTTP API.

Selectors are answered with the instances' own cumulative counters, as scrapes are, only as of `lag` ago; deltas, resets, instances that
come and go, and what a poll missed are then the engine's affair, the same as everywhere. Queries are answered with windows.
"""

from __future__ import annotations

import datetime as dt
import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from deployguard.errors import UserError
from deployguard.model.reading import Answer, Counters, Missing, Window
from deployguard.model.selector import parse_selector
from deployguard.model.target import CANDIDATE, Arm, Instance
from deployguard.model.units import format_duration
from deployguard.signals.crew import missing, speaks, started
from deployguard.signals.exposition import Column, Memo, Series
from deployguard.signals.fetch import Failure
from deployguard.signals.kinds import kind_of
from deployguard.signals.promql import SAMPLED, TAG, Refused, Row, arm_matcher, filled, query_of, rows_of, wanted_of
from deployguard.signals.shown import Shown

if TYPE_CHECKING:
    from deployguard.model.check import PrometheusCheck

_NAMESPACE = "namespace"
_FORM = "application/x-www-form-urlencoded"


class Server:
    """A Prometheus-compatible server, asked for instant vectors."""

    def __init__(self, check: PrometheusCheck, environ: Mapping[str, str] | None = None) -> None:
        """Raises `UserError` when a named secret is not in the environment, or the certificates cannot be read."""
        from deployguard.signals.api import Access, Api, basic, from_environment

        what = f"the check `{check.name}`"
        headers = {
            name: value if isinstance(value, str) else from_environment(value.env, what, environ) for name, value in check.headers.items()
        }
        if check.bearer_token_env is not None:
            headers["Authorization"] = f"Bearer {from_environment(check.bearer_token_env, what, environ)}"
        if check.basic is not None:
            headers["Authorization"] = basic(check.basic.username, from_environment(check.basic.password_env, what, environ))
        access = Access(check.url, headers, check.bearer_token_file or "", check.ca_file or "", check.insecure_skip_verify)
        self._api = Api(access, check.timeout.total_seconds())
        self.name = urlsplit(check.url).hostname or check.url
        self._posts = True

    def rows(self, query: str, at: dt.datetime) -> list[Row]:
        """The instant vector of `query` as of `at`. Raises `Refused` when none came."""
        from deployguard.signals.api import NoAnswer

        form = urlencode({"query": query, "time": f"{at.timestamp():.3f}"})
        try:
            if self._posts:
                status, body = self._api.ask("POST", "/api/v1/query", form.encode(), _FORM)
                if status != 405:
                    return rows_of(status, body)
                self._posts = False  # some gateways let only GET through
            return rows_of(*self._api.ask("GET", f"/api/v1/query?{form}"))
        except NoAnswer as error:
            raise Refused(error.reason, str(error)) from error

    def close(self) -> None:
        """Close the connections; a later query opens new ones."""
        self._api.close()


class PrometheusSource:
    """The numbers of one check on a monitoring system."""

    def __init__(self, check: PrometheusCheck, *, namespace: str = "", environ: Mapping[str, str] | None = None) -> None:
        """`namespace`: series that carry the label `namespace` with another value are those of namesakes, and left out.

        A secret that is not in the environment makes the readings missing, not the guard: whoever takes a candidate back needs no metrics.
        """
        self._check, self._environ = check, environ
        self._server: Server | None = None
        self._read: _Series | _Windows = _Windows(check) if check.queried else _Series(check, namespace)

    def read(self, arm: Arm, instances: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:
        """What the monitoring system knows of the arm's instances as of `lag` before `now`, or why it says nothing."""
        asked = started(instances)
        if not asked:
            return Missing("no_instance", f"no instance of the {arm} arm has started")
        try:
            server = self._server = self._server or Server(self._check, self._environ)
        except UserError as error:
            return Missing("error", error.message)
        try:
            return self._read.answer(server, arm, asked, through, now)
        except Refused as error:
            return Missing(error.reason, f"{server.name}: {error}")

    def remarks(self, instances: tuple[Instance, ...], now: dt.datetime) -> list[str]:
        """What a person should know before a rollout: that nothing can be read, and how it is read."""
        answer = self.read("stable", instances, None, now)
        if isinstance(answer, Missing):
            return [f"cannot be read ({answer.reason}): {answer.detail}"]
        return [self._read.note] if self._read.note else []

    def close(self) -> None:
        """Close the connections; a later read opens new ones."""
        if self._server is not None:
            self._server.close()


def _value(label: str, one: Instance) -> str:
    """What the instance's label says: its name, or for `instance` where it is scraped."""
    return one.id if label != "instance" else one.address.rpartition("://")[2]


class _Series:
    """Selectors: the counters, buckets or gauges of each instance."""

    def __init__(self, check: PrometheusCheck, namespace: str) -> None:
        self._check, self._namespace = check, namespace
        self._kind = kind_of(check)
        self._wanted = wanted_of(check)
        named = any(m.label == _NAMESPACE for text in self._texts() for m in parse_selector(text).matchers)
        self._homed = bool(namespace) and not named
        self._memo = Memo()
        self._sampled: dict[str, tuple[float, dt.datetime]] = {}
        self._lock = threading.Lock()

    @property
    def note(self) -> str:
        return self._kind.note

    def _texts(self) -> list[str]:
        check = self._check
        return [text for text in (check.total, check.bad, check.gauge, check.histogram, *(check.classes or ())) if text]

    def answer(
        self,
        server: Server,
        arm: Arm,
        asked: tuple[Instance, ...],
        through: dt.datetime | None,  # noqa: ARG002
        now: dt.datetime,
    ) -> Answer:
        label, end = self._check.instance_label, now - self._check.lag
        uids = {_value(label, one): one.uid for one in asked}
        query = query_of(self._wanted, label, arm_matcher(label, sorted(uids)), (_NAMESPACE,) if self._homed else ())
        rows = [row for row in server.rows(query, end) if self._at_home(row)]
        pages = self._pages(rows, label)
        times = {row.metric.get(label, ""): _number(row) for row in rows if row.metric.get(TAG) == SAMPLED}
        found: dict[str, Any] = {}
        for one in asked:
            value = _value(label, one)
            late = self._late(one, times.get(value), end)
            if late is None or not self._young(one, end):
                found[one.uid] = late or self._kind.of(pages.get(value) or Shown({}))
        return self._summed(arm, asked, found, end)

    def _summed(self, arm: Arm, asked: tuple[Instance, ...], found: dict[str, Any], end: dt.datetime) -> Answer:
        found = self._kind.agreed(found, arm)
        read = {uid: what for uid, what in found.items() if not isinstance(what, Failure)}
        failed = {one.id: what for one in asked if isinstance(what := found.get(one.uid), Failure)}
        unread = tuple(one.uid for one in asked if one.uid not in read)
        if not found and arm == CANDIDATE and self._check.kind == "counts":
            return Counters(end, {}, {}, unread)  # at that instant the arm had served nobody
        if not found:
            return Missing("stale", f"the instances of the {arm} arm are too young to have been sampled")
        old = tuple(one for one in asked if one.uid in found)
        if not speaks(arm, old, read):
            return missing(failed, len(old))
        born = {one.uid: one.started for one in old if one.uid in read and one.started is not None}
        return self._kind.reading(end, read, born, unread)

    def _at_home(self, row: Row) -> bool:
        return not self._homed or row.metric.get(_NAMESPACE, self._namespace) == self._namespace

    def _pages(self, rows: Sequence[Row], label: str) -> dict[str, Shown]:
        """What each instance would have shown, by the value of the label."""
        found: dict[str, dict[str, tuple[list[Series], list[float]]]] = {}
        for row in rows:
            name = row.metric.get(TAG, "")
            if name == SAMPLED or row.value is None:
                continue
            labels = tuple((key, value) for key, value in sorted(row.metric.items()) if key not in (TAG, label, _NAMESPACE))
            series, values = found.setdefault(row.metric.get(label, ""), {}).setdefault(name, ([], []))
            series.append(self._memo.labelled(name, labels))
            values.append(_number(row))
        return {
            value: Shown({name: Column(tuple(series), tuple(values)) for name, (series, values) in columns.items()}, binary=True)
            for value, columns in found.items()
        }

    def _late(self, one: Instance, sampled: float | None, end: dt.datetime) -> Failure | None:
        """Why the newest sample of an instance cannot be taken; None when it can."""
        assert one.started is not None
        where = f'{self._check.instance_label}="{_value(self._check.instance_label, one)}"'
        if sampled is None:
            return Failure("stale", f"no sample of `{self._wanted[0].name}` with {where}; is `instance_label` right?")
        if sampled < one.started.timestamp():
            return Failure("stale", f"no sample with {where} since the instance was started")
        age = end.timestamp() - sampled
        if age > self._check.stale_after.total_seconds():
            return Failure("stale", f"no sample with {where} for {age:.0f} s before the instant that was asked for")
        with self._lock:
            before, since = self._sampled.setdefault(one.uid, (sampled, end))
            if sampled > before:
                self._sampled[one.uid] = (sampled, end)
        if sampled < before:
            # Of two replicas that answer in turn one is always behind: its counters would look as if they had been reset.
            return Failure("stale", f"the newest sample with {where} is older than the one before")
        if sampled == before and end > since and self._check.kind == "gauge":
            # Blocks of time are compared as if each had values of its own: one that is shown again must not speak twice.
            return Failure("stale", f"no sample with {where} since the last poll; a gauge needs an `interval` of at least its scrapes'")
        return None

    def _young(self, one: Instance, end: dt.datetime) -> bool:
        """Whether the instance may well not have been sampled yet."""
        assert one.started is not None
        return end - one.started < self._check.stale_after


class _Windows:
    """Queries: how many there were of the whole arm, from where the last window ended up to `lag` ago."""

    note = ""

    def __init__(self, check: PrometheusCheck) -> None:
        assert check.bad
        assert check.total
        self._check = check
        self._bad, self._total = check.bad, check.total

    def answer(self, server: Server, arm: Arm, asked: tuple[Instance, ...], through: dt.datetime | None, now: dt.datetime) -> Answer:
        label, end, window = self._check.instance_label, now - self._check.lag, self._check.window
        begin = end - window if through is None else through
        length = (end - begin) // dt.timedelta(milliseconds=1)
        if end - begin < window:
            return Window(begin, begin, 0.0, 0.0)  # shorter windows may hold no two samples: it is asked for with the next one
        end = begin + dt.timedelta(milliseconds=length)
        matcher = arm_matcher(label, sorted({_value(label, one) for one in asked}))
        total = self._count(server, filled(self._total, matcher, length), end)
        if total is None:
            text = f"`total` gives nothing for the {arm} arm over {format_duration(window)} or more; is `instance_label` right?"
            return Missing("stale", text)
        return Window(begin, end, self._count(server, filled(self._bad, matcher, length), end) or 0.0, total)

    @staticmethod
    def _count(server: Server, query: str, end: dt.datetime) -> float | None:
        """The sum of what the query gives; None when it gives nothing. Raises `Refused` when that is no count."""
        rows = server.rows(query, end)
        if not rows:
            return None
        count = sum(_number(row) for row in rows)
        if not math.isfinite(count) or count < 0:
            raise Refused("nan", f"the query gives {count}, which is not a count")
        return count


def _number(row: Row) -> float:
    try:
        return float(row.value[1]) if row.value is not None else math.nan
    except ValueError:
        return math.nan
