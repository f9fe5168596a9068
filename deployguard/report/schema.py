"""The JSON Schema of what is printed as JSON: the run report and the rows of `status`. A copy is published as docs/schemas/report.json."""

from __future__ import annotations

from typing import Any, get_args

from deployguard.model.evidence import VerdictWord
from deployguard.model.rollout import HoldWord, OutcomeWord, Phase
from deployguard.report.view import SCHEMA

Json = dict[str, Any]
PHASES = sorted(str(phase.__struct_config__.tag) for phase in get_args(Phase))
VERDICTS = list(get_args(VerdictWord))

_TEXT: Json = {"type": "string"}
_FLAG: Json = {"type": "boolean"}
_NUMBER: Json = {"type": "number"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_AT: Json = {"type": "string", "format": "date-time"}
_DIGEST: Json = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}


def _or_null(kind: Json, text: str = "") -> Json:
    found: Json = {"anyOf": [kind, {"type": "null"}]}
    return {**found, "description": text} if text else found


def _object(properties: Json, text: str = "") -> Json:
    found: Json = {"type": "object", "additionalProperties": False, "required": list(properties), "properties": properties}
    return {"description": text, **found} if text else found


def _list(item: Json, text: str = "") -> Json:
    found: Json = {"type": "array", "items": item}
    return {**found, "description": text} if text else found


