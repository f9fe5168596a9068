"""The parts of the reference that no model knows: how the files hang together, and an example of each."""

from __future__ import annotations

HEAD = """# Reference of the files

This page is made from the code (`python -m deployguard.files.reference`); a test keeps it true.

Files are YAML 1.2 in UTF-8, at most 1 MB each. A file may hold several documents, parted by `---`, and a command may be
given several files; guards, policies and fleets find one another by name. Unknown fields, duplicate keys and duplicate
names are errors. All faults of a file are reported at once, each with file, line, field, what was found and what would
be right:

```
guard.yaml: line 9: `spec.policy.stages[2].soack`: unknown field `soack`; did you mean `soak`?
```

Rules between fields (stages never shrink, a soak is at least two polls) are checked once the fields are right by
themselves.

| type | is written | means |
|---|---|---|
| duration | `90s`, `1h30m`, `500ms` | a number with `ms`, `s`, `m`, `h` or `d`, at most `366d`; of bare numbers only `0` |
| duration or intervals | `2 intervals`, `5m` | a number of polls (see `interval`), or a duration |
| share | `25%`, `0.25` | a percentage from 0% to 100%, or a fraction from 0 to 1 |
| selector | `http_requests_total{code=~"5.."}` | a series in PromQL's notation, with `=`, `!=`, `=~` and `!~` |
| instant | `2026-12-24T18:00:00+01:00` | a point in time |
| series | `45x600`, `1x30 0x30 _x5` | a value for each poll: `7x3` is `7 7 7 7`, `1+2x3` is `1 3 5 7`, `_` no answer |

`yes`, `no`, `on` and `off` without quotes are true and false; where text is expected they need quotes.

## Editors

`docs/schemas/` has a JSON Schema (draft 2020-12) for each kind; `deployguard policy schema guard` prints the one of the
version that is installed. Editors with the YAML language server check and complete a file that begins with the line

```yaml
# yaml-language-server: $schema=docs/schemas/guard.json
```

with the path or URL of the schema; each schema is for one kind, so guard and policy stand in files of their own there.
"""

EXAMPLES = {
    "Guard": """
apiVersion: deployguard.dev/v1alpha1
kind: Guard
metadata: {name: shop}
spec:
  target: {kind: LocalFleet, name: shop}
  policy: production                  # or fast, low-traffic, config; or ./my-policy.yaml; or the policy itself
  override:                           # single fields of it
    rollback: {within: 1m}
  checks:
    - name: errors
      source: scrape
      bad: http_requests_total{code=~"5.."}
      total: http_requests_total
      worse_than_stable: {ratio: 1.25, margin: 0.02%, floor: 0.1%}
      claims: 2
      limit: 5%
    - name: login
      source: probe
      steps:
        - {get: /login, expect: {status: 200, contains: Sign in}}
        - {post: /login, form: {user: ada, password: open-sesame}}
  announce:
    - {log: true}
    - {webhook: "https://hooks.example/deploys", secret_env: HOOK_SECRET}
""",
    "GuardPolicy": """
apiVersion: deployguard.dev/v1alpha1
kind: GuardPolicy
metadata: {name: careful}
spec:
  stages:
    - {instances: 1, soak: 5m}
    - {exposure: 25%, soak: 15m, limit: 1h}
    - {exposure: 100%, soak: 30m}     # the bake
  confidence: 99%
  pass: proof
  interval: 1s
  blind: {hold_after: 2 intervals, retreat_after: 5m, hold_limit: 30m}
  rollback: {within: 2m, batch: 25%, capacity_floor: 70%, relapse_watch: 30m}
  gates:
    approval: [3]                     # a person approves before stage 3 is entered
    freeze:
      - {cron: "0 18 * * FRI", for: 62h, timezone: Europe/Berlin, reason: the weekend}
      - {from: "2026-12-24T00:00:00+01:00", until: "2027-01-02T00:00:00+01:00", reason: the holidays}
""",
    "LocalFleet": """
apiVersion: deployguard.dev/v1alpha1
kind: LocalFleet
metadata: {name: shop}
spec:
  instances: 20
  command: [python3, "{release}/shop.py", --port, "{port}", --config, "{config}"]
  release: releases/v1
  config: configs/blue.json
  ready: {get: /healthz, within: 10s}
  loaded: {get: /version, config: $.config}
  reload: {signal: HUP}
  listen: {all: "127.0.0.1:8080"}
""",
    "PolicyTest": """
apiVersion: deployguard.dev/v1alpha1
kind: PolicyTest
tests:
  - why: A release that fails one request in five is taken back from one instance
    policy: production
    series:
      errors:
        stable: {total: "45x600", bad: "0x600"}
        candidate: {total: "5x600", bad: "1x600"}
    until: 10m
    expect:
      - 0s advancing stage 1/5
    outcome: rolled_back
""",
}

TAIL = """
## Shipped policies

`production`, `fast`, `low-traffic` and `config` come with deployguard and are named like any other policy; a GuardPolicy
of the same name in the given files goes first. `deployguard policy show NAME` prints one with all its fields.
"""
