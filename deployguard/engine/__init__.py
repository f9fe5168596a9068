"""Pure decisions: what a rollout does next, from what was saved, what was seen, and the instant.

No clock, no input or output, no randomness, no logging: the same inputs give the same bytes, so any past decision replays.
"""
