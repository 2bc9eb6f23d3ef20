"""`raptorflow rotate upstash`: the token of the store's REST interface."""

from __future__ import annotations

from redis_core.cli.rotation.place import Place, only
from redis_core.cli.rotation.walk import Walk
from redis_core.client import connect
from redis_core.config import Settings
from redis_core.errors import ConfigError, CredentialsRejected, StoreError
from redis_core.secret import Secret

__all__ = ["rotate_token"]


async def rotate_token(settings: Settings, walk: Walk, new: Secret) -> None:
    """Put a second token into its place, and see that the old one is refused when it was taken away.

    Upstash gives a token to each ACL user (`ACL RESTTOKEN`), and shows in no list who uses which: taking the old one away is the
    operator's.

    Args:
        settings: name the store and where its token is.
        walk: tells, asks and waits.
        new: the second token, made beside the first.

    Raises:
        ConfigError: the store is not spoken to over REST, or its token is not kept elsewhere.
    """
    address = settings.store_address()
    if address is None or not address.is_rest:
        raise ConfigError("UPSTASH_REDIS_URL", None, "set it to the store's REST URL")
    place = Place(settings, "UPSTASH_REDIS_TOKEN")
    old = await place.read()
    step = "try the new token"
    if new == old:
        walk.stop(step, "it is the one that is in use")
    walk.ask(f"Replace the token of {address}?")
    try:
        await _ping(settings, new)
    except StoreError as error:
        walk.stop(step, f"{type(error).__name__}: {error}")
    walk.done(step, "the store takes it")
    await walk.put(place, new)
    walk.by_hand(
        "wait for the processes", "each looks every 30 to 90 seconds; which token one uses does not show"
    )
    walk.by_hand(
        "take the old one away", "ACL DELUSER of its user, or reset it in the console; not before two minutes"
    )

    async def refused() -> bool:
        try:
            await _ping(settings, old)
        except CredentialsRejected:
            return True
        return False

    if await walk.until(refused):
        walk.done("see that it is gone", "the store refuses the old token")
    else:
        walk.by_hand("see that it is gone", "the store still takes the old token")
    walk.finish()


async def _ping(settings: Settings, token: Secret) -> None:
    async with await connect(only(settings, upstash_redis_token=token)) as client:
        await client.ping()
