"""The checks of `[[push]]` that concern several of its keys, and the files with its secrets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from syncd.config.files import read_small, reason
from syncd.config.settings import Push
from syncd.config.types import SigningSecret, parse_signing_secret
from syncd.errors import UsageError


def check_pushes(pushes: Sequence[Push], errors: list[str]) -> None:
    """Add each error: a name is missing or used twice, or the keys do not fit together.

    A key that has an error of its own gets no second one.
    """
    names = Counter(push.name for push in pushes)
    for number, push in enumerate(pushes, 1):
        at = f"push[{number}]"
        faulty = {error.removeprefix(f"{at}.").partition(":")[0] for error in errors}

        def add(key: str, error: str, at: str = at, faulty: set[str] = faulty) -> None:
            if key not in faulty:
                errors.append(f"{at}.{key}: {error}")

        if not push.name:
            add("name", "is missing; its position in the feed is stored by this name")
        elif names[push.name] > 1:
            add("name", "another push has the same name")
        if push.url and push.command:
            add("command", "there is a url too; write one push for each")
        if not push.url and not push.command and not faulty & {"url", "command"}:
            add("url", "is missing; a push needs a url or a command")
        if push.secret is not None and push.secret_file is not None:
            add("secret_file", "there is a secret too; write only one of them")
        has_secret = push.secret is not None or push.secret_file is not None
        if push.command and not push.url and has_secret:
            add(
                "secret" if push.secret is not None else "secret_file",
                "a command gets no signature; remove it",
            )


def read_signing_secrets(pushes: Sequence[Push], errors: list[str]) -> dict[str, SigningSecret]:
    """Return the secret of each push with a url; adds an error for each that has none."""
    found = {}
    for number, push in enumerate(pushes, 1):
        at = f"push[{number}]"
        secret = push.secret
        if secret is None and push.secret_file is not None:
            try:
                secret = parse_signing_secret(read_small(push.secret_file))
            except (OSError, UnicodeError) as error:
                # The path is not repeated: it may be a secret in the wrong place.
                hint = "; a relative path starts at this file"
                errors.append(f"{at}.secret_file: cannot be read: {reason(error)}{hint}")
                continue
            except ValueError as error:
                errors.append(f"{at}.secret_file: the secret in it {error}")
                continue
        if secret is not None:
            found[push.name] = secret
        elif push.url and not any(error.startswith(f"{at}.secret") for error in errors):
            errors.append(f"{at}.secret: is missing; a url needs a secret or a secret_file")
    return found


def find_push(configured: Sequence[Push], name: str | None) -> Push:
    """Return the push with a name, or the only one; raises UsageError."""
    known = ", ".join(push.name for push in configured) or "none (syncd/docs/push.md)"
    hint = f"the configuration has: {known}"
    if name is None and len(configured) != 1:
        raise UsageError("no push is named", hint=hint)
    for push in configured:
        if name in {None, push.name}:
            return push
    raise UsageError(f"there is no push {name!r}", hint=hint)
