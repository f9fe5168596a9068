"""Who we say we are: a token that never changes, files that rotate, a program that hands out tokens or certificates.

The official library reads a `tokenFile` once and never renews what a program gave, so both are done here.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from deployguard import clock
from deployguard.errors import UserError, WorldError

REREAD_SECONDS = 60.0
_SKEW = dt.timedelta(seconds=15)
_EXEC_SECONDS = 60.0
_INTERACTIVE_SECONDS = 300.0


class Pem(NamedTuple):
    """A client certificate with its key."""

    certificate: bytes
    key: bytes


class Tokens(Protocol):
    """Where the proof in each request comes from. Safe for threads."""

    source: str
    """Where it comes from, in words, for the hint of a refusal."""

    def header(self) -> str:
        """The value of `Authorization` now; empty when there is none. May read a file or run a program."""
        ...

    def renew(self, refused: str) -> bool:
        """The server refused the header `refused`: True when there is now another one, or another certificate, to try."""
        ...

    def certificate(self) -> Pem | None:
        """A client certificate that came with the token."""
        ...


class Credentials:
    """Tokens and a client certificate, of which a server asks for either, or both."""

    def __init__(self, tokens: Tokens, certificates: Certificates) -> None:
        self.source = tokens.source
        self._tokens = tokens
        self._certificates = certificates

    def header(self) -> str:
        """The value of `Authorization` now; empty when there is none."""
        return self._tokens.header()

    def renew(self, refused: str) -> bool:
        """The server refused what it was given: True when there is now something else to try."""
        return self._tokens.renew(refused)

    def certificate(self) -> Pem | None:
        """The client certificate now: of the program that hands them out, else of the kubeconfig."""
        return self._tokens.certificate() or self._certificates.now()


class Certificates:
    """The client certificate of a kubeconfig: text in it, or files, which are followed when they rotate."""

    def __init__(self, user: dict[str, Any]) -> None:
        self._user = user
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] = ()
        self._pem = self._read() if self._given("client-certificate") else None

    def now(self) -> Pem | None:
        """The certificate as it is now; None when the kubeconfig names none."""
        if self._pem is None:
            return None
        with self._lock:
            # Half way through a rotation the two do not fit: what was read last counts until they do.
            if self._now() != self._stamp:
                with contextlib.suppress(UserError):
                    self._pem = self._read()
            return self._pem

    def _given(self, name: str) -> bool:
        return bool(self._user.get(name) or self._user.get(f"{name}-data"))

    def _now(self) -> tuple[int, ...]:
        try:
            return tuple(Path(self._user[name]).stat().st_mtime_ns for name in ("client-certificate", "client-key") if self._user.get(name))
        except OSError:
            return self._stamp

    def _read(self) -> Pem:
        self._stamp = self._now()
        pem = Pem(content(self._user, "client-certificate"), content(self._user, "client-key"))
        if not pem.certificate or not pem.key:
            raise UserError("could not use the client certificate of the kubeconfig: it, or its key, is missing or empty")
        return pem


def content(entry: dict[str, Any], name: str) -> bytes:
    """What an entry of a kubeconfig holds under `name`-data, or in the file `name`; empty when it has neither."""
    try:
        if entry.get(f"{name}-data"):
            return base64.b64decode(entry[f"{name}-data"], validate=True)
        return Path(entry[name]).read_bytes() if entry.get(name) else b""
    except (OSError, ValueError) as error:
        raise UserError(f"could not read the `{name}` of the kubeconfig: {error}", hint="the kubeconfig names it") from error


class Fixed:
    """A token that stays as it is, basic authentication, nothing, or what somebody else renews and tells on being asked."""

    def __init__(self, source: str, ask: Callable[[], str | None]) -> None:
        self.source = source
        self._ask = ask

    def header(self) -> str:
        return self._ask() or ""

    def renew(self, refused: str) -> bool:
        return self.header() != refused

    def certificate(self) -> Pem | None:
        return None


class TokenFile:
    """A token in a file that somebody else renews: a service account's, or `tokenFile` of a kubeconfig."""

    def __init__(self, path: Path) -> None:
        self.source = f"the token file {path}"
        self._path = path
        self._lock = threading.Lock()
        self._token = ""
        self._stamp: tuple[int, int, int] = (0, 0, 0)
        self._read_at = 0.0
        self._read(must=True)

    def header(self) -> str:
        """The token as it is in the file now: read again when the file changed, and every minute in any case."""
        with self._lock:
            if clock.monotonic() - self._read_at >= REREAD_SECONDS or self._now() != self._stamp:
                self._read()
            return f"Bearer {self._token}"

    def renew(self, refused: str) -> bool:
        with self._lock:
            self._read()
            return f"Bearer {self._token}" != refused

    def certificate(self) -> Pem | None:
        return None

    def _now(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return self._stamp
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self, *, must: bool = False) -> None:
        """A rotation may be half done: what was read last counts until there is something to read."""
        stamp = self._now()
        try:
            token = self._path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            if must:
                raise UserError(f"could not read the token file {self._path}: {error}", hint="the kubeconfig names it") from error
            return
        if token:
            self._token, self._stamp, self._read_at = token, stamp, clock.monotonic()
        elif must:
            raise UserError(f"could not use the token file {self._path}: it is empty", hint="the kubeconfig names it")


