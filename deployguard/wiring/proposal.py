"""The guard file that `init` writes for a workload: what fits what was seen, and why, in comments beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from deployguard.signals.discover import Counter
from deployguard.targets.kubernetes.references import Reference
from deployguard.wiring.survey import Survey, by_source

ENOUGH_RPS = 5.0
"""Requests a second of the whole workload from which on the stages of `production` can show a doubled error rate of 1%."""
FEW_RPS = 0.5
_HASHED = re.compile(r".*-[bcdfghkmt2456789]{10}")
"""How kustomize ends the name of a ConfigMap that changes with its content."""
_UNITS = ("milliseconds", "_ms")


def guard_text(seen: Survey) -> str:
    """A guard file for the workload, ready to be looked over."""
    lines = [
        f"# A first guard for {seen.kind.lower()}/{seen.name}, from what ran when it was written. Look it over, then ask what it would do:",
        "#   deployguard plan -f guard.yaml --image NEW_IMAGE",
        "apiVersion: deployguard.dev/v1alpha1",
        "kind: Guard",
        f"metadata: {{name: {seen.name}, namespace: {seen.namespace}}}",
        "spec:",
        *_target(seen),
        *_config(seen),
        *_policy(seen),
        *_checks(seen),
    ]
    notes = [f"# Not seen: {note}." for note in seen.notes]
    return "\n".join([*lines, *notes]) + "\n"


def _target(seen: Survey) -> Iterator[str]:
    yield f"  # {seen.ready} of {seen.replicas} pods are ready{_scaled(seen)}."
    if seen.replicas == 1 and seen.kind == "Deployment":
        yield "  # With one replica the candidate stands beside it, and takes half of the requests from its first second."
    if seen.kind != "Deployment" and seen.strategy == "OnDelete":
        yield "  # Its update strategy is OnDelete: pods change when deployguard deletes them."
    yield f"  target: {{kind: {seen.kind}, name: {seen.name}{_port(seen)}}}"
    if len(seen.services) > 1:
        yield f"  # Several Services send to it: {', '.join(seen.services)}. Say with `service: NAME` above which one users come by."


def _scaled(seen: Survey) -> str:
    if seen.scaler is None:
        return ""
    name, least, most = seen.scaler
    return f"; the HorizontalPodAutoscaler {name} keeps between {least} and {most}"


def _port(seen: Survey) -> str:
    """The port, where deployguard would not find the metrics by itself, or would have to choose."""
    if seen.metrics is not None and seen.metrics.port != seen.port:
        return f", port: {seen.metrics.port}"
    if seen.port is None and seen.ports:
        return f", port: {seen.ports[0]}"
    return ""


def _config(seen: Survey) -> Iterator[str]:
    sources = by_source(seen.reads)
    content = {ref: where for ref, where in sources.items() if any(one.pinnable for one in where)}
    if not content:
        yield "  # The pods read no ConfigMap and no Secret."
        return
    guarded = [ref for ref in content if ref[0] == "ConfigMap" and not _HASHED.fullmatch(ref[1])]
    yield "  # What the pods read is guarded with the release: a change of it takes the same stages and the same way back."
    yield "  config:" if guarded else "  # config:"
    for (kind, name), where in content.items():
        entry = f"- {{kind: {kind}, name: {name}}}"
        if (kind, name) in guarded:
            yield f"    {entry}  # {_places(where)}"
        elif kind == "ConfigMap":
            yield f"    # {entry}  # {_places(where)}; its name changes with its content, so it comes with the release"
        else:
            yield f"    # {entry}  # {_places(where)}; guarding it takes the rights of `deployguard install --ci --secrets {name}`"


def _places(where: list[Reference]) -> str:
    text = ", ".join(one.where for one in where[:3])
    return text + (f" and {len(where) - 3} more places" if len(where) > 3 else "")


def _rps(seen: Survey) -> float | None:
    """Requests a second of the whole workload, judged by one of its pods."""
    metrics = seen.metrics
    return None if metrics is None or metrics.rps is None else metrics.rps * max(1, seen.ready)


def _policy(seen: Survey) -> Iterator[str]:
    rps = _rps(seen)
    if rps is None:
        yield "  # How many requests come is not known. `production` asks for proof and wants real traffic, about 5 requests a second;"
        yield "  # `low-traffic` has longer soaks instead. `deployguard plan` says what each stage can see."
        yield "  policy: production"
    elif rps >= ENOUGH_RPS:
        yield f"  # About {rps:.3g} requests a second came, so `production` can prove what it claims; `deployguard plan` says how soon."
        yield "  policy: production"
    elif rps <= 0:
        yield "  # No request was counted meanwhile. If that is usual, proof would never come: `low-traffic` has long soaks instead."
        yield "  policy: low-traffic"
    else:
        yield f"  # About {rps:.2g} requests a second came. Proof would take very long, so the soaks of `low-traffic` are long instead."
        yield "  policy: low-traffic"


def _claims(seen: Survey) -> str:
    """The ratio that the checks must be able to see, as a field; empty for the usual 2."""
    rps = _rps(seen)
    if rps is None or rps >= ENOUGH_RPS:
        return ""
    return ", claims: 4" if rps >= FEW_RPS else ", claims: 10"


def _checks(seen: Survey) -> Iterator[str]:
    counters = seen.metrics.found.counters if seen.metrics is not None else ()
    histograms = seen.metrics.found.histograms if seen.metrics is not None else ()
    yield "  checks:"
    if counters:
        yield from _errors(seen, counters[0])
        if len(counters) > 1:
            yield f"    # The page counts requests by status elsewhere too: {', '.join(one.name for one in counters[1:4])}."
    if histograms:
        yield from _latency(seen, histograms[0])
        if len(histograms) > 1:
            yield f"    # Other latency histograms of the page: {', '.join(histograms[1:4])}."
    if not counters and not histograms:
        yield from _without_metrics(seen)
    elif not counters:
        yield "    # No counter of requests by status was found, so errors are watched in the logs: say what a bad line looks like."
        yield from _logs()
    yield from _probe(seen, needed=not counters and not histograms)


def _path(seen: Survey) -> str:
    return "" if seen.metrics is None or seen.metrics.path == "/metrics" else f"\n      path: {seen.metrics.path}"


def _errors(seen: Survey, counter: Counter) -> Iterator[str]:
    left_out = ", without those of probes and scrapes" if counter.without else ""
    yield f"    # Users' requests by status{left_out}. The candidate may fail 1.25 times as often as stable, and 0.1% is never a reason."
    yield "    - name: errors"
    yield f"      source: scrape{_path(seen)}"
    yield f"      bad: {_quoted(counter.bad_selector)}"
    yield f"      total: {_quoted(counter.total_selector)}"
    yield f"      worse_than_stable: {{ratio: 1.25, margin: 0.02%, floor: 0.1%}}{_own_line(_claims(seen))}"
    yield "      limit: 10%  # whatever stable does"


def _latency(seen: Survey, histogram: str) -> Iterator[str]:
    unit = " (in milliseconds)" if histogram.endswith(_UNITS) else ""
    yield f"    # How long requests take{unit}: the whole distribution, so that a slow few show too."
    yield "    - name: latency"
    yield f"      source: scrape{_path(seen)}"
    yield f"      histogram: {histogram}"
    yield f"      worse_than_stable: {{ratio: 1.25}}{_own_line(_claims(seen))}"


def _own_line(field: str) -> str:
    return f"\n      {field.removeprefix(', ')}" if field else ""


def _without_metrics(seen: Survey) -> Iterator[str]:
    page = seen.metrics
    if page is None:
        yield "    # No pod shows metrics, so the pods' own health, their logs and a walk from outside are watched."
    else:
        yield f"    # {page.pod} shows {page.found.names} metrics, but none counts requests by status, and none is a latency histogram."
    yield "    # Say what a bad line of the logs looks like:"
    yield from _logs()


def _logs() -> Iterator[str]:
    yield "    - name: log-errors"
    yield "      source: logs"
    yield "      bad: ERROR|FATAL|panic"


def _probe(seen: Survey, *, needed: bool) -> Iterator[str]:
    path = json.dumps(seen.ready_path or "/")
    head = "" if needed else "# "
    said = "the path of its readiness probe" if seen.ready_path else "its front page"
    yield "    # A walk from outside, as users come; three red ones in a row end the rollout."
    yield f"    # It begins with {said}: write what users do."
    yield f"    {head}- name: journey"
    yield f"    {head}  source: probe"
    yield f"    {head}  steps:"
    yield f"    {head}    - {{get: {path}, expect: {{status: 200}}}}"


def _quoted(text: str) -> str:
    """A selector as a YAML scalar."""
    return f"'{text}'" if "{" in text else text
