"""Guards with all that they name: policies by name, path and inline; overrides; added checks; fleets."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from deployguard.errors import FileError, UserError
from deployguard.files.guard_file import load_bundle, resolve
from deployguard.files.shipped import shipped_names, shipped_policy

ROOT = Path(__file__).parents[2]
GUARD = "kind: Guard\nmetadata: {{name: {name}}}\nspec: {{target: {{name: shop}}{more}}}\n---\n"
OWN = "kind: GuardPolicy\nmetadata: {name: own}\nspec:\n  stages: [{exposure: 100%, soak: 7m}]\n  rollback: {within: 9m, batch: 10%}\n---\n"
FLEET = "kind: LocalFleet\nmetadata: {name: shop}\nspec: {instances: 3, command: [x]}\n---\n"


def guard(more: str = "", name: str = "web") -> str:
    """A guard document with more fields of its spec."""
    return GUARD.format(name=name, more=more and ", " + more)


def write(folder: Path, text: str, name: str = "guard.yaml") -> Path:
    """A file with this text."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_the_shipped_policies_are_those_that_the_guide_names() -> None:
    """Four policies, each valid, none with checks: the guard brings its own."""
    assert shipped_names() == ["config", "fast", "low-traffic", "production"]
    assert all(shipped_policy(name).checks == [] for name in shipped_names())
    assert [stage.soak.total_seconds() / 60 for stage in shipped_policy("production").stages] == [5, 10, 15, 15, 30]
    assert {name: shipped_policy(name).pass_ for name in shipped_names()} == {
        "config": "soak",
        "fast": "soak",
        "low-traffic": "soak",
        "production": "proof",
    }


def test_a_guard_without_a_word_about_policy_takes_production_and_counts_errors(tmp_path: Path) -> None:
    """The balancer of a local fleet sees every request, so a guard without checks is not blind."""
    loaded = resolve(None, load_bundle([write(tmp_path, guard())]))
    assert loaded.policy_name == "production"
    assert [(c.name, c.source, c.claims) for c in loaded.policy.checks] == [("errors", "balancer", 10.0)]
    assert loaded.fleet is None


def test_a_guard_with_checks_gets_no_other(tmp_path: Path) -> None:
    """The guard's checks come after those of the policy."""
    loaded = resolve(None, load_bundle([write(tmp_path, guard("checks: [{name: mine, source: balancer}]"))]))
    assert [check.name for check in loaded.policy.checks] == ["mine"]


def test_a_policy_of_the_files_goes_before_a_shipped_one(tmp_path: Path) -> None:
    """Names are looked up in the given files first."""
    text = OWN.replace("own", "fast") + guard("policy: fast")
    assert resolve(None, load_bundle([write(tmp_path, text)])).policy.stages[0].soak == dt.timedelta(minutes=7)


def test_an_override_merges_maps_and_replaces_lists(tmp_path: Path) -> None:
    """What the override does not name stays as the policy has it."""
    text = OWN + guard("policy: own, override: {rollback: {within: 1m}, stages: [{exposure: 100%, soak: 1m}], protect: {block_cap: null}}")
    policy = resolve(None, load_bundle([write(tmp_path, text)])).policy
    assert (policy.rollback.within, policy.rollback.batch) == (dt.timedelta(minutes=1), 0.1)
    assert [stage.exposure for stage in policy.stages] == [1.0]
    assert policy.protect.block_cap is None


def test_a_policy_path_is_relative_to_the_guard_file(tmp_path: Path) -> None:
    """And holds exactly one policy."""
    write(tmp_path, OWN, "sub/own.yaml")
    path = write(tmp_path, guard("policy: own.yaml"), "sub/guard.yaml")
    assert resolve(None, load_bundle([path])).policy_name == "own"
    write(tmp_path, OWN + OWN.replace("own", "other"), "sub/own.yaml")
    with pytest.raises(FileError, match="holds 2 policies"):
        resolve(None, load_bundle([path]))


