"""What people read: `why`, the report of a run, Markdown, JUnit, `status`, `history` and the lines of a log."""

from __future__ import annotations

import datetime as dt
import xml.etree.ElementTree as ET
from typing import Any

import msgspec
import pytest

from deployguard.model.document import Claim, Document, StableVersion
from deployguard.model.evidence import Finding, Latched
from deployguard.model.reading import Counter
from deployguard.model.rollout import Holding, Promoted, Refused, RolledBack, RollingBack, Step, Watching
from deployguard.report.history import history_rows, history_text
from deployguard.report.junit import report_junit
from deployguard.report.lines import progress_line, since_start, trail_line
from deployguard.report.markdown import report_markdown
from deployguard.report.numbers import ratio_cell
from deployguard.report.stages import stages_of
from deployguard.report.status import status_rows, status_text
from deployguard.report.text import report_text, why_entries, why_text
from deployguard.report.versions import names_of
from deployguard.report.view import bare_report
from deployguard.stores.ledger import Summary
from deployguard.targets.simulated import Behaviour
from tests.properties.world import NEW, NEXT, OLD, START, Sim
from tests.unit.reports import NAMES, ended, later, ledger, named, report, rolling, ticked, with_phase
from tests.unit.test_report import validated


@pytest.fixture(scope="module")
def bad() -> tuple[Document, Sim]:
    """A rollout that was judged bad and has come to its end."""
    sim = Sim(bad=0.2)
    return ended(sim), sim


def has(text: str, *parts: str) -> None:
    """Every part is in the text."""
    missing = [part for part in parts if part not in text]
    assert not missing, f"{missing} not in:\n{text}"


def test_why_names_check_counts_ratio_limit_exposure_and_action(bad: tuple[Document, Sim]) -> None:
    """One look answers: what, against what, how sure, how many users, what was done, what now."""
    document, sim = bad
    text = why_text(document, sim.clock.at)
    first = text.splitlines()[0]
    assert first.startswith("ROLLED BACK to v1 (")
    assert first.endswith("at 00:00:03 UTC, 2 s after the first bad sample")
    has(text, "errors", "candidate 20% (12 of 60)", "stable 0% (0 of 420)", "ratio [7.76 or more]", "evidence 491 > 111")
    has(text, "1.25 x stable + 0.02%, floor 1%", "FAIL", "1 of 8 instances for 3 s; 60 requests, 12 failed")
    has(text, "confirmed at 00:00:04 UTC after 1 s: 8 of 8 instances", "quarantine: v2", "--override")


def test_why_says_how_long_the_restored_version_has_been_stable(bad: tuple[Document, Sim]) -> None:
    """A version that earned it is called stable with its age; one that was found running is not."""
    document, sim = bad
    earned = StableVersion(OLD, sim.clock.at - dt.timedelta(days=3), "r0")
    rollout = msgspec.structs.replace(rolling(document), adopted=False)
    has(why_text(msgspec.structs.replace(document, stable=(earned,), rollout=rollout), sim.clock.at), "to v1 (stable since 3d) at")
    has(why_text(document, sim.clock.at), "found running")


def test_why_from_the_ledger_says_the_same(bad: tuple[Document, Sim]) -> None:
    """An older rollout's story comes from its ledger entries, numbers included."""
    document, sim = bad
    text = why_entries(ledger(sim), sim.clock.at, names_of(document))
    has(
        text, "ROLLED BACK to v1", "candidate 20% (12 of 60)", "ratio [7.76 or more]", "evidence 491 > 111", "1 of 8 instances; 60 requests"
    )
    has(text, "confirmed at 00:00:04 UTC after 1 s")
    has(why_entries([], sim.clock.at), "no entry")


@pytest.mark.parametrize(
    ("story", "head"), [("promoted", "PROMOTED v2 at 00:00:33 UTC"), ("aborted", "TAKEN BACK to v1"), ("held", "HOLDING")]
)
def test_why_from_the_ledger_tells_other_ends(story: str, head: str) -> None:
    """Promotion, a person's abort and a hold are told from entries too."""
    sim = Sim()
    sim.begin()
    driver = sim.driver()
    for _ in range(4):
        sim.tick(driver)
    if story == "held":
        sim.blind = True
        for _ in range(6):
            sim.tick(driver)
    else:
        if story == "aborted":
            sim.ask("abort")
        sim.run(driver)
    text = why_entries(ledger(sim), sim.clock.at, names_of(named(sim)))
    assert text.startswith(head)
    if story == "aborted":
        has(text, "without a verdict", "ann asked for abort", "nothing is quarantined")


