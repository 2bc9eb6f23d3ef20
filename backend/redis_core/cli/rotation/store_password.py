"""`raptorflow rotate redis`: the store's password over TCP."""

from __future__ import annotations

import secrets

from redis_core.cli.rotation.place import Place, only
from redis_core.cli.rotation.walk import Walk
from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.errors import ConfigError, CredentialsRejected, StoreError
from redis_core.secret import Secret

__all__ = ["rotate_password"]


async def rotate_password(settings: Settings, walk: Walk, admin_url: str = "") -> None:
    """Give the store's user a second password, put it into its place, wait until no connection is of the old one, take that away.

    Args:
        settings: name the store and where its password is.
        walk: tells, asks and waits.
        admin_url: the store with a user who may use ACL; the application's own otherwise.

    Raises:
        ConfigError: the store is none of this kind, or its password is not kept elsewhere.
        StoreError: the store does not let us.
    """
    address = settings.store_address()
    if address is None or address.scheme not in {"redis", "rediss", "unix"}:
        raise ConfigError(
            "REDIS_URL",
            None if address is None else str(address),
            "name one server by redis://, rediss:// or unix://",
        )
    place = Place(settings, "REDIS_PASSWORD")
    old, new = await place.read(), Secret(secrets.token_urlsafe(32))
    user = address.username or "default"
    walk.ask(f"Replace the password of {user} at {address}?")
    asks = only(settings, redis_url=admin_url) if admin_url else only(settings, redis_password=old)
    async with await connect(asks) as admin:
        await admin.execute("ACL", "SETUSER", user, f">{new.reveal()}")
        walk.done("make a new password", f"{user} has two now")
        try:
            marker = await _last_connection(settings, new)
        except StoreError as error:
            await admin.execute("ACL", "SETUSER", user, f"<{new.reveal()}")
            walk.stop("sign in with it", f"{type(error).__name__}: {error}; it was taken away again")
        walk.done("sign in with it", "the store takes it")
        await walk.put(place, new)

        async def renewed() -> bool:
            return not await _older(admin, user, marker)

        if not await walk.until(renewed):
            left = ", ".join(sorted(set((await _older(admin, user, marker)).values())))
            walk.stop(
                "wait for the processes", f"both passwords are accepted still; of the old one are: {left}"
            )
        walk.done("wait for the processes", "every connection of this user is of the new one")
        await admin.execute("ACL", "SETUSER", user, f"<{old.reveal()}")
        try:
            await _last_connection(settings, old)
        except CredentialsRejected:
            walk.done("take the old one away", "the store refuses it")
        else:
            walk.stop(
                "take the old one away", f"the store still takes it: look at ACL GETUSER {user} (nopass?)"
            )
        cut = await _older(admin, user, marker)
        for number in cut:
            await admin.execute("CLIENT", "KILL", "ID", str(number))
        walk.done("cut what is left of it", f"{len(cut)} connections")
        await _keep(admin, walk)
    walk.finish()


async def _last_connection(settings: Settings, password: Secret) -> int:
    """Sign in; the number of the connection, which is higher than that of any before it."""
    async with await connect(only(settings, redis_password=password)) as client:
        number = await client.execute("CLIENT", "ID")
        return int(number)  # type: ignore[arg-type]


async def _older(admin: Client, user: str, marker: int) -> dict[int, str]:
    """The user's connections from before the new password, but for our own: number and who it is."""
    own = await admin.execute("CLIENT", "ID")
    listed = await admin.execute("CLIENT", "LIST")
    assert isinstance(listed, bytes)  # noqa: S101 - CLIENT LIST is one text
    found: dict[int, str] = {}
    for line in listed.decode("utf-8", "replace").splitlines():
        pairs = (field.partition("=") for field in line.split(" "))
        fields = {name: value for name, _, value in pairs}
        number = int(fields["id"])
        if fields.get("user", "default") == user and number < marker and number != own:
            found[number] = f"{fields.get('name') or 'unnamed'} from {fields['addr']}"
    return found


async def _keep(admin: Client, walk: Walk) -> None:
    """Write the users down, so that a restart of the server does not bring the old password back."""
    step = "keep it over a restart of the server"
    try:
        await admin.execute("ACL", "SAVE")
    except StoreError as error:
        walk.by_hand(step, f"change the password in the server's configuration, too (ACL SAVE: {error})")
    else:
        walk.done(step, "ACL SAVE")
