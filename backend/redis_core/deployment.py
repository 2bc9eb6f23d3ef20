"""What a platform is to be told so that the service runs there as it runs here: names and values, and of secrets the names alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Literal, get_args

from msgspec import Struct
from pydantic_core import PydanticUndefined

from redis_core.address import redact_url
from redis_core.config import Settings
from redis_core.secret import Secret
from redis_core.secret_source import is_reference

__all__ = ["Platform", "Variable", "commands_for", "variables_of"]

Platform = Literal["vercel", "cloudrun"]

_LOCAL = frozenset(
    {"raptorflow_state_dir", "raptorflow_host", "raptorflow_port", "gateway_port", "raptorflow_env"}
)
"""What is of this host, or the platform's own to say."""
_NEEDED = ("UPSTASH_REDIS_URL", "UPSTASH_REDIS_TOKEN", "SESSION_PEPPERS")
_WATCHED = frozenset(
    name.upper() for name, field in Settings.model_fields.items() if Secret in get_args(field.annotation)
)
"""Settings that may say where their secret is kept."""
_ACCOUNT = "raptorflow-redis@PROJECT.iam.gserviceaccount.com"
"""As `deploy/cloudrun.yaml` has it."""


class Variable(Struct, frozen=True):
    """One environment variable of the service."""

    name: str
    secret: bool
    value: str | None
    """None for a secret, whose value is never shown, and for what is not set here."""
    set: bool
    """Whether it is set here."""


def variables_of(settings: Settings) -> list[Variable]:
    """What differs from the defaults, and what production needs in any case."""
    found = [Variable("RAPTORFLOW_ENV", secret=False, value="production", set=True)]
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        factory = field.default_factory is not None or field.default is PydanticUndefined
        if (
            name in _LOCAL
            or name in {"mock_redis", "mock_redis_in_production"}
            or factory
            or (value == field.default and name.upper() not in _NEEDED)
        ):
            continue
        variable = name.upper()
        if isinstance(value, Secret) and is_reference(value):
            # Where the secret is, is none.
            found.append(Variable(variable, secret=False, value=value.reveal(), set=True))
            continue
        # A URL may hold a password: then all of it is a secret.
        is_secret = (
            variable in _NEEDED[1:]
            or isinstance(value, Secret)
            or (isinstance(value, str) and redact_url(value) != value)
        )
        shown = None if is_secret or value is None else _as_set(value)
        found.append(Variable(variable, secret=is_secret, value=shown, set=value is not None))
    if settings.redis_url and not settings.upstash_redis_url:
        found = [variable for variable in found if not variable.name.startswith("UPSTASH")]
    return found


def commands_for(platform: Platform, variables: Sequence[Variable]) -> list[str]:
    """The platform's commands that set them; where a secret's value is needed, the command asks for it.

    Args:
        platform: where the service is to run.
        variables: what to set.
    """
    if platform == "vercel":
        return [
            f"vercel env add {variable.name} production{' --sensitive' if variable.secret else ''}"
            if variable.value is None
            else f"printf %s {quote(variable.value)} | vercel env add {variable.name} production"
            for variable in variables
        ]
    plain = [f"{variable.name}={variable.value}" for variable in variables if variable.value is not None]
    secrets = [variable.name for variable in variables if variable.secret]
    lines = []
    for name in map(_secret_name, secrets):
        lines += [
            f"gcloud secrets create {name} --replication-policy=automatic --data-file=-  # reads the value from standard input",
            f"gcloud secrets add-iam-policy-binding {name} --role=roles/secretmanager.secretAccessor --member=serviceAccount:{_ACCOUNT}",
        ]
    # The service reads these itself and looks again, so that they can be replaced without a restart. What stands in the environment cannot.
    watched = [name for name in secrets if name in _WATCHED]
    plain += [f"{name}=sm://PROJECT/{_secret_name(name)}/latest" for name in watched]
    secrets = [name for name in secrets if name not in _WATCHED]
    # `^@^` makes @ the separator, so that values may have commas.
    lines.append(
        "gcloud run services update raptorflow-redis"
        + (f" --set-env-vars {quote('^@^' + '@'.join(plain))}" if plain else "")
        + (
            " --set-secrets " + ",".join(f"{name}={_secret_name(name)}:latest" for name in secrets)
            if secrets
            else ""
        )
    )
    return lines


def _as_set(value: object) -> str:
    """A setting's value as the environment has it."""
    return value if isinstance(value, str) else str(value) if isinstance(value, Path) else json.dumps(value)


def _secret_name(variable: str) -> str:
    return variable.lower().replace("_", "-")