def test_why_of_a_running_rollout_shows_what_is_known_so_far() -> None:
    """Stage, numbers so far, exposure, and what it would go back to."""
    sim = Sim(bad=0.002)
    text = why_text(ticked(sim, 16), sim.clock.at)
    assert text.startswith("STAGE 2/3 soak 0:04: v1 -> v2")
    has(text, "not yet", "4 of 8 instances", "v1 is the version to go back to")


def test_why_of_a_hold_names_the_silent_signals_since_when() -> None:
    """A blind hold says which signal of which arm is silent, since when and why, and what to do."""
    sim = Sim()
    sim.begin()
    driver = sim.driver()
    for tick in range(12):
        sim.blind = tick >= 5
        sim.tick(driver)
    text = why_text(named(sim), sim.clock.at)
    assert text.startswith("HELD (blind) since")
    has(text, "BLIND (missing)", "candidate is silent since 00:00:05 UTC: timeout nobody answers", "bring the signal back")


@pytest.mark.parametrize(
    ("why", "hint"), [("approval", "approve"), ("paused", "resume"), ("samples", "more traffic"), ("drift", "who else")]
)
def test_every_hold_has_a_hint(why: str, hint: str) -> None:
    """What a person can do is said for each kind of hold."""
    sim = Sim()
    document = with_phase(ticked(sim, 4), Holding(0, why, "because", sim.clock.at))  # type: ignore[arg-type]
    has(why_text(document, sim.clock.at), f"HELD ({why})", "next:", hint)


def test_why_of_a_doomed_candidate_quotes_the_instance() -> None:
    """An instance that cannot live is named with its exit code, without numbers that nobody counted."""
    sim = Sim(behaviour=Behaviour(ready_after=None, exits_after=0.5))
    has(
        why_text(ended(sim), sim.clock.at),
        "health",
        "exited with code 1 before it was ready",
        "FAIL (doomed)",
        "an instance of the candidate cannot live",
    )


def test_why_of_refused_and_of_nothing(bad: tuple[Document, Sim]) -> None:
    """A refusal says why, and a guard without a rollout says that."""
    document, sim = bad
    refused = with_phase(document, Refused("v2 is quarantined"), latched=None, findings=(), trail=(), exposed_most=0, exposed_since=None)
    has(why_text(refused, sim.clock.at), "REFUSED", "v2 is quarantined")
    has(why_text(Document(guard="web"), sim.clock.at), "nothing was rolled out yet")


def test_the_report_of_a_run_begins_with_outcome_and_exit_code(bad: tuple[Document, Sim]) -> None:
    """The first line is for people who scan a log; a run without a rollout is one line."""
    document, sim = bad
    text = report_text(report(document, sim.clock.at))
    assert text.startswith("web: rolled_back (exit code 10)\nROLLED BACK to v1")
    assert report_text(bare_report("web", "refused", 13, "frozen", sim.clock.at)) == "web: refused (exit code 13): frozen\n"


def hostile(document: Document) -> Document:
    """The document with a finding whose text tries to steer a terminal, a table and an XML file."""
    evil = "health: \x1b[2J| <b>*x*</b>\n::error::]]>\x00"
    finding = Finding("health", "fail", "doomed", evil, {"candidate": Counter(1, 1)})
    latched = Latched(later(3), "doomed", evil, (finding,), 1, 8)
    return with_phase(
        document, RollingBack(OLD, 0, "fail", evil, later(60)), latched=latched, trail=(Step(later(3), "rolling_back", evil),)
    )


def test_what_a_service_logged_steers_nothing(bad: tuple[Document, Sim]) -> None:
    """Control characters never reach a terminal, one text stays on one line, and markup is shown as text."""
    document, sim = bad
    odd = hostile(document)
    texts = [
        why_text(odd, sim.clock.at),
        report_text(report(odd, sim.clock.at)),
        report_markdown(report(odd, sim.clock.at)),
        status_text(status_rows([(odd, None)], sim.clock.at)),
        trail_line(rolling(odd).trail[0], START),
        progress_line(rolling(odd), (), sim.clock.at),
    ]
    for text in texts:
        assert "\x1b" not in text
        assert not any(line.lstrip().startswith("::error") for line in text.splitlines())
    has(texts[2], r"\| \<b\>\*x\*\</b\>")
    ET.fromstring(report_junit(report(odd, sim.clock.at)))  # our own output


