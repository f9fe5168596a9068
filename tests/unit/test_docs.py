"""The documents say what the code does: the state diagram, links, files and commands."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import typer
from typer.main import get_command

from deployguard.cli import app as cli
from deployguard.files.guard_file import load_bundle
from tests.properties.world import Sim
from tests.unit import diagram

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(d.relative_to(ROOT)) for d in DOCUMENTS]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
ROOMS = ("deployguard/", "docs/", "tests/", "examples/", "policies/", "benchmarks/")
PATH = re.compile(rf"`((?:{'|'.join(ROOMS)})[\w./-]*)`")


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as they are made on the web."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def commands(text: str) -> Iterator[list[str]]:
    """Every `deployguard ...` command of the code blocks, and of code within sentences, as words."""
    blocks = [line.removeprefix("$ ") for _, body in FENCE.findall(text) for line in body.splitlines() if "deployguard " in line]
    spans = re.findall(r"`(deployguard [^`]+)`", FENCE.sub("", text))
    for line in [*blocks, *spans]:
        for part in re.split(r"[;|&<>()]| #", line):
            if found := re.match(r"\s*(?:- )?(?:[A-Z_]+=\S+ )?deployguard ((?!\.)[a-z-].*)", part):
                yield shlex.split(found[1].split("`")[0])


@lru_cache(maxsize=1)
def line() -> Any:
    """The whole command line, apart from the one that other tests register single commands with."""
    with mock.patch.object(cli, "app", typer.Typer(callback=cli._root)):
        cli.register(cli.COMMANDS)
        return get_command(cli.app)


def fault(words: list[str]) -> str:
    """What the command line does not know of a command; empty when it knows all."""
    command, rest = line(), list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"no command `{rest[0]}`"
        command = command.commands[rest.pop(0)]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help", "-h"}
    return next((f"no option `{word}`" for word in rest if word.startswith("-") and word != "-" and word.split("=")[0] not in known), "")


def test_the_state_diagram_is_what_the_code_says() -> None:
    """`python -m tests.unit.diagram` prints what must stand in docs/design.md."""
    drawn = [body for kind, body in FENCE.findall((ROOT / "docs/design.md").read_text()) if kind == "mermaid"]
    assert drawn == [diagram.mermaid()]


@pytest.mark.parametrize("story", ["good", "bad", "blind", "held", "aborted"])
def test_no_played_rollout_takes_a_way_that_is_not_drawn(story: str) -> None:
    """The diagram is read from the text of the code; rollouts that are really played stay on its arrows."""
    sim = Sim(bad=0.2 if story == "bad" else 0.0)
    sim.begin()
    driver = sim.driver()
    for turn in range(90):
        if story == "blind":
            sim.blind = 15 <= turn < 25
        if (story, turn) in (("held", 8), ("aborted", 15)):
            sim.ask("pause" if story == "held" else "abort")
        if (story, turn) == ("held", 20):
            sim.ask("resume", "q2")
        sim.tick(driver)

    tags = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(): name for name in diagram.PHASES}
    rollout = sim.document().rollout
    assert rollout is not None
    phases = ["Waiting", *(tags[step.phase] for step in rollout.trail)]
    assert len(phases) > 3
    assert set(itertools.pairwise(phases)) <= set(diagram.arrows())


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_internal_link_leads_somewhere(document: Path) -> None:
    """A file that is linked is there, and so is the heading."""
    for link in LINK.findall(FENCE.sub("", document.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"{document.name}: {link}"
        assert not anchor or anchor in anchors(target.read_text()), f"{document.name}: {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_named_file_is_there(document: Path) -> None:
    """Paths of this project in code letters exist."""
    for path in PATH.findall(document.read_text()):
        assert (ROOT / path).exists(), f"{document.name}: {path}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_command_is_one_of_the_command_line(document: Path) -> None:
    """Each `deployguard ...` has a command and options that `--help` knows."""
    for words in commands(document.read_text()):
        assert not fault(words), f"{document.name}: deployguard {shlex.join(words)}: {fault(words)}"


def test_the_files_of_the_readme_are_right(tmp_path: Path) -> None:
    """The fleet and the guard of the five-minute start can be read as they stand."""
    files = [body for kind, body in FENCE.findall((ROOT / "README.md").read_text()) if kind == "yaml"]
    paths = [tmp_path / f"{n}.yaml" for n in range(len(files))]
    for path, body in zip(paths, files, strict=True):
        path.write_text(body)

    bundle = load_bundle(paths)

    assert sorted(bundle.fleets) == sorted(bundle.guards) == ["site"]


def test_every_make_target_of_the_readme_is_there() -> None:
    """`make ...` in the documents names a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text()
        named = set(re.findall(r"^\$ make ([a-z-]+)", text, re.MULTILINE)) | set(re.findall(r"`make ([a-z-]+)`", text))
        assert named <= targets, document.name


def test_every_environment_variable_of_the_settings_is_documented() -> None:
    """docs/environment.md names each process knob."""
    from deployguard.settings import Settings

    text = (ROOT / "docs/environment.md").read_text()
    for name in Settings.model_fields:
        assert f"`DEPLOYGUARD_{name.upper()}`" in text


def test_cited_sections_of_the_statistics_are_there() -> None:
    """A comment that cites `docs/statistics.md, section N` cites a section that exists."""
    heads = set(re.findall(r"^## (\d+)\. ", (ROOT / "docs/statistics.md").read_text(), re.MULTILINE))
    cited = {n for p in (ROOT / "deployguard").rglob("*.py") for n in re.findall(r"statistics\.md, section (\d+)", p.read_text())}
    assert cited
    assert cited <= heads
