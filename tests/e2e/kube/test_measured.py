"""How fast a bad release is taken back from users, measured; only what is no time is asserted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster.fixtures import Cluster
from tests.e2e.conftest import Tell
from tests.e2e.kube.measured import WayBack, crash_at_start, doorkeeper, errors, median
from tests.e2e.kube.shop import Open

pytestmark = [pytest.mark.e2e, pytest.mark.cluster, pytest.mark.full, pytest.mark.alone, pytest.mark.timeout(900)]
RUNS = int(os.environ.get("DEPLOYGUARD_MEASURED_RUNS", "10"))
MOST_WRITES = 5


def test_the_way_back_measured(shop: Open, cluster: Cluster, tmp_path: Path, tell: Tell) -> None:
    """From the verdict to the last pod that is told to stop there are at most five writes; the times are printed."""
    web = shop(4, env={"VERSION": "1"})
    with doorkeeper(cluster.kubeconfig, tmp_path) as keeper, web.unharmed():
        web.world.env["KUBECONFIG"] = str(keeper.kubeconfig)
        crashes = [crash_at_start(web, keeper, number) for number in range(RUNS)]
        faults = [errors(web, keeper, number) for number in range(RUNS)]
    tell(f"crash at start: first exit to decision {median([run.decided for run in crashes])}")
    tell(f"crash at start: first exit to the pod told to stop {median([run.stopped for run in crashes])}")
    tell(f"20 % errors on 1 of 5 pods: first bad response to last {median([run.last_bad for run in faults])}")
    tell(f"20 % errors on 1 of 5 pods: first bad response to decision {median([run.decided for run in faults])}")
    tell(f"20 % errors on 1 of 5 pods: first bad response to the pod told to stop {median([run.stopped for run in faults])}")
    tell(f"failed answers of a run: {sorted(run.failed for run in faults)}")
    tell(f"writes from the verdict to the deletion of the canary: {_most(crashes + faults)}")
    assert all(len(run.writes) <= MOST_WRITES for run in crashes + faults), [run.writes for run in crashes + faults]


def _most(runs: list[WayBack]) -> str:
    longest = max((run.writes for run in runs), key=len)
    return f"{len(longest)} at most, {', '.join(longest)}"