class _Issued(NamedTuple):
    header: str
    certificate: Pem | None
    until: dt.datetime | None


class Exec:
    """A program that hands out a token or a client certificate. It is run once per process and again when that expires."""

    _issued: dict[str, _Issued] = {}
    _lock = threading.Lock()

    def __init__(self, spec: dict[str, Any], cluster: dict[str, Any]) -> None:
        if not spec.get("command") or not spec.get("apiVersion"):
            raise UserError("could not use the kubeconfig: an `exec` of its user has no `command` or no `apiVersion`")
        self._spec = spec
        self._cluster = cluster
        self._key = json.dumps([spec, cluster], sort_keys=True, default=str)
        self.source = f"the program {spec['command']}"

    def header(self) -> str:
        return self._current().header

    def certificate(self) -> Pem | None:
        return self._current().certificate

    def renew(self, refused: str) -> bool:
        with Exec._lock:
            old = Exec._issued.get(self._key)
            if old is None or old.header == refused:
                Exec._issued[self._key] = self._run()
            return Exec._issued[self._key] != old or (old is not None and old.header != refused)

    def _current(self) -> _Issued:
        with Exec._lock:
            found = Exec._issued.get(self._key)
            if found is None or (found.until is not None and clock.now() >= found.until - _SKEW):
                found = Exec._issued[self._key] = self._run()
            return found

    def _run(self) -> _Issued:
        interactive = self._spec.get("interactiveMode", "IfAvailable") != "Never" and sys.stdin is not None and sys.stdin.isatty()
        try:
            ended = subprocess.run(
                [self._spec["command"], *(self._spec.get("args") or [])],
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if interactive else subprocess.PIPE,
                env=self._environment(interactive),
                timeout=_INTERACTIVE_SECONDS if interactive else _EXEC_SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            hint = str(self._spec.get("installHint") or "the kubeconfig names it for the credentials of its user").strip()
            raise UserError(f"could not get credentials from {self.source}: there is no such program", hint=hint) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise WorldError(f"could not get credentials from {self.source}: {error}", hint="run it by hand") from error
        if ended.returncode:
            said = (ended.stderr or b"").decode("utf-8", "replace").strip().splitlines()
            last = f": {said[-1][:300]}" if said else ""
            raise WorldError(
                f"could not get credentials from {self.source}: it ended with status {ended.returncode}{last}", hint="log in anew"
            )
        return self._issue(ended.stdout)

    def _environment(self, interactive: bool) -> dict[str, str]:
        spec: dict[str, Any] = {"interactive": interactive}
        if self._spec.get("provideClusterInfo"):
            spec["cluster"] = _cluster_info(self._cluster)
        info = {"apiVersion": self._spec["apiVersion"], "kind": "ExecCredential", "spec": spec}
        own = {item["name"]: item["value"] for item in self._spec.get("env") or []}
        return dict(os.environ) | own | {"KUBERNETES_EXEC_INFO": json.dumps(info)}

    def _issue(self, output: bytes) -> _Issued:
        try:
            status = json.loads(output)["status"]
            until = dt.datetime.fromisoformat(status["expirationTimestamp"]) if status.get("expirationTimestamp") else None
            token, certificate, key = status.get("token"), status.get("clientCertificateData"), status.get("clientKeyData")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WorldError(
                f"could not get credentials from {self.source}: what it printed is no ExecCredential", hint="run it by hand"
            ) from error
        if not token and not (certificate and key):
            raise WorldError(f"could not get credentials from {self.source}: it printed neither a token nor a certificate with its key")
        pem = Pem(certificate.encode(), key.encode()) if certificate and key else None
        return _Issued(f"Bearer {token}" if token else "", pem, until if until is None or until.tzinfo else until.replace(tzinfo=dt.UTC))


def _cluster_info(cluster: dict[str, Any]) -> dict[str, Any]:
    """The cluster as an ExecCredential names it."""
    names = {
        "server": "server",
        "tls-server-name": "tls-server-name",
        "insecure-skip-tls-verify": "insecure-skip-tls-verify",
        "certificate-authority-data": "certificate-authority-data",
        "proxy-url": "proxy-url",
    }
    info = {new: cluster[old] for old, new in names.items() if old in cluster}
    for extension in cluster.get("extensions") or []:
        if extension.get("name") == "client.authentication.k8s.io/exec":
            info["config"] = extension.get("extension")
    return info
