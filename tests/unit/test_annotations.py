"""What a CI system gets besides the exit code, written where its environment says."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from deployguard.report.annotations import MOST_SUMMARY, outputs, platform, summary
from deployguard.report.junit import report_junit
from deployguard.report.view import refused_report
from tests.properties.world import NEW, Sim
from tests.unit.reports import ended, named, report, ticked


@pytest.fixture(scope="module")
def bad() -> dict[str, Any]:
    """The report of a rollout that was judged bad."""
    sim = Sim(bad=0.2)
    return report(ended(sim), sim.clock.at)


def test_github_gets_annotations_outputs_and_a_summary(bad: dict[str, Any], tmp_path: Path) -> None:
    """Commands for the log, lines in the output file, a page after what stands there already."""
    out, page = tmp_path / "out", tmp_path / "page"
    page.write_text("before\n")
    env = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(out), "GITHUB_STEP_SUMMARY": str(page)}
    lines = platform(bad, env, Path("report.json"))
    assert [line.split("::")[1] for line in lines] == ["error title=deployguard web", "error title=deployguard web%3A errors"]
    assert "ROLLED BACK to v1" in lines[0]
    assert "candidate 20%25 (12 of 60)" in lines[1]
    values = dict(line.split("=", 1) for line in out.read_text().splitlines())
    assert (values["verdict"], values["rollback"], values["exit-code"]) == ("fail", "true", "10")
    assert values["report-path"] == "report.json"
    assert page.read_text().startswith("before\n### web: rolled back")


def test_nothing_that_a_service_says_steers_the_runner(bad: dict[str, Any], tmp_path: Path) -> None:
    """Line ends, commands and commas in texts cannot begin a command, end a title or set another output."""
    evil = "x\n::stop-commands::y\r\n%0A,title=z"
    odd = {**bad, "guard": evil, "reason": evil, "checks": [{**bad["checks"][0], "text": evil, "name": evil}]}
    out = tmp_path / "out"
    lines = platform(odd, {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(out)})
    assert len(lines) == len("\n".join(lines).splitlines()) == 2
    assert all(line.startswith("::error title=deployguard x") for line in lines)
    assert all("," not in line.split("::")[1] for line in lines)
    assert {line.split("=", 1)[0] for line in out.read_text().splitlines()} == set(outputs(odd))


def test_a_summary_stays_below_the_platforms_limit(bad: dict[str, Any]) -> None:
    """A page that would be dropped as a whole loses its trail first, and is left out when even that is not enough."""
    long = {**bad, "trail": [{**bad["trail"][0], "text": "x" * 100_000}] * 50}
    assert len(summary(long).encode()) < MOST_SUMMARY
    assert "x" * 1000 not in summary(long)
    assert summary(bad, written=MOST_SUMMARY - 10) == ""


def test_gitlab_and_tekton_get_files_of_their_own(bad: dict[str, Any], tmp_path: Path) -> None:
    """A link for the job's page, and one file for each result; an unwritable place is said and changes nothing."""
    links = tmp_path / "annotations.json"
    env = {"DEPLOYGUARD_ANNOTATIONS": str(links), "DEPLOYGUARD_RESULTS": str(tmp_path), "CI_JOB_URL": "https://ci.example/jobs/7"}
    assert platform(bad, env) == []
    (link,) = json.loads(links.read_text())["deployguard"]
    assert link["external_link"]["url"] == "https://ci.example/jobs/7/artifacts/browse"
    assert "ROLLED BACK to v1" in link["external_link"]["label"]
    assert [(tmp_path / name).read_text() for name in ("verdict", "rollback", "exit-code")] == ["fail", "true", "10"]
    assert platform(bad, {}) == []
    (line,) = platform(bad, {"GITHUB_OUTPUT": str(tmp_path / "absent/out")})
    assert line.startswith("could not write to ")


def cases(found: dict[str, Any]) -> dict[str, str]:
    """The result of each JUnit case but the rollout's own: failure, error, skipped or empty."""
    (suite,) = ET.fromstring(report_junit(found))
    return {case.get("name", ""): next((child.tag for child in case), "") for case in list(suite.iter("testcase"))[1:]}


def test_a_rollout_that_was_cut_short_condemns_no_stage() -> None:
    """Aborted and refused ones skip what they did not see; a held one is an error."""
    aborted = Sim()
    aborted.begin()
    driver = aborted.driver()
    for _ in range(14):
        aborted.tick(driver)
    aborted.ask("abort")
    aborted.run(driver)
    document = named(aborted)
    found = report(document, aborted.clock.at)
    people = [{"verb": "abort", "who": "ann", "at": found["at"], "text": "ann asked for abort"}]
    assert [cases({**found, "requests_by_people": people})[f"stage {n}/3"] for n in (1, 2, 3)] == ["", "skipped", "skipped"]
    refused = refused_report(document, now=aborted.clock.at, reason="v2 is quarantined", candidate=NEW)
    assert cases(refused) == {}
    assert outputs(refused)["verdict"] == "refused"
    held = Sim()
    text = {"why": "blind", "since": found["at"], "text": "errors is silent"}
    going = {**report(ticked(held, 4), held.clock.at), "held": text, "phase": "holding"}
    assert cases(going)["stage 1/3"] == "error"