def test_markdown_has_a_table_of_checks(bad: tuple[Document, Sim]) -> None:
    """Each row of each table has as many cells as its head."""
    document, sim = bad
    text = report_markdown(report(document, sim.clock.at))
    has(
        text,
        "### web: rolled back (exit code 10)",
        "| Verdict | Check |",
        "| FAIL (evidence) | errors | 20% (12 of 60) |",
        "- exposure: at most 1 of 8",
    )
    rows = [line.replace(r"\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {7, 4}


def test_junit_counts_what_failed(bad: tuple[Document, Sim]) -> None:
    """A condemned rollout is a failure, and so are its stage and its check; stages not reached are skipped; a promoted one has neither."""
    document, sim = bad
    (suite,) = ET.fromstring(report_junit(report(document, sim.clock.at)))
    assert [suite.get(kind) for kind in ("tests", "failures", "errors", "skipped")] == ["5", "3", "0", "2"]
    names = [case.get("name", "") for case in suite.iter("testcase")]
    assert names[1:] == ["stage 1/3", "stage 2/3", "stage 3/3", "check errors"]
    good = Sim()
    (suite,) = ET.fromstring(report_junit(report(ended(good), good.clock.at)))
    has(ET.tostring(suite, "unicode"), "PROMOTED v2 at 00:00:33 UTC", "PASS")
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("0", "0", "0")
    assert [case.get("time") for case in suite.iter("testcase")][1:4] == ["11.000", "11.000", "11.000"]


def test_status_keeps_three_facts_apart(bad: tuple[Document, Sim]) -> None:
    """What serves, what is wanted and what the guard does stand in columns of their own; quarantine below."""
    document, sim = bad
    (row,) = rows = validated(status_rows([(document, sim.target.observe())], sim.clock.at))
    assert (row["serving"]["name"], row["wanted"]["name"], row["phase"]) == ("v1", "v2", "rolled_back")
    assert (row["exposure"], row["signals"], row["rollback"]) == ({"instances": 0, "of": 8}, None, "took 1 s")
    text = status_text(rows, sim.clock.at)
    has(text, "GUARD", "v1 adopted (25s)", "ROLLED_BACK 21s ago", "0/8", "v2 is quarantined since 00:00:03 UTC")
    assert "driven by" not in text


def test_status_names_blind_signals_and_the_driver() -> None:
    """A silent signal is named in the table, the reason and the driver below; a claim that has lapsed drives nothing."""
    sim = Sim()
    sim.begin()
    driver = sim.driver()
    for tick in range(12):
        sim.blind = tick >= 5
        sim.tick(driver)
    document, view = named(sim), sim.target.observe()
    rows = validated(status_rows([(document, view)], sim.clock.at, stopped="stopped by ann"))
    has(
        status_text(rows),
        "HELD (blind)",
        "1/8",
        "0/1 blind: errors",
        "armed, to v1",
        "web: driven by driver-1",
        "everything: stopped by ann",
    )
    alone = msgspec.structs.replace(document, claim=Claim("driver-1", sim.clock.at - dt.timedelta(seconds=1)))
    has(status_text(validated(status_rows([(alone, view)], sim.clock.at))), "nobody drives: `deployguard run --resume`")
    long = status_rows([(alone, view)], sim.clock.at + dt.timedelta(minutes=5))
    has(status_text(validated(long)), "nobody has looked at the target for 5m")


def test_an_older_version_on_the_last_rung_is_named(bad: tuple[Document, Sim]) -> None:
    """When stable itself was not taken, `why` says which older version it goes to, and what to do."""
    document, sim = bad
    older = with_phase(document, RollingBack(NEXT, 2, "fail", "errors", later(60)))
    text = why_text(msgspec.structs.replace(older, names={**NAMES, NEXT.release: "v0"}), sim.clock.at)
    has(
        text, "ROLLING BACK to v0 (an older stable version, because v1 was not taken)", "going back to v0; not complete yet", "run --resume"
    )


def test_a_return_is_told_without_an_exposure(bad: tuple[Document, Sim]) -> None:
    """Going back on request exposes no candidate, so nothing is said about one."""
    document, sim = bad
    done = with_phase(document, RolledBack(OLD, "rollback", "ann asked for it"), kind="return", latched=None, findings=())
    text = why_text(msgspec.structs.replace(done, quarantine=()), sim.clock.at)
    has(text, "ROLLED BACK to v1", "ann asked for it")
    assert "exposure" not in text


def test_status_without_a_look_at_the_target_says_so(bad: tuple[Document, Sim]) -> None:
    """What is recorded is shown as recorded, and unknown counts as unknown."""
    document, sim = bad
    has(status_text(validated(status_rows([(document, None)], sim.clock.at))), "?/8", "the target was not seen")
    has(status_text(validated(status_rows([(Document(guard="new"), None)], sim.clock.at))), "<unknown>", "<none>", "nothing rolled out yet")
    assert status_text([]) == "no guards\n"


def test_status_after_promotion_and_while_overdue(bad: tuple[Document, Sim]) -> None:
    """A promoted version is what serves and what is wanted; an overdue way back is said loudly."""
    sim = Sim()
    document = ended(sim)
    (row,) = validated(status_rows([(document, sim.target.observe())], sim.clock.at))
    assert (row["serving"]["name"], row["serving"]["stable"], row["exposure"], row["rollback"]) == ("v2", True, None, "to v1")
    watching = with_phase(document, Watching(later(86400)))
    assert status_rows([(watching, sim.target.observe())], sim.clock.at)[0]["rollback"] == "armed, to v1"
    late = with_phase(bad[0], RollingBack(OLD, 1, "fail", "errors", later(9), overdue=True))
    has(status_text(status_rows([(late, None)], sim.clock.at)), "overdue", "takes longer than the policy allows")


def test_history_lists_outcomes_and_ages(bad: tuple[Document, Sim]) -> None:
    """One row a rollout; a running one has no end, and a long text is cut."""
    document, _ = bad
    over = Summary("r1", START, later(24), NEW.digest, "rolled_back", "x" * 200, 5)
    going = Summary("r2", later(25), None, "", "analyzing", "stage 1/3", 2)
    rows = history_rows([going, over], later(60), names_of(document))
    assert [(r["name"], r["took_s"], r["age_s"]) for r in rows] == [(None, None, 35), ("v2", 24.0, 60)]
    text = history_text([going, over], later(60), names_of(document))
    has(text, "ROLLOUT", "still going", "24 s", "1m", "…")
    assert max(map(len, text.splitlines())) < 140
    assert history_text([], later(0)) == "no rollouts yet\n"


def test_log_lines_say_when_where_and_how_much() -> None:
    """A trail line and a progress line each fit on one line of a CI log."""
    sim = Sim(bad=0.002)
    document = ticked(sim, 19)
    rollout = rolling(document)
    assert trail_line(rollout.trail[0], rollout.started) == "+0s advancing stage 1/3: 1 of 8 instances"
    line = progress_line(rollout, stages_of(rollout), sim.clock.at, name=document.name)
    has(line, "+19s stage 2/3 soak 0:07 of 0:10, errors ", " vs ", "evidence ", " of 111")
    long = progress_line(rollout, stages_of(rollout), sim.clock.at + dt.timedelta(seconds=30))
    has(long, "extended for more samples for at most 40 s")
    assert progress_line(rolling(with_phase(document, Promoted())), (), sim.clock.at).startswith("+19s PROMOTED")
    assert [since_start(later(s), START) for s in (5, 65, 3725)] == ["+5s", "+1m05s", "+1h02m05s"]


def test_ratios_say_what_is_known() -> None:
    """A closed interval, an open one, one that says nothing, and none."""
    cells: list[tuple[dict[str, Any], str]] = [
        ({"ratio": 9.84, "interval": [5.2, 18.0]}, "ratio 9.84 [5.2 to 18]"),
        ({"ratio": 9.84, "interval": [5.2, None]}, "ratio 9.84 [5.2 or more]"),
        ({"ratio": 1.5, "interval": [0.0, None]}, "ratio 1.5"),
        ({"ratio": None, "interval": None}, "-"),
    ]
    assert [ratio_cell(check) for check, _ in cells] == [text for _, text in cells]
