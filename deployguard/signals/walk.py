"""Walks a journey once, as a user would, and says in one line where and why it went wrong.

The line goes into ledgers and messages, so it never holds a cookie, a request's body, the query of a URL, or more than
a short piece of a response.
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from deployguard import clock
from deployguard.model.reading import Run
from deployguard.signals.http import NoAnswer, Response, Visitor
from deployguard.signals.journey import UNPINNED, Expectation, Journey, Stride
from deployguard.signals.jsonpath import find, parse_path, same

NO_INSTANCE = ("x-deployguard", "no-instance")
_SHOWN = 80


def walk(journey: Journey, path: str, base: str) -> Run | None:
    """The finished walk; None when the balancer had no instance on that path, which says nothing about the service."""
    began = clock.monotonic()
    known = {host for step in journey.steps if (host := urlsplit(step.url).hostname)}
    visitor = Visitor(base, pinned=path != UNPINNED, known=known)
    try:
        for number, step in enumerate(journey.steps, 1):
            response, detail = _take(visitor, step, journey.timeout)
            if response is not None and response.headers.get(NO_INSTANCE[0], "").lower() == NO_INSTANCE[1]:
                return None
            if detail:
                return Run(clock.now(), False, _since(began), _label(number, step), detail)
    finally:
        visitor.close()
    return Run(clock.now(), True, _since(began))


def _take(visitor: Visitor, step: Stride, timeout: float) -> tuple[Response | None, str]:
    """The response of one step, if one came, and what is wrong with it."""
    began = clock.monotonic()
    headers = dict(step.headers)
    if step.json is not None:
        headers = {"Content-Type": "application/json", **headers}
    content = step.json if step.json is not None else step.body
    try:
        response = visitor.ask(step.method, step.url, timeout=timeout, headers=headers, form=step.form, content=content)
    except NoAnswer as error:
        return None, str(error)
    return response, fault(step.expect, response, clock.monotonic() - began)


def fault(expect: Expectation, response: Response, took: float) -> str:
    """The first expectation that the response does not meet; empty when it meets all."""
    if expect.status is not None and response.status != expect.status:
        return f"expected {expect.status}, got {response.status}"
    if expect.status is None and not 200 <= response.status <= 399:
        return f"expected 200 to 399, got {response.status}"
    if expect.within is not None and took > expect.within:
        return f"expected within {expect.within:g} s, took {took:.3f} s"
    if expect.contains is not None and expect.contains not in response.text:
        return f"the body does not contain `{_short(expect.contains)}`"
    if expect.not_contains is not None and expect.not_contains in response.text:
        return f"the body contains `{_short(expect.not_contains)}`"
    return _json_fault(expect.json, response) if expect.json else ""


def _json_fault(expected: dict[str, object], response: Response) -> str:
    try:
        document = json.loads(response.body)
    except (ValueError, RecursionError):
        return "the body is not JSON"
    for text, value in expected.items():
        there, found = find(document, parse_path(text))
        if not there:
            return f"expected {_short(text)} to be {_short(_json(value))}, found nothing there"
        if not same(found, value):
            return f"expected {_short(text)} to be {_short(_json(value))}, found {_short(_json(found))}"
    return ""


def _label(number: int, step: Stride) -> str:
    """The step as people know it, without what a URL may hide: user, password and query."""
    parts = urlsplit(step.url)
    return f"{number} {step.method} {_short((parts.hostname or '') + parts.path)}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def _since(began: float) -> float:
    return round(clock.monotonic() - began, 4)
