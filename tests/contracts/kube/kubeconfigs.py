"""Kubeconfigs for tests: another user, or another server, than the one of the cluster at hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

SCRIPT = """\
import json, pathlib
log = pathlib.Path({log!r})
runs = len(log.read_text().splitlines()) if log.exists() else 0
log.write_text((log.read_text() if log.exists() else "") + "run\\n")
answers = json.loads(pathlib.Path({answers!r}).read_text())
status = answers[min(runs, len(answers) - 1)]
print(json.dumps({{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}}))
"""


def kubeconfig(path: Path, cluster: dict[str, Any], user: dict[str, Any], namespace: str = "") -> str:
    """A file with one context, `test`."""
    context = {"cluster": "c", "user": "u"} | ({"namespace": namespace} if namespace else {})
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": context}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cluster and the user of the first entries of a kubeconfig."""
    content = yaml.safe_load(path.read_text())
    return content["clusters"][0]["cluster"], content["users"][0]["user"]


def plugin(folder: Path, *statuses: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    """The `exec` of a user, whose program gives these answers in turn, and the file that has a line for each run of it."""
    folder.mkdir(exist_ok=True)
    log, answers, program = folder / "runs", folder / "answers.json", folder / "plugin.py"
    answers.write_text(json.dumps(statuses))
    program.write_text(SCRIPT.format(log=str(log), answers=str(answers)))
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [str(program)], "interactiveMode": "Never"}
    return run, log
