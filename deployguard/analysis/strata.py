"""Blocks: what both arms served over the same interval, within each stratum of requests.

Polls pile up until both arms have served, and good requests for a while longer: nothing is lost by playing them together, as nothing but
a bad one condemns (docs/statistics.md, section 14). A poll in which something went bad is a block of its own, judged by its own share of
traffic: bad requests would otherwise always come in the last poll of a pile and be judged by the share of those before, which condemns the
innocent while the share rises. Strata hold different requests, so their factors multiply, bet by bet.
"""

from __future__ import annotations

from typing import NamedTuple

from deployguard.analysis.bets import settled
from deployguard.analysis.counters import plus, trusted
from deployguard.model.evidence import Block, Stratum
from deployguard.model.reading import Counter

LONGEST_PILE = 60.0
"""Seconds after which a pile that one arm never added to is dropped: longer ones would mix times that are not alike."""
PATIENCE = 10.0
"""Seconds for which good requests pile up; the promote rule, which nobody asks before the soak is over, is played as rarely."""
MOST_SEGMENTS = 8
_EMPTY = Block()


class Ripe(NamedTuple):
    """A block to be played, and stable's rate of bad requests as known before it."""

    block: Block
    th0: float


def piled(
    stratum: Stratum, mine: Counter, theirs: Counter, seconds: float, *, changed: bool, aligned: bool
) -> tuple[Stratum, tuple[Ripe, ...]]:
    """The stratum after a poll of `seconds`, and the blocks that became ripe.

    When the candidate's instances `changed`, the share of traffic did: the pile from before is closed. `aligned`: both arms have been
    counted up to the same instant. A pile of good requests of both arms is closed before a poll with bad ones, or without an arm.
    """
    ripe: tuple[Ripe, ...] = ()
    if changed or (_good(stratum.pile) and (mine.bad or theirs.bad or not aligned)):
        stratum, ripe = closed(stratum)
    n1, e1, n0, e0 = stratum.pile.n1, stratum.pile.e1, stratum.pile.n0, stratum.pile.e0
    n1, e1, n0, e0 = n1 + mine.total, e1 + mine.bad, n0 + theirs.total, e0 + theirs.bad
    long = stratum.piled + seconds
    proof = merged(stratum.proof, Block(mine.total, mine.bad, theirs.total, theirs.bad))
    after = Stratum(stratum.history, stratum.seen, Block(n1, e1, n0, e0), long, proof)
    if aligned and ((n1 >= 1 and n0 >= 1 and (e1 or e0 or long >= PATIENCE)) or long >= LONGEST_PILE):
        after, more = closed(after)
        return after, ripe + more
    return after, ripe


def _good(pile: Block) -> bool:
    return pile.n1 >= 1 and pile.n0 >= 1 and not (pile.e1 or pile.e0)


def closed(stratum: Stratum) -> tuple[Stratum, tuple[Ripe, ...]]:
    """The stratum without its pile, and the pile as a block if both arms have served in it."""
    pile = stratum.pile
    seen = plus(stratum.seen, Counter(pile.e0, pile.n0))
    if pile.n1 < 1 or pile.n0 < 1:
        return Stratum(stratum.history, seen, _EMPTY, 0.0, stratum.proof), ()
    past = plus(trusted(stratum.history, stratum.seen), stratum.seen)
    after = Stratum(stratum.history, seen, _EMPTY, 0.0, stratum.proof)
    return after, (Ripe(pile, settled(past.bad, past.total)),)


def proving(stratum: Stratum) -> Ripe | None:
    """What waits to be played against the promote rule's null, and stable's rate as known before it; None when it is not enough.

    Everything since it was last played, which is due by the clock alone: here good requests are what speaks, and a block that ended with
    a bad one would be judged by the wrong share of traffic.
    """
    block = stratum.proof
    if block.n1 < 1 or block.n0 < 1:
        return None
    seen, pile = stratum.seen, stratum.pile
    seen = Counter(max(seen.bad + pile.e0 - block.e0, 0.0), max(seen.total + pile.n0 - block.n0, 0.0))
    past = plus(trusted(stratum.history, seen), seen)
    return Ripe(block, settled(past.bad, past.total))


def proved(stratum: Stratum) -> Stratum:
    """The stratum with nothing waiting for the promote rule."""
    return Stratum(stratum.history, stratum.seen, stratum.pile, stratum.piled, _EMPTY)


def merged(a: Block, b: Block) -> Block:
    """Two blocks as one."""
    return Block(a.n1 + b.n1, a.e1 + b.e1, a.n0 + b.n0, a.e0 + b.e0)


def alike(mine: float, theirs: float, more_mine: float, more_theirs: float) -> bool:
    """Whether the share of traffic is within half of what it was before."""
    before, now = mine / (mine + theirs), more_mine / (more_mine + more_theirs)
    return abs(now - before) <= 0.5 * before


def pooled(segments: tuple[Block, ...], block: Block) -> tuple[Block, ...]:
    """Blocks pooled while the share of traffic stays within half of what it was: what the interval is computed from."""
    if segments:
        last = segments[-1]
        if len(segments) >= MOST_SEGMENTS or alike(last.n1, last.n0, block.n1, block.n0):
            return (*segments[:-1], merged(last, block))
    return (*segments, block)
