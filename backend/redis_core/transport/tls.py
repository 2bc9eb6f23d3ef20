"""The TLS context of a store's links, verified unless a setting says otherwise."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from redis_core.errors import ConfigError

if TYPE_CHECKING:
    from redis_core.config import Settings

__all__ = ["tls_context"]


def tls_context(settings: Settings) -> ssl.SSLContext:
    """A client context: the system's authorities or `REDIS_TLS_CA`, our certificate if one is set, TLS 1.2 at least.

    Raises:
        ConfigError: a file is missing or is no certificate or key.
    """
    try:
        context = ssl.create_default_context(cafile=settings.redis_tls_ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "REDIS_TLS_CA", str(settings.redis_tls_ca), f"name a PEM file of authorities ({error})"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.redis_tls_cert is not None:
        try:
            context.load_cert_chain(settings.redis_tls_cert, settings.redis_tls_key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                "REDIS_TLS_CERT",
                str(settings.redis_tls_cert),
                f"name PEM files of a certificate and its key ({error})",
            ) from None
    if not settings.redis_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
