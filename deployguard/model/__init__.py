"""Frozen data and its words: what a guard, a policy, a rollout, a reading and a verdict are.

Saved state is msgspec structs (small, strict, fast to load); what people write is pydantic (every fault with its
place). Nothing here reads a clock, a file or a socket.
"""
