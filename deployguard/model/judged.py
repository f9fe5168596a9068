"""What all checks share that are judged by numbers: the comparison with stable, and the limit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from deployguard.model.fields import Share, Written, broken

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Worse(Written):
    """How much worse than stable is still tolerated: bad <= ratio x stable + margin, and never below the floor.

    For a latency histogram "bad" is being among stable's slowest; with `{ratio: 1, margin: 0%}` the whole distributions are compared.
    The floor is for counts, the margin not for gauges.
    """

    ratio: float = Field(
        1.25, ge=1, le=100, json_schema_extra={"x-unit": "times"}, description="tolerated ratio of the candidate's rate to stable's"
    )
    margin: Share = Field(0.0002, description="tolerated difference on top of the ratio, in points of the rate")
    floor: Share = Field(0.001, description="a rate at or below this is never a reason to roll back")


class JudgedCheck(Written):
    """What all checks share that are judged by numbers."""

    name: Name = Field(description="the check's name, unique in the guard")
    worse_than_stable: Worse | None = Field(Worse(), description="compare the candidate with stable; null to switch off")
    claims: float = Field(
        2.0,
        gt=1,
        le=1000,
        json_schema_extra={"x-unit": "times"},
        description="the smallest ratio to stable that this check must be able to see",
    )
    limit: Share | None = Field(None, description="absolute limit of the rate of bad requests, whatever stable does")
    dispersion: Literal["measured"] | Annotated[float, Field(ge=1, le=12)] = Field(
        "measured",
        json_schema_extra={"x-unit": "errors per clump"},
        description="how many errors come in one clump (phi): `measured` on stable, or a number; 1 when they are independent",
    )
    required: bool = Field(True, description="promotion needs this signal; without it the check can only stop a rollout")

    @property
    def phi(self) -> float | None:
        """The dispersion that the policy states; None when it is to be measured."""
        return None if self.dispersion == "measured" else float(self.dispersion)


class CountsCheck(JudgedCheck):
    """A check on bad and total counts."""

    @model_validator(mode="after")
    def _asks_something(self) -> CountsCheck:
        if self.worse_than_stable is None and self.limit is None:
            raise broken("the check asks nothing; give `worse_than_stable`, `limit`, or both", ("worse_than_stable",))
        return self
