"""`kubectl deployguard`: the plugin as kubectl finds and runs it, and the completion of commands in shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILT = sorted(Path(os.environ.get("DEPLOYGUARD_CLUSTER_HOME", Path.home() / ".cache/deployguard")).glob("build/*/bin/kubectl"))
KUBECTL = shutil.which("kubectl") or (str(BUILT[-1]) if BUILT else None)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the console scripts of pyproject.toml, as an installer makes them."""
    folder = tmp_path_factory.mktemp("bin")
    with (ROOT / "pyproject.toml").open("rb") as file:
        entries = tomllib.load(file)["project"]["scripts"]
    for name, entry in entries.items():
        module, _, function = entry.partition(":")
        script = folder / name
        script.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n")
        script.chmod(0o755)
    return folder


def said(*command: str, path: Path, code: int = 0) -> str:
    """Standard output of a command that finds the scripts on its PATH."""
    env = {"PATH": f"{path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_plugin_calls_itself_what_its_user_calls_it(scripts: Path) -> None:
    """Usage and mistakes read `kubectl deployguard`; the plain script stays `deployguard`."""
    plugin = str(scripts / "kubectl-deployguard")
    assert said(plugin, "status", "--help", path=scripts).startswith("Usage: kubectl deployguard status [OPTIONS]")
    assert "Usage: kubectl deployguard [OPTIONS]" in said(plugin, "stauts", path=scripts, code=2)
    assert said(str(scripts / "deployguard"), "status", "--help", path=scripts).startswith("Usage: deployguard status")


def test_kubectl_is_told_how_a_line_goes_on(scripts: Path) -> None:
    """Commands and options with their descriptions, and what may follow."""
    asked = str(scripts / "kubectl_complete-deployguard")
    lines = said(asked, "sta", path=scripts).splitlines()
    assert [line.split("\t")[0] for line in lines] == ["status", ":0"]
    assert "--timeout" in said(asked, "run", "-f", "a file.yaml", "--time", path=scripts)
    assert "run\t" in said(asked, "", path=scripts)


@pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl on this machine")
def test_kubectl_itself_finds_the_plugin_and_its_completion(scripts: Path) -> None:
    """A real kubectl runs the plugin, and completes its words by asking it."""
    assert KUBECTL is not None
    assert said(KUBECTL, "deployguard", "--version", path=scripts).startswith("deployguard ")
    assert said(KUBECTL, "deployguard", "plan", "-h", path=scripts).startswith("Usage: kubectl deployguard plan")
    assert "status\t" in said(KUBECTL, "__complete", "deployguard", "sta", path=scripts)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion(shell: str, scripts: Path) -> None:
    """The script names our commands' variable, and a shell that is there takes it without a fault."""
    script = said(str(scripts / "deployguard"), "completion", shell, path=scripts)
    assert "_DEPLOYGUARD_COMPLETE=complete_" + shell in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=30)
    assert "it writes bash, zsh, fish" in said(str(scripts / "deployguard"), "completion", "csh", path=scripts, code=2)


def test_bash_completes_a_word(scripts: Path) -> None:
    """The function that bash is given proposes the commands that begin with the word."""
    script = """
        source <(deployguard completion bash)
        COMP_WORDS=(deployguard hist); COMP_CWORD=1; _deployguard_completion deployguard
        echo "${COMPREPLY[@]}"
    """
    assert said("bash", "-c", script, path=scripts).strip() == "history"
