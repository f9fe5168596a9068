"""Process knobs from the environment: how this process runs, never what a policy says."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once from variables that begin with `DEPLOYGUARD_`."""

    model_config = SettingsConfigDict(env_prefix="DEPLOYGUARD_", extra="ignore")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("WARNING", description="what is written to standard error as log lines")
    readings: bool = Field(True, description="record what every tick saw, for replay and simulation")
    drain_seconds: float = Field(5.0, ge=0, le=300, description="how long the end of a run waits for announcements")


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process. Raises `UserError` naming the variable when one is not usable."""
    from pydantic import ValidationError

    from deployguard.errors import UserError

    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "DEPLOYGUARD_" + "_".join(str(part) for part in first["loc"]).upper()
        raise UserError(
            f"the environment variable `{name}` cannot be used: {first['msg']}", hint="unset it, or see docs/environment.md"
        ) from error
