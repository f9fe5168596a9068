"""Pure statistics on plain numbers: e-processes, confidence sequences, the planner, the judge.

Every function is a formula of `docs/statistics.md` with its source; nothing here knows a target, a file or a clock. A new
kind of check (histograms, gauges) is a new module here with a `fold` and a `finding`, beside `counts` and `journeys`.
"""
