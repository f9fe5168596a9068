"""What a rollout knows before it begins: stable's noise and rates, from the newest recordings of its guard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployguard.analysis.categories import CategoriesRules
from deployguard.analysis.counts import CountsRules
from deployguard.analysis.learning import categories_learnt, counts_learnt
from deployguard.engine.rules import rules_of
from deployguard.errors import DeployguardError
from deployguard.wiring.past import stable_blocks

if TYPE_CHECKING:
    from deployguard.model.document import Document
    from deployguard.model.evidence import Evidence
    from deployguard.model.policy import Policy
    from deployguard.stores.readings import FileReadings


def learnt(readings: FileReadings | None, document: Document, policy: Policy) -> dict[str, Evidence]:
    """The evidence that the checks of `policy` begin with. Where nothing was recorded, or it cannot be read, they begin with nothing."""
    if readings is None:
        return {}
    try:
        past = stable_blocks(readings, document)
    except DeployguardError:
        return {}
    found: dict[str, Evidence] = {}
    for check in policy.checks:
        blocks = past.get(check.name)
        if check.source == "probe" or not blocks:
            continue
        rules = rules_of(policy, check)
        if isinstance(rules, CountsRules):
            found[check.name] = counts_learnt(blocks, rules)
        elif isinstance(rules, CategoriesRules):
            found[check.name] = categories_learnt(blocks, rules)
    return found
