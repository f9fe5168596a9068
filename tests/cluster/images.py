"""Images without a container engine: a folder becomes one layer, and the archive is what `docker save` would write."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import build
from tests.cluster.places import cache

HERE = Path(__file__).parent
SHOP = "localhost/deployguard-shop"
THIRD_PARTY = "localhost/thirdparty:1"
SHOP_TAGS = ("1", "2", "3", "bad")
"""Tags with the same content: what differs is what a Deployment says beside them."""
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Image:
    """An image archive: its names, and the program that it runs."""

    archive: Path
    names: tuple[str, ...]


def make() -> list[Image]:
    """All images of the tests, made anew only when their source changed. The third party's is left out where its package is missing."""
    folder = cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    made = [
        _of_program("pause", ("localhost/pause:1",), folder),
        _of_program("shop", tuple(f"{SHOP}:{tag}" for tag in SHOP_TAGS), folder),
    ]
    prometheus = shutil.which("prometheus")
    if prometheus is not None:
        made.append(_of_prometheus(Path(prometheus), folder))
    return made


def _of_program(name: str, names: tuple[str, ...], folder: Path) -> Image:
    source = HERE / name
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(source.glob("*.go"))) + " ".join(names).encode())
    image = Image(folder / f"{name}-{digest.hexdigest()[:12]}.tar", names)
    if not image.archive.exists():
        print(f"  image {names[0]} ...", flush=True)
        program = folder / name / name
        build.build_here(source, program)
        pack(image, _layer({f"/{name}": program}), [f"/{name}"])
    return image


def _of_prometheus(program: Path, folder: Path) -> Image:
    """A service that nobody here wrote: Debian's Prometheus, with the libraries that it loads."""
    stat = program.stat()
    image = Image(folder / f"thirdparty-{stat.st_size}-{int(stat.st_mtime)}.tar", (THIRD_PARTY,))
    if not image.archive.exists():
        print(f"  image {THIRD_PARTY} ({program}) ...", flush=True)
        loaded = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        libraries = [Path(found) for found in re.findall(r"(/\S+) \(0x", loaded)]
        pack(image, _layer({"/prometheus": program, **{str(path): path for path in libraries}}), ["/prometheus"])
    return image


def _layer(files: dict[str, Path]) -> bytes:
    """The files at their places, with every folder above them, and nothing that differs between two runs."""
    out = io.BytesIO()
    folders = sorted({str(parent) for name in files for parent in Path(name).parents if str(parent) != "/"} | {"/tmp"})
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in folders:
            info = tarfile.TarInfo(name.lstrip("/"))
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "/tmp" else 0o755
            tar.addfile(info)
        for name, source in sorted(files.items()):
            data = source.read_bytes()
            info = tarfile.TarInfo(name.lstrip("/"))
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def pack(image: Image, layer: bytes, entrypoint: Sequence[str]) -> None:
    """The archive exists afterwards, whole or not at all."""
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Entrypoint": list(entrypoint), "WorkingDir": "/", "Env": ["PATH=/"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "deployguard tests"}],
    }
    described = json.dumps(config, sort_keys=True).encode()
    name = f"{hashlib.sha256(described).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": list(image.names), "Layers": [f"{digest}/layer.tar"]}]).encode()
    half = image.archive.with_suffix(".half")
    with tarfile.open(half, "w") as tar:
        for path, data in ((f"{digest}/layer.tar", layer), (name, described), ("manifest.json", manifest)):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    half.rename(image.archive)
