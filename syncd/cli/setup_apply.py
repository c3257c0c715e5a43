"""The steps of `syncd setup` after the answers: files, users, the daemon."""

from __future__ import annotations

import grp
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct, json

from syncd import http_client
from syncd.errors import ConfigurationError, UsageError
from syncd.setup import files, service, users
from syncd.setup.files import NewFile
from syncd.setup.places import Place
from syncd.setup.plan import Plan
from syncd.setup.programs import Run
from syncd.setup.service import Started

Say = Callable[[str], None]


class ShopAccess(Struct, frozen=True):
    """The users of the shop: `added` to the group, and the programs that must be restarted."""

    users: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


def require_host(place: Place, run: Run) -> None:
    """Raise UsageError before the first question if the host is not prepared for the daemon."""
    if not place.is_system:
        return
    hint = "install the package, or follow systemd/README.md; as another user it needs nothing"
    if users.ids_of(users.USER) is None and not users.can_create():
        raise UsageError(f"there is no user {users.USER}, and no file to create it", hint=hint)
    if service.is_booted() and not service.are_installed(run):
        raise UsageError(f"systemd does not know {' and '.join(service.UNITS)}", hint=hint)


def daemon_user(place: Place, run: Run) -> tuple[int, int] | None:
    """Return the ids of the daemon's user, created if necessary; None without systemd's daemon."""
    return users.create(run) if place.is_system else None


def write(plan: Plan, say: Say) -> list[NewFile]:
    """Write the files that differ, and return them."""
    changed = files.differing(plan.files)
    for file in changed:
        try:
            file.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                [f"{file.path.parent} cannot be created: {error.strerror}"],
                hint="name another place with -c",
            ) from None
    files.write_all(changed)
    for file in plan.files:
        if file not in changed:
            say(f"{file.path} stays as it is.")
        elif file is plan.config_file:
            say(f"{file.path} is {'written' if file.before is None else 'changed'}.")
            for change in plan.changes:
                say(f"  {change.key} = {_shown(change.key, change.after)}")
        else:
            say(f"{file.path} is written; only its owner can read it.")
    return changed


def _shown(key: str, value: Any) -> str:
    text = json.encode(value).decode()
    return text if key != "dreamship.api_keys" else "[] (the file has them)"


def let_read(place: Place, plan: Plan, names: Sequence[str], run: Run, say: Say) -> ShopAccess:
    """Add the users of the shop to the group of the mirror, and name what must be restarted."""
    if not names:
        return ShopAccess()
    if not place.is_system:
        group = _group(plan.config.mirror.path)
        missing = [name for name in names if not users.is_member(name, group)]
        for name in missing:
            say(f"{name} cannot read the mirror yet. As root: gpasswd --add {name} {group}")
        return ShopAccess(tuple(names))
    added = [name for name in names if users.add_member(name, users.USER, run)]
    for name in added:
        say(f"{name} is in the group {users.USER} now, and may read the mirror.")
    restart = users.without_group(names, users.USER)
    if restart:
        say(f"Restart what runs without the new group: {', '.join(restart)}")
        units = [name for name in restart if name.endswith(".service")]
        if units:
            say(f"  systemctl restart {' '.join(units)}")
    return ShopAccess(tuple(names), tuple(added), tuple(restart))


def _group(mirror: Path) -> str:
    folder = next(one for one in mirror.parents if one.exists())
    with suppress(KeyError, OSError):
        return grp.getgrgid(folder.stat().st_gid).gr_name
    return str(os.getegid())


def require_readable(plan: Plan, run: Run) -> None:
    """Raise ConfigurationError if the daemon's user cannot read the file of the SKUs."""
    listings = plan.config.catalog.listings
    if listings is None:
        return
    done = run(["runuser", "-u", users.USER, "--", "test", "-r", str(listings)])
    if done.code:
        raise ConfigurationError(
            [f"catalog.listings: the user {users.USER} cannot read {listings}"],
            hint=f"chgrp {users.USER} {listings}; chmod g+r {listings}; or copy it to /etc/syncd",
        )


def warn_of_proxy(plan: Plan, run: Run, say: Say) -> None:
    """Warn that the service does not get this shell's proxy, which the test of the key used."""
    base_url = plan.config.dreamship.base_url
    variable, _ = http_client.proxy_for(base_url, os.environ)
    if variable and base_url.startswith("https:") and not service.has_variable(variable, run):
        say(f"The service has no ${variable}, which this shell has. If it needs that proxy:")
        say(f"  systemctl edit syncd   # [Service] Environment={variable}=http://HOST:PORT")


def start(
    place: Place, plan: Plan, changed: Sequence[NewFile], run: Run, say: Say
) -> Started | None:
    """Have systemd run the daemon with the new files; None if systemd does not run it."""
    if not place.is_system or not service.is_booted():
        return None
    warn_of_proxy(plan, run, say)
    keys = ["api keys"] if plan.key_file in changed else []
    names = [change.key for change in plan.changes]
    done = service.apply([*names, *keys, *(["rights"] if changed else [])], run)
    say(f"syncd.service is {'running already' if done == 'unchanged' else done}.")
    return done