def test_a_fault_of_a_policy_file_names_that_file(tmp_path: Path) -> None:
    """Not the guard that uses it."""
    policy = write(tmp_path, OWN.replace("7m", "7"), "own.yaml")
    with pytest.raises(FileError) as caught:
        resolve(None, load_bundle([write(tmp_path, guard("policy: own.yaml"))]))
    assert (caught.value.path, caught.value.faults[0].line) == (str(policy), 4)


def test_a_check_with_the_name_of_one_of_the_policy_is_named_in_the_guard(tmp_path: Path) -> None:
    """The place is the guard's check, whatever file the policy is in."""
    own = write(tmp_path, OWN.replace("spec:\n", "spec:\n  checks: [{name: errors, source: balancer}]\n"), "own.yaml")
    path = write(tmp_path, guard("policy: own, checks: [{name: errors, source: balancer}]"))
    with pytest.raises(FileError) as caught:
        resolve(None, load_bundle([own, path]))
    assert (caught.value.path, caught.value.faults[0].line, caught.value.faults[0].field) == (str(path), 3, "spec.checks[0].name")


def test_an_override_that_breaks_what_the_policy_says_is_named_where_it_is_written(tmp_path: Path) -> None:
    """A lease of one second is a fault of the override, not of the policy."""
    with pytest.raises(FileError) as caught:
        resolve(None, load_bundle([write(tmp_path, guard("policy: fast, override: {lease: 1s}"))]))
    (fault,) = caught.value.faults
    assert (fault.line, fault.field) == (3, "spec.override.lease")
    assert "at least `2s`" in fault.right


def test_a_single_guard_needs_no_name_and_several_are_listed(tmp_path: Path) -> None:
    """Unknown names list what there is, with the nearest."""
    bundle = load_bundle([write(tmp_path, guard() + guard(name="api") + FLEET)])
    with pytest.raises(UserError) as several:
        resolve(None, bundle)
    assert several.value.hint == "name one of `api`, `web`"
    with pytest.raises(UserError) as unknown:
        resolve("wbe", bundle)
    assert unknown.value.hint == "did you mean `web`? there are `api`, `web`"
    loaded = resolve("api", bundle)
    assert loaded.guard.metadata.name == "api"
    assert loaded.fleet is not None
    assert loaded.fleet.spec.instances == 3
    with pytest.raises(UserError, match="no guard in"):
        resolve(None, load_bundle([write(tmp_path, FLEET, "fleet.yaml")]))


def test_a_thousand_faults_are_shown_in_part(tmp_path: Path) -> None:
    """The first hundred by line, each on one line of plain characters; the hint says that there are more."""
    fields = "".join(f'  "{number}\\n\\e[31m": 1\n' for number in range(1000))
    path = write(tmp_path, "kind: Guard\nmetadata: {name: web}\nspec:\n  target: {name: shop}\n" + fields)
    with pytest.raises(FileError) as caught:
        load_bundle([path])
    assert len(caught.value.faults) == 100
    assert "more faults are not shown" in caught.value.hint
    assert caught.value.faults[0].field == r"spec.0\n\x1b[31m"
    assert all(line.isprintable() for line in caught.value.message.split("\n"))


def test_faults_in_several_files_are_counted(tmp_path: Path) -> None:
    """The first file is shown in full, the others in the hint."""
    first, second = write(tmp_path, guard("x: 1")), write(tmp_path, guard("y: 1, z: 1", name="b"), "b.yaml")
    with pytest.raises(FileError) as caught:
        load_bundle([first, second])
    assert caught.value.path == str(first)
    assert caught.value.hint == f"`{second}` has faults too (2)"


def test_the_example_of_the_shop_loads() -> None:
    """The guard and the fleet that the guide uses."""
    shop = ROOT / "examples" / "shop"
    loaded = resolve(None, load_bundle([shop / "guard.yaml", shop / "fleet.yaml"]))
    assert (loaded.policy_name, loaded.fleet_path) == ("inline", str(shop / "fleet.yaml"))
