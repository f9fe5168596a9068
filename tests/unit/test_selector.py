"""Series selectors, as people know them from PromQL."""

from __future__ import annotations

import pytest

from deployguard.model.selector import parse_selector


@pytest.mark.parametrize(
    ("text", "labels", "accepted"),
    [
        ("up", {}, True),
        ("up", {"job": "x"}, True),
        ("up{}", {"job": "x"}, True),
        ('up{job="x"}', {"job": "x"}, True),
        ('up{job="x"}', {}, False),
        ('up{job=""}', {}, True),
        ('up{job!="x"}', {}, True),
        ('up{job!="x"}', {"job": "x"}, False),
        ('up{code=~"5.."}', {"code": "503"}, True),
        ('up{code=~"5.."}', {"code": "5030"}, False),
        ('up{code!~"5..|429"}', {"code": "429"}, False),
        ('up{code!~"5..|429"}', {"code": "200"}, True),
        ("up{a=\"1\", b='2',}", {"a": "1", "b": "2"}, True),
        ('up{a="1",b="2"}', {"a": "1", "b": "3"}, False),
        (' up { a = "{,}" } ', {"a": "{,}"}, True),
        (r'up{a="q\"\\\n"}', {"a": 'q"\\\n'}, True),
        (r'up{a=~"\\d+"}', {"a": "17"}, True),
        ('up{quantile="1"}', {"quantile": "1.0"}, True),
        ('up{le!="0.50"}', {"le": "0.5"}, False),
        ('up{le="+Inf"}', {"le": "0.5"}, False),
        ('up{quantile="x"}', {"quantile": "1"}, False),
        ('up{a="1"}', {"a": "1.0"}, False),
    ],
)
def test_selects_as_promql_does(text: str, labels: dict[str, str], accepted: bool) -> None:
    """Equality, regular expressions over the whole value, escapes, an absent label as the empty string, and bounds as numbers."""
    assert parse_selector(text).accepts("up", labels) is accepted


def test_the_metric_name_must_be_equal() -> None:
    """A selector selects its own metric only."""
    assert not parse_selector("up").accepts("upper", {})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "``"),
        ("5xx", "5xx"),
        ("up{", "{"),
        ("up[5m]", "[5m]"),
        ("up{job}", "job"),
        ('up{job="x}', 'job="x'),
        ('up{a="1" b="2"}', "commas"),
        ('up{a=~"("}', "regular expression"),
    ],
)
def test_a_wrong_selector_names_its_place(text: str, named: str) -> None:
    """The error shows the piece that does not parse."""
    with pytest.raises(ValueError, match=r"does not parse|not a series selector|commas|regular expression") as caught:
        parse_selector(text)
    assert named in str(caught.value)
