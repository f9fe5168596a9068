"""From the command as people write it to what is started: placeholders, environment, directory, program."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployguard.local.layout import Layout
from deployguard.local.processes import MARK
from deployguard.model.version import Version

if TYPE_CHECKING:
    # pydantic, which whoever only looks at a fleet must not pay for.
    from deployguard.model.fleet import Fleet

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104  where an instance that listens everywhere is reached
_OF_THE_VERSION = {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP}


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that is needed to start one process."""

    command: list[str]
    environment: dict[str, str]
    directory: Path


def reach(host: str) -> str:
    """The address at which something that listens on `host` is asked."""
    return _ANY.get(host, host)


def address(host: str, port: int) -> str:
    """`host:port` as it is written in addresses and URLs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(text: str) -> tuple[str, int]:
    """Host and port of an address."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def prepare(spec: Fleet, layout: Layout, inherited: dict[str, str], slot: str, port: int, version: Version) -> Launch:
    """How `slot` is started with `version`; its links already lead there when it is."""
    release = layout.current(slot, "release")
    config = layout.current(slot, "config")
    facts = {
        "port": str(port),
        "host": spec.host,
        "release": str(release),
        "config": str(config),
        "version": version.digest,
        "instance": slot,
        "data": str(layout.data(slot)),
    }
    environment = {
        **inherited,
        **{f"DEPLOYGUARD_{name.upper()}": facts[name] for name in ("port", "host", "release", "config", "version", "instance", "data")},
        "DEPLOYGUARD_RELEASE_DIGEST": version.release,
        "DEPLOYGUARD_CONFIG_DIGEST": version.config,
        MARK: str(layout.root),
        **{name: fill(text, facts) for name, text in spec.env.items()},
    }
    directory = release if release.is_dir() else release.resolve().parent
    return Launch([fill(text, facts) for text in spec.command], environment, directory)


def fill(text: str, facts: dict[str, str]) -> str:
    """`text` with its placeholders filled in; other braces are left alone."""
    return _PLACEHOLDER.sub(lambda match: facts.get(match[1], match[0]), text)


def program_fault(program: str, directory: Path, path: str) -> str:
    """Why `program` cannot be started from `directory` with the search path `path`; empty when it can."""
    if os.sep not in program:
        return "" if shutil.which(program, path=path) else f"command not found: {program} is not in PATH"
    place = directory / program
    if not place.exists():
        return f"command not found: there is no {program}"
    if place.is_dir() or not os.access(place, os.X_OK):
        return f"command not executable: {program}"
    return ""


def names_version(error: OSError) -> bool:
    """Whether a failed start is the version's fault, not that of the environment (no handles, no memory)."""
    return error.errno in _OF_THE_VERSION


def port_fault(host: str, port: int) -> str:
    """Why nothing can listen on `host` and `port` now; empty when something can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} is taken by another process"
        return f"cannot listen on {address(host, port)}: {error.strerror or error}"
    return ""
