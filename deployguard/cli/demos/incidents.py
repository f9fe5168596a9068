"""The incidents that can be played: what happened, and the change that does the same to the shop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import deployguard
from deployguard.errors import UserError

_PACKAGE = Path(deployguard.__file__).parent


@dataclass(frozen=True, slots=True)
class Incident:
    """One outage and its replay.

    `part` says what the bad and the good change are: a configuration or a release. `bad` has these flaws; `good` is made without
    any, or is one of the shop's own configurations. `real` is said beside the numbers, so that nobody takes the replay's seconds for
    the outage's. `batch` instances may be out of service at once when the change goes everywhere.
    """

    name: str
    sentence: str
    real: str
    part: Literal["config", "release"]
    bad: str
    flaws: tuple[str, ...]
    good: str
    batch: int
    looks_green: bool = False


INCIDENTS: dict[str, Incident] = {
    incident.name: incident
    for incident in (
        Incident(
            name="twitter-2019",
            sentence="11 July 2019: an internal configuration change went everywhere at once and took the site down for about an hour.",
            real="the real outage took about an hour",
            part="config",
            bad="internal-change.json",
            flaws=("errors=0.5",),
            good="green.json",
            batch=20,
        ),
        Incident(
            name="twitter-2022",
            sentence=(
                "28 December 2022: people could not sign in for hours while the status page was green: it worked for those who looked. "
                "Here a release breaks the login of everybody but `boss`, and no internal metric shows it."
            ),
            real="the real outage took hours",
            part="release",
            bad="v2-login-broken",
            flaws=("login_broken",),
            good="v2",
            batch=5,
            looks_green=True,
        ),
    )
}
DEFAULT = "twitter-2019"


def incident_of(name: str) -> Incident:
    """The incident of this name. Raises `UserError` with the nearest one."""
    from deployguard.files.shape import listed, nearest

    if name in INCIDENTS:
        return INCIDENTS[name]
    near = nearest(name, INCIDENTS) or next((known for known in INCIDENTS if known.startswith(name.lower())), None)
    meant = f"did you mean `{near}`? " if near else ""
    raise UserError(
        f"there is no incident `{name}` to play", hint=f"{meant}there are {listed(INCIDENTS)}; `deployguard demo --list` describes them"
    )


def shop_folder() -> Path:
    """The folder of the shop: package data of an installed wheel, or the folder of a source checkout."""
    installed = _PACKAGE / "shipped" / "shop"
    return installed if installed.is_dir() else _PACKAGE.parent / "examples" / "shop"