def _ref(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def _map(item: Json) -> Json:
    return {"type": "object", "additionalProperties": item}


def report_schema() -> Json:
    """The schema of a run report, and of the list of rows that `status` prints."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://deployguard.dev/schemas/report.json",
        "title": "deployguard run report and status",
        "description": "What is not known is null: absence is never zero. Instants are RFC 3339 in UTC, durations are seconds.",
        "anyOf": [_ref("report"), _ref("status")],
        "$defs": {
            "report": _report(),
            "status": _list(_ref("row"), "what `status -o json` prints: one row for each guard"),
            "row": _row(),
            "check": _check(),
            "version": _object({"digest": _DIGEST, "release": _or_null(_TEXT), "config": _or_null(_TEXT), "name": _TEXT}),
            "held": _object({"why": {"enum": list(get_args(HoldWord))}, "since": _AT, "text": _TEXT}),
        },
    }


def _report() -> Json:
    arms = _object({"stable": _or_null(_COUNT), "candidate": _or_null(_COUNT)})
    return _object(
        {
            "schema": {"const": SCHEMA},
            "guard": _TEXT,
            "outcome": {"enum": list(get_args(OutcomeWord)), "description": "how the run ended"},
            "exit_code": {"enum": [0, 1, 2, 10, 11, 12, 13, 14, 124, 130], "description": "what `run` returned"},
            "reason": {**_TEXT, "description": "one sentence for people"},
            "at": {**_AT, "description": "when the report was made"},
            "rollout": _or_null(_TEXT, "the rollout's id; null when none was opened"),
            "kind": {"enum": ["candidate", "return", None]},
            "target": _or_null(_TEXT),
            "phase": {"enum": [*PHASES, None]},
            "state": _or_null(_TEXT, "the phase in words"),
            "stable": _or_null(_ref("version"), "the version to compare with and to go back to"),
            "stable_since": _or_null(_AT),
            "stable_adopted": {**_FLAG, "description": "stable was found running and has not been seen healthy for a whole soak"},
            "back_to": _or_null(_ref("version"), "the version gone back to: stable, or an older one on the last rung"),
            "candidate": _or_null(_ref("version")),
            "override": {**_TEXT, "description": "why a quarantined component was let through; empty when none was"},
            "exposure_max": _or_null(_object({"instances": _COUNT, "of": _or_null(_COUNT), "share": _or_null(_NUMBER)})),
            "requests": {**arms, "description": "users' requests since the start, by arm"},
            "failed_requests": {**arms, "description": "those of them that failed"},
            "started": _or_null(_AT),
            "exposed": _or_null(_AT, "when the first instance ran the candidate"),
            "first_bad": _or_null(_AT, "the first bad sample of a candidate that was judged bad"),
            "held": _or_null(_ref("held"), "why the rollout stands still"),
            "decided": _or_null(_AT),
            "restored": _or_null(_AT, "when every reachable instance had loaded the stable version again"),
            "confirmed": _or_null(_object({"at": _or_null(_AT), "text": _TEXT})),
            "verifying_until": _or_null(_AT),
            "detection_s": _or_null(_NUMBER, "from the first bad sample to the decision"),
            "restore_s": _or_null(_NUMBER, "from the decision to the last acknowledgement"),
            "exposed_s": _or_null(_NUMBER),
            "checks": _list(_ref("check"), "of the decision, or the latest"),
            "trail": _list(_object({"at": _or_null(_AT), "phase": _TEXT, "text": _TEXT})),
            "quarantined": _list(_object({"digest": _DIGEST, "name": _TEXT, "at": _AT, "text": _TEXT})),
            "requests_by_people": _list(_object({"at": _or_null(_AT), "who": _TEXT, "verb": _TEXT, "text": _TEXT})),
        },
        "the report of one run; every key is always there",
    )


def _check() -> Json:
    gap = _object({"since": _or_null(_AT), "reason": _TEXT, "detail": _TEXT})
    return _object(
        {
            "name": _TEXT,
            "verdict": {"enum": VERDICTS},
            "reason": _TEXT,
            "counts": {**_map(_object({"bad": _NUMBER, "total": _NUMBER})), "description": "by arm; of a probe: red walks, walks"},
            "ratio": _or_null(_NUMBER, "the candidate's rate over stable's; null when stable had no bad request"),
            "interval": _or_null(
                {"type": "array", "prefixItems": [_NUMBER, _or_null(_NUMBER)], "minItems": 2, "maxItems": 2},
                "of the ratio, at the policy's confidence; the upper end is null when it is open",
            ),
            "evidence": _or_null(_NUMBER, "against the candidate, as an e-value"),
            "needed": _or_null(_NUMBER, "the evidence that it takes"),
            "limit": {**_TEXT, "description": "what the evidence is against"},
            "dispersion": _or_null(_NUMBER, "how many errors come in one clump; null where it does not apply"),
            "text": _TEXT,
            "silent": {**_map(gap), "description": "arms whose signal is not there"},
        }
    )


def _row() -> Json:
    named = _object({"name": _TEXT, "digest": _DIGEST})
    serving = {"name": _TEXT, "digest": _DIGEST, "since": _or_null(_AT), "age_s": _or_null(_NUMBER), "stable": _FLAG, "adopted": _FLAG}
    return _object(
        {
            "guard": _TEXT,
            "serving": _or_null(_object({**serving, "instances": _or_null(_COUNT)}), "what most instances have loaded"),
            "wanted": _or_null(named, "what somebody wants to run"),
            "source": _or_null(
                _object({"name": _TEXT, "digest": _DIGEST, "quarantined": _FLAG}),
                "what the sources in the cluster ask for; null when it is what serves, or is not known",
            ),
            "phase": {"enum": [*PHASES, None]},
            "state": {**_TEXT, "description": "what the guard does"},
            "rollout": _or_null(_TEXT),
            "exposure": _or_null(_object({"instances": _or_null(_COUNT), "of": _or_null(_COUNT)})),
            "signals": _or_null(_object({"live": _COUNT, "of": _COUNT, "blind": _list(_TEXT)})),
            "rollback": _TEXT,
            "held": _or_null(_ref("held")),
            "overdue": _FLAG,
            "driver": _or_null(_object({"holder": _TEXT, "until": _AT})),
            "needs_driver": _FLAG,
            "unseen_s": _or_null(_NUMBER, "how long nobody has looked at the target of an unfinished rollout"),
            "stopped": {**_TEXT, "description": "what the stop switch says; empty when it is not set"},
            "quarantine": _list(_object({"digest": _DIGEST, "name": _TEXT, "since": _AT, "text": _TEXT})),
        }
    )
