"""Checks that read series in Prometheus' sense, from the instances themselves or from a monitoring system."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import Field, model_validator

from deployguard.model.fields import Duration, PositiveDuration, QueryText, SelectorText, Written, broken, is_query
from deployguard.model.judged import JudgedCheck
from deployguard.model.selector import parse_selector

LABEL = r"^[a-zA-Z_][a-zA-Z0-9_]*$"


class SeriesCheck(JudgedCheck):
    """A check on series, which reads exactly one of counters, a histogram, classes and a gauge."""

    bad: SelectorText | None = Field(None, description="the series that count bad requests")
    total: SelectorText | None = Field(None, description="the series that count all requests")
    histogram: SelectorText | None = Field(
        None,
        description="a latency histogram, without `_bucket`; compared as a whole, or by the requests slower than `within`",
        examples=["http_request_duration_seconds"],
    )
    within: PositiveDuration | None = Field(
        None,
        description="requests of the histogram that take longer are bad: judged by counts, with `limit` and `worse_than_stable`; "
        "counted at the smallest bucket bound that is not below it",
    )
    classes: Annotated[list[SelectorText], Field(min_length=2, max_length=16)] | None = Field(
        None, description="series that count requests by class, the best class first; what two of them select is of the worse class"
    )
    gauge: SelectorText | None = Field(
        None, description="a gauge, summed over its series on an instance: memory, a queue, an exported quantile"
    )
    worse_when: Literal["higher", "lower"] = Field("higher", description="which values of the gauge are the bad ones")
    bound: float | None = Field(None, description="the gauge's mean must not be beyond this, in the gauge's own unit")
    strata: dict[Annotated[str, Field(pattern=LABEL)], Annotated[list[str], Field(min_length=1, max_length=7)]] = Field(
        {},
        max_length=1,
        description="compare within each of these values of one label, and within the rest, when the arms serve a different mix",
        examples=[{"route": ["/login", "/checkout"]}],
    )

    @model_validator(mode="after")
    def _reads_one_thing(self) -> SeriesCheck:
        ways = {"total": self.total or self.bad, "histogram": self.histogram, "classes": self.classes, "gauge": self.gauge}
        given = [name for name, value in ways.items() if value]
        if not given:
            raise broken("the check reads nothing; give `bad` and `total`, or one of `histogram`, `classes`, `gauge`", ())
        if len(given) > 1:
            raise broken(f"`{given[0]}` and `{given[1]}` are both given; a check reads one thing, so make two of it", (given[1],))
        if given == ["total"] and not (self.bad and self.total):
            missing = "bad" if self.total else "total"
            raise broken(f"`{missing}` is missing; a check on counters needs `bad` and `total`", (missing,), ())
        if self.histogram:
            self._names_a_histogram(self.histogram)
        self._fits(given[0])
        return self

    @staticmethod
    def _names_a_histogram(text: str) -> None:
        selector = parse_selector(text)
        if selector.name.endswith("_bucket"):
            right = selector.name.removesuffix("_bucket")
            raise broken(f"`histogram` names `{selector.name}`, one part of the histogram; write `{right}`", ("histogram",))
        if any(matcher.label == "le" for matcher in selector.matchers):
            raise broken(
                "`histogram` has a condition on `le`, and all buckets are needed; say with `within` from when on is slow", ("histogram",)
            )

    def _fits(self, way: str) -> None:
        only = {
            "within": ("histogram", self.within is not None),
            "bound": ("gauge", self.bound is not None),
            "worse_when": ("gauge", self.worse_when != "higher"),
            "strata": ("total", bool(self.strata)),
        }
        for name, (belongs, given) in only.items():
            if given and way != belongs:
                raise broken(f"`{name}` goes with `{belongs}` alone; take it away here", (name,))
        if self.limit is not None and self.kind != "counts":
            right = {"histogram": "give `within` as well", "gauge": "a gauge has `bound`"}.get(way, "give `bad` and `total`")
            raise broken(f"`limit` is a rate of bad requests, and this check counts none; {right}", ("limit",))
        if self.worse_than_stable is None and (self.limit if self.kind == "counts" else self.bound) is None:
            also = {"counts": ", `limit`, or both", "gauge": ", `bound`, or both"}.get(self.kind, "")
            raise broken(f"the check asks nothing; give `worse_than_stable`{also}", ("worse_than_stable",))

    @property
    def kind(self) -> Literal["counts", "categories", "gauge"]:
        """What its evidence is made of."""
        if self.gauge:
            return "gauge"
        return "counts" if self.within is not None or self.total else "categories"


class ScrapeCheck(SeriesCheck):
    """Series on the instances' own metrics page, in a Prometheus or OpenMetrics format.

    Exactly one of: `bad` and `total` (counters), `histogram` (latency), `classes` (counters from best to worst), `gauge`.
    """

    source: Literal["scrape"] = Field("scrape", description="the instances' own metrics page")
    path: str = Field("/metrics", pattern=r"^/", description="where the instances expose their metrics")
    port: int | None = Field(None, ge=1, le=65535, description="the port of the metrics page, where it is not the target's own")


class BasicAuth(Written):
    """A user and a password, for a server that asks for them."""

    username: str = Field(min_length=1, description="the user")
    password_env: str = Field(min_length=1, description="the environment variable that holds the password")


class HeaderValue(Written):
    """The value of a header that is a secret."""

    env: str = Field(min_length=1, description="the environment variable that holds the value")


class PrometheusCheck(SeriesCheck):
    """Series that a monitoring system has collected, asked for over Prometheus' HTTP API.

    Exactly one of: `bad` and `total` (counters), `histogram` (latency), `classes` (counters from best to worst), `gauge`. All are
    selectors; `bad` and `total` may be queries instead, with `$arm` where the condition on the instances belongs and `$window` for the
    time that is asked for.
    """

    source: Literal["prometheus"] = Field("prometheus", description="a monitoring system with Prometheus' HTTP API")
    url: Annotated[str, Field(pattern=r"^https?://")] = Field(
        description="where the API is, without `/api/v1`", examples=["http://prometheus.monitoring:9090"]
    )
    bad: QueryText | None = Field(None, description="the series that count bad requests, or a query for how many there were")
    total: QueryText | None = Field(None, description="the series that count all requests, or a query for how many there were")
    instance_label: str = Field(
        "pod",
        pattern=LABEL,
        description="the label whose value is an instance's name; with `instance` its value is the instance's `host:port`",
    )
    lag: Duration = Field(
        dt.timedelta(seconds=15), description="what happened is asked for this much later, when the monitoring system has it all"
    )
    stale_after: PositiveDuration = Field(
        dt.timedelta(minutes=2), description="an instance without a sample for this long is missing; at least two of its scrape intervals"
    )
    window: PositiveDuration = Field(
        dt.timedelta(minutes=1), description="of queries: the shortest time that is asked for; at least four scrape intervals"
    )
    bearer_token_env: str | None = Field(None, min_length=1, description="the environment variable that holds a bearer token")
    bearer_token_file: str | None = Field(None, min_length=1, description="the file that holds a bearer token, read at every request")
    basic: BasicAuth | None = Field(None, description="a user and a password")
    headers: dict[str, str | HeaderValue] = Field(
        {}, description="more headers, such as a tenant's; `{env: NAME}` for the secret ones", examples=[{"X-Scope-OrgID": "shop"}]
    )
    ca_file: str | None = Field(None, min_length=1, description="the certificates (PEM) that the server's must be signed by")
    insecure_skip_verify: bool = Field(False, description="take any certificate: only for a first try")
    timeout: PositiveDuration = Field(dt.timedelta(seconds=4), le=dt.timedelta(seconds=60), description="the longest time for one answer")

    @model_validator(mode="after")
    def _can_be_asked(self) -> PrometheusCheck:
        credentials = [name for name in ("bearer_token_env", "bearer_token_file", "basic") if getattr(self, name) is not None]
        if len(credentials) > 1:
            raise broken(f"`{credentials[0]}` and `{credentials[1]}` are both given; a request carries one of them", (credentials[1],))
        for name in ("ca_file", "insecure_skip_verify"):
            if getattr(self, name) and not self.url.startswith("https://"):
                raise broken(f"`{name}` is about TLS, and `url` begins with `http://`; write `https://` there, or take it away", (name,))
        if "@" in self.url.partition("://")[2].partition("/")[0]:
            raise broken("`url` holds a user or a password; give `basic` instead", ("url",))
        if self.bad and self.total and is_query(self.bad) != is_query(self.total):
            raise broken("one of `bad` and `total` is a query and the other a selector; write both alike", ("bad",), ("total",))
        if self.queried and self.strata:
            raise broken("`strata` needs the series themselves, and `bad` and `total` are queries; write selectors", ("strata",))
        return self

    @property
    def queried(self) -> bool:
        """Whether `bad` and `total` are queries."""
        return self.total is not None and is_query(self.total)
