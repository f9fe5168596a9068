"""Ending the cluster of the tests leaves the packet rules of others alone."""

from __future__ import annotations

from tests.cluster.cleaning import without_ours

SAVED = """*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:CNI-5f3a - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 10.214.0.2/32 -m comment --comment "name: \\"deployguard\\"" -j CNI-5f3a
-A KUBE-SERVICES -d 10.215.0.1/32 -p tcp -j KUBE-SVC-NPX4
-A CNI-5f3a -j ACCEPT
COMMIT
"""
OTHERS = """*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
COMMIT
"""


def test_rules_of_others_stay() -> None:
    """Chains of kube-proxy and of the pods' network go, with every rule in them and every jump to them, and nothing else."""
    assert without_ours(SAVED) == OTHERS
    assert without_ours(OTHERS) == OTHERS
