"""What a target shows and what it is asked for.

The version that instances *really* run is what a view reports, never what somebody asked for.
"""

from __future__ import annotations

import datetime as dt

from deployguard.model.base import Frozen
from deployguard.model.version import Version

Arm = str
CANDIDATE: Arm = "candidate"
STABLE: Arm = "stable"
ARMS: tuple[Arm, ...] = (STABLE, CANDIDATE)


class Exit(Frozen, frozen=True):
    """A process that ended by itself, or was killed by somebody who is not its supervisor.

    `code` is the exit status, negative for a signal. `uptime` in seconds. `was_ready`: it had been ready before.
    `tail` holds the last lines it logged. `cause` says in words what ended it, where a code does not (a failed probe that
    reads "code 0", too much memory); such an end is no good one, whatever its code.
    """

    at: dt.datetime
    code: int
    uptime: float
    was_ready: bool
    tail: tuple[str, ...] = ()
    cause: str = ""


class Instance(Frozen, frozen=True):
    """One instance of the workload, as the target sees it now.

    `id` names the place and survives restarts; `uid` names this process and changes at every start.
    `assigned` is the version it was told to run; `loaded` the one it says it has loaded (None while it has not said).
    `exits` counts the exits by itself since it was assigned this version, `exit` is the last of them.
    `refused` is a reason to refuse it that names the version (command not found, digest mismatch); `waiting` a trouble of
    the environment (port taken, no file handles left). Both are empty when there is none.
    """

    id: str
    uid: str
    assigned: Version
    loaded: Version | None
    ready: bool
    started: dt.datetime | None = None
    ready_since: dt.datetime | None = None
    address: str = ""
    exits: int = 0
    exit: Exit | None = None
    refused: str = ""
    waiting: str = ""


class Served(Frozen, frozen=True):
    """User requests answered so far by one version, and how many of them failed. Cumulative, never reset."""

    requests: int = 0
    failed: int = 0


class Desired(Frozen, frozen=True, omit_defaults=True):
    """What a phase wants of the target: values, never deltas.

    `count` instances run `candidate`, all others `stable`. `full`: the workload itself runs the candidate, and none beside it; only
    workloads that others may change too tell the two apart, for a fleet `count` is then simply all instances. `pace` in seconds: how
    long each batch of a rolling update is watched at least.
    `fence` is the rollout's `seq`: a target refuses a lower one.
    At most `batch` instances are out of service at a time because of this change. `lease` in seconds: how long an
    instance keeps a candidate without being renewed (0: no lease). `restart` names instances to be restarted although
    they carry the right version, because they did not take it; each is restarted once per fence. `by` names the guard and the
    rollout that want it, so that another guard on the same target can say who holds it.
    """

    fence: int
    stable: Version
    candidate: Version | None = None
    count: int = 0
    batch: int = 1
    lease: float = 0.0
    restart: tuple[str, ...] = ()
    keep: tuple[Version, ...] = ()
    by: str = ""
    full: bool = False
    pace: int = 0


class TargetView(Frozen, frozen=True):
    """Everything a target shows at one instant.

    `basis` names the state that a conditional write must still find. `told` is the last `Desired` it accepted.
    `retreated` is the fence under which it took candidates back by itself because the lease ran out.
    `listeners` are the addresses where users of an arm (`stable`, `candidate`) or of all arms (`all`) are served.
    `served` counts user requests by version digest. `adopted` is the version found running before any rollout.
    `surge`: candidates come on top of the `wanted` instances. `pending`: the target has writes left to make to follow what it was
    told, and makes them when it is told again. `superseded` says that somebody else changed what the workload runs, and how;
    `source_changed` the same of the configuration's source. `source` is the version that the sources ask for now.
    """

    fence: int
    basis: str
    wanted: int
    told: Desired | None
    instances: tuple[Instance, ...]
    retreated: int | None = None
    listeners: dict[str, str] = {}
    served: dict[str, Served] = {}
    adopted: Version | None = None
    surge: bool = False
    pending: bool = False
    superseded: str = ""
    source_changed: str = ""
    source: Version | None = None

    def running(self, version: Version) -> tuple[Instance, ...]:
        """The instances that are assigned `version` or still have it loaded: what counts as exposure."""
        return tuple(i for i in self.instances if version in (i.assigned, i.loaded))
