"""Guard, policy and fleet files: what they load to, and what every wrong one says."""

from __future__ import annotations

import io
import itertools
import os
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from deployguard.errors import Fault, FileError, UserError
from deployguard.files.guard_file import Resolved, load_bundle, resolve
from deployguard.files.yaml_lines import parse_yaml

HEAD = "apiVersion: deployguard.dev/v1alpha1\nkind: Guard\nmetadata: {name: web}\nspec:\n  target: {name: shop}\n"
POLICY = HEAD + "  policy:\n    stages:\n"
SOUND = "      - {instances: 1, soak: 5m}\n"


def write(folder: Path, text: str | bytes, name: str = "guard.yaml") -> Path:
    """A file with this text."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def load(path: Path) -> Resolved:
    """The only guard of a file, resolved."""
    return resolve(None, load_bundle([path]))


def refused(path: Path) -> tuple[Fault, ...]:
    """The faults of a file that cannot be used; each names the file, and the exit code is 2."""
    with pytest.raises(FileError) as caught:
        load(path)
    assert caught.value.exit_code == 2
    assert all(line.startswith(f"{path}: ") for line in caught.value.message.split("\n"))
    return caught.value.faults


# Each case: what follows the head (five lines), the line, the field, a piece of what was found, a piece of the hint.
FAULTS = {
    "unknown field": ("  polcy: fast\n", 6, "spec.polcy", "unknown field `polcy`", "did you mean `policy`?"),
    "unknown field, nothing near": ("  zzz: 1\n", 6, "spec.zzz", "unknown field `zzz`", "known here: `target`, `config`, `policy`"),
    "a field of the policy": ("  stages: []\n", 6, "spec.stages", "unknown field `stages`", "it belongs in `spec.policy`"),
    "a field from further out": (
        "  policy: {stages: [{instances: 1, soak: 5m, interval: 2s}]}\n",
        6,
        "spec.policy.stages[0].interval",
        "unknown field `interval`",
        "it belongs in `spec.policy`",
    ),
    "text for a number": (
        "  policy:\n    stages: [{instances: one, soak: 5m}]\n",
        7,
        "spec.policy.stages[0].instances",
        "`one`",
        "write a whole number",
    ),
    "a number for text": ("  policy: 5\n", 6, "spec.policy", "`5` is not a policy", "the name of one, a path"),
    "a list for a map": ("  override: [1]\n", 6, "spec.override", "a list", "write a map"),
    "a map for a list": ("  checks: {a: 1}\n", 6, "spec.checks", "a map", "write a list"),
    "an empty value": ("  checks:\n", 6, "spec.checks", "empty", "leave the field out"),
    "no source": (
        "  checks:\n    - name: a\n",
        7,
        "spec.checks[0].source",
        "missing",
        "`scrape`, `prometheus`, `logs`, `balancer`, `probe`",
    ),
    "unknown source": ("  checks: [{name: a, source: scarpe}]\n", 6, "spec.checks[0].source", "`scarpe`", "did you mean `scrape`?"),
    "source health": ("  checks: [{name: a, source: health}]\n", 6, "spec.checks[0].source", "needs no check", "always watched"),
    "query": (
        "  checks: [{name: a, source: prometheus, url: 'http://p', bad: sum(up), total: up}]\n",
        6,
        "spec.checks[0].bad",
        "the query has no `$arm`",
        "sum(increase(",
    ),
    "pattern": ("  checks: [{name: a, source: logs, bad: '('}]\n", 6, "spec.checks[0].bad", "`(` is not a regular expression", ""),
    "two credentials": (
        "  checks: [{name: a, source: prometheus, url: 'http://p', gauge: up, bearer_token_env: T, bearer_token_file: t}]\n",
        6,
        "spec.checks[0].bearer_token_file",
        "are both given",
        "one of them",
    ),
    "selector": (
        "  checks: [{name: a, source: scrape, bad: 'up{', total: up}]\n",
        6,
        "spec.checks[0].bad",
        "`{` after `up` does not parse",
        "one pair of braces",
    ),
    "a part of a histogram": (
        "  checks: [{name: a, source: scrape, histogram: h_bucket}]\n",
        6,
        "spec.checks[0].histogram",
        "`histogram` names `h_bucket`, one part of the histogram",
        "write `h`",
    ),
    "one bucket of a histogram": (
        "  checks: [{name: a, source: scrape, histogram: 'h{le=\"1\"}'}]\n",
        6,
        "spec.checks[0].histogram",
        "`histogram` has a condition on `le`",
        "`within`",
    ),
    "a check that asks nothing": (
        "  checks: [{name: a, source: balancer, worse_than_stable: null}]\n",
        6,
        "spec.checks[0].worse_than_stable",
        "asks nothing",
        "`limit`",
    ),
    "duplicate check names": (
        "  checks:\n    - {name: a, source: balancer}\n    - {name: a, source: balancer}\n",
        8,
        "spec.checks[1].name",
        "`a` is taken by check 1",
        "a name of its own",
    ),
    "no announcement": ("  announce: [{lgo: true}]\n", 6, "spec.announce[0]", "no announcement", "{log: true}"),
    "webhook": ("  announce: [{webhook: 'ftp://x'}]\n", 6, "spec.announce[0].webhook", "`ftp://x`", "begins with `https://`"),
    "unknown policy": (
        "  policy: prodction\n",
        6,
        "spec.policy",
        "no policy `prodction`",
        "did you mean `production`? shipped policies are `config`",
    ),
    "policy path": ("  policy: p.yaml\n", 6, "spec.policy", "no file `p.yaml`", "relative to"),
    "override, unknown field": (
        "  override:\n    intervall: 5s\n",
        7,
        "spec.override.intervall",
        "unknown field",
        "did you mean `interval`?",
    ),
    "override, rule": ("  override:\n    interval: 5m\n", 7, "spec.override.interval", "shorter than two polls", "at least `10m`"),
    "override, missing": ("  override:\n    stages:\n    - {instances: 1}\n", 8, "spec.override.stages[0].soak", "missing", "watched time"),
    "override of inline": (
        "  policy: {stages: [{exposure: 100%, soak: 5m}]}\n  override: {strict: true}\n",
        7,
        "spec.override",
        "goes with a named policy",
        "change the inline policy",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_wrong_guard_names_its_place(case: str, tmp_path: Path) -> None:
    """Line, full field path, what was found, and what would be right."""
    body, line, field, found, right = FAULTS[case]
    fault = refused(write(tmp_path, HEAD + body))[0]
    assert (fault.line, fault.field) == (line, field)
    assert found in fault.found
    assert right in fault.right


STAGES = {
    "over 100%": ("      - {exposure: 150%, soak: 5m}\n", 8, "exposure", "`150%` is outside 0% to 100%", "such as `25%`"),
    "nothing": ("      - {exposure: 0%, soak: 5m}\n", 8, "exposure", "exposes nothing", "above 0%"),
    "short soak": ("      - {exposure: 100%, soak: 1s}\n", 8, "soak", "shorter than two polls", "at least `2s`"),
    "sexagesimal": ("      - {instances: 1, soak: 5:30}\n", 8, "soak", "`5:30` is not a duration", "`5m30s`"),
    "no unit": ("      - {instances: 1, soak: 5}\n", 8, "soak", "`5` has no unit", "`5s` or `5m`"),
    "misspelt": ("      - {instances: 1, soack: 5m}\n", 8, "soack", "unknown field `soack`", "did you mean `soak`?"),
    "two caps": ("      - {instances: 1, exposure: 5%, soak: 5m}\n", 8, "exposure", "two caps", "exactly one of"),
    "limit": ("      - {exposure: 100%, soak: 5m, limit: 1m}\n", 8, "limit", "shorter than the soak", "more than `5m`"),
}


@pytest.mark.parametrize("case", STAGES)
def test_a_wrong_stage_names_its_place(case: str, tmp_path: Path) -> None:
    """One fault only for each, at the field of the stage."""
    body, line, field, found, right = STAGES[case]
    (fault,) = refused(write(tmp_path, POLICY + body))
    assert (fault.line, fault.field) == (line, f"spec.policy.stages[0].{field}")
    assert found in fault.found
    assert right in fault.right


def test_stages_never_shrink(tmp_path: Path) -> None:
    """The stage that is smaller than the one before is named."""
    (fault,) = refused(
        write(
            tmp_path,
            POLICY + SOUND + "      - {exposure: 50%, soak: 5m}\n      - {exposure: 5%, soak: 5m}\n      - {exposure: 100%, soak: 5m}\n",
        )
    )
    assert (fault.line, fault.field) == (10, "spec.policy.stages[2].exposure")
    assert "smaller than stage 2" in fault.found


def test_all_faults_come_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    """Three documents, a fault in each, and a duplicate key: one error, sorted by line."""
    text = (
        HEAD
        + "  polcy: fast\n---\nkind: Gaurd\n---\n"
        + "kind: LocalFleet\nmetadata: {name: f}\nspec:\n  command: [x]\n  instances: 0\n  command: [y]\n"
    )
    faults = refused(write(tmp_path, text))
    assert [(fault.line, fault.field) for fault in faults] == [(6, "spec.polcy"), (8, "kind"), (14, "spec.instances"), (15, "spec.command")]
    assert faults[3].found == "written twice, first on line 13"


def test_the_faults_of_a_check_are_those_of_its_source(tmp_path: Path) -> None:
    """A check of source `scrape` is measured by the fields of ScrapeCheck alone."""
    faults = refused(write(tmp_path, HEAD + "  checks: [{name: a, source: scrape, bad: up, steps: []}]\n"))
    assert [(fault.field, fault.found) for fault in faults] == [
        ("spec.checks[0].steps", "unknown field `steps`"),
    ]


def test_no_message_is_in_the_words_of_a_library(tmp_path: Path) -> None:
    """Whatever type stands where, the message is ours."""
    for value in ("5", "x", "true", "[1]", "{a: 1}", "null", "1.5", "-1"):
        for field in ("target", "policy", "override", "checks", "announce"):
            text = HEAD.replace("  target: {name: shop}\n", "") + (f"  {field}: {value}\n")
            with pytest.raises(UserError) as caught:
                load(write(tmp_path, text))
            assert "Input should" not in caught.value.message
            assert "validation" not in caught.value.message


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "True"])
def test_a_yaml_boolean_where_text_is_expected_asks_for_quotes(word: str, tmp_path: Path) -> None:
    """The message shows the word as written, and the quotes."""
    text = f"kind: LocalFleet\nmetadata: {{name: f}}\nspec:\n  instances: 1\n  command: [x]\n  env: {{DEBUG: {word}}}\n"
    (fault,) = refused(write(tmp_path, text))
    assert (fault.line, fault.field) == (6, "spec.env.DEBUG")
    assert f'`"{word}"`' in fault.right


def test_a_wrong_api_version_names_the_right_one(tmp_path: Path) -> None:
    """The version that this program reads is in the message."""
    (fault,) = refused(write(tmp_path, HEAD.replace("v1alpha1", "v2")))
    assert (fault.line, fault.field, fault.right) == (1, "apiVersion", "write `deployguard.dev/v1alpha1`")


@pytest.mark.parametrize(
    ("kind", "right"), [("Gaurd", "did you mean `Guard`?"), ("localfleet", "did you mean `LocalFleet`?"), ("Deployment", "known kinds are")]
)
def test_an_unknown_kind_names_the_nearest(kind: str, right: str, tmp_path: Path) -> None:
    """And lists those that are known."""
    (fault,) = refused(write(tmp_path, HEAD.replace("Guard", kind)))
    assert (fault.line, fault.field) == (2, "kind")
    assert right in fault.right


def test_a_second_object_of_the_same_name_names_the_first(tmp_path: Path) -> None:
    """Across files too; the same file given twice is read once."""
    first, second = write(tmp_path, HEAD), write(tmp_path, "# again\n" + HEAD, "other.yaml")
    with pytest.raises(FileError) as caught:
        load_bundle([first, first, second])
    (fault,) = caught.value.faults
    assert (caught.value.path, fault.line, fault.field) == (str(second), 4, "metadata.name")
    assert f"the first is in {first} line 3" in fault.found


UNREADABLE: dict[str, tuple[str | bytes, int, str, str]] = {
    "empty": ("", 0, "nothing stands in this file", "deployguard init"),
    "comments only": ("# nothing\n---\n", 0, "nothing stands in this file", "deployguard init"),
    "binary": (b"kind: Guard\nx: \x00\x01", 2, "binary data", "YAML in UTF-8"),
    "not UTF-8": (b"kind: Guard\nname: caf\xe9\n", 2, "not UTF-8 (byte 0xe9)", "YAML in UTF-8"),
    "UTF-16": (HEAD.encode("utf-16"), 0, "UTF-16", "save it as UTF-8"),
    "tab": ("kind: Guard\nspec:\n\tpolicy: fast\n", 3, "a tab", "spaces"),
    "duplicate key": (HEAD + "  policy: fast\n  policy: fast\n", 7, "written twice, first on line 6", "keep one"),
    "tag": ("kind: !!python/object/apply:os.system [ls]\n", 1, "the tag `!!python/object/apply:os.system`", "plain values"),
    "not closed": ("kind: Guard\nspec: {a: 1\n", 3, "a `{` that is not closed", "{key: value"),
    "quote": ("kind: 'Guard\n", 2, "a quote that is not closed", "close it"),
    "colon": ("kind: Guard\nwhy: a: b\n", 2, "a `:`", "quotes"),
    "alias of nothing": ("kind: *x\n", 1, "`*x` has no anchor", "`&x`"),
    "alias of itself": ("a: &a [*a]\n", 1, "`*a` has no anchor", "`&a`"),
    "merge key": ("a: &a {b: 1}\nc: {<<: *a}\n", 2, "`<<`", "override"),
    "deep": ("[" * 5000, 1, "nested more than 50 deep", "no field"),
    "list key": ("? [a]\n: b\n", 1, "a key that is a list", "plain text"),
    "a list": ("- a\n", 1, "a list stands where a map is expected", "kind: Guard"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_not_a_guard_file_says_why(case: str, tmp_path: Path) -> None:
    """With the line, where there is one."""
    text, line, found, right = UNREADABLE[case]
    fault = refused(write(tmp_path, text))[0]
    assert fault.line == line
    assert found in fault.found
    assert right in fault.right


def test_a_missing_file_a_directory_and_a_forbidden_file_are_told_apart(tmp_path: Path) -> None:
    """Each message says what to do."""
    assert refused(tmp_path / "none.yaml")[0].found == "no such file"
    assert refused(tmp_path)[0].found == "a directory"
    assert "no such file" in refused(tmp_path / ("x" * 200))[0].found
    if os.geteuid() != 0:
        path = write(tmp_path, HEAD)
        path.chmod(0)
        assert refused(path)[0].found == "no permission to read it"


def test_ten_megabytes_are_refused_unread(tmp_path: Path) -> None:
    """The message names the size and the limit, at once and without the memory."""
    path = write(tmp_path, b"a: 1\n" * 2_000_000)
    tracemalloc.start()
    (fault,) = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (fault.found, fault.right) == ("10,000,000 bytes", "a file may have at most 1,000,000 bytes")
    assert peak < 1_000_000


def test_anchors_that_explode_end_in_an_error(tmp_path: Path) -> None:
    """Nine to the twelfth values stand for nothing: the count stops the reading within a second and little memory."""
    names = [f"a{number}" for number in range(12)]
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in itertools.pairwise(names)]
    path = write(tmp_path, "\n".join(lines))
    began = time.monotonic()
    tracemalloc.start()
    (fault,) = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (fault.line, fault.found) == (6, "more than 100,000 values, counting what aliases stand for")
    assert time.monotonic() - began < 2
    assert peak < 5_000_000


def test_aliases_stand_for_their_values(tmp_path: Path) -> None:
    """A soak written once may be used in several stages."""
    loaded = load(write(tmp_path, POLICY + "      - {instances: 1, soak: &soak 5m}\n      - {exposure: 100%, soak: *soak}\n"))
    assert loaded.policy.stages[1].soak.total_seconds() == 300


def test_scalars_mean_what_people_expect() -> None:
    """Times and dates stay text, leading zeros are no octal numbers, keys are always text."""
    (document,) = parse_yaml("a: 5:30\nb: 2026-01-01\nc: 010\nd: 1e3\ne: 0x1f\nf: ~\non: off\n1: '1'\n", "x")
    assert document.data == {"a": "5:30", "b": "2026-01-01", "c": 10, "d": 1000.0, "e": "0x1f", "f": None, "on": False, "1": "1"}
    assert document.line_of(("on",)) == 7


def test_standard_input_is_a_file_called_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads a guard, and relative paths in it are relative to the working directory."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(HEAD.encode())))
    loaded = resolve(None, load_bundle(["-"]))
    assert (loaded.path, loaded.guard.metadata.name) == ("-", "web")
