"""Finds the ids of variants and items in a body that was not understood: a bounded scan of text.

The scan assumes no format: it finds ids in truncated JSON, in form data and in XML. Its result only
decides which items to read, so a wrong id costs one read.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote_plus

from syncd.core.lenient_json import text_of
from syncd.core.model import MAX_ID, Mention

# A usual delivery has some hundred bytes.
MAX_CHARS = 64 * 1024
MAX_IDS = 20

Subject = Literal["variant", "item", "other", "unknown", "none"]
_VARIANT = "itemvariant"
_ITEM = "item"
# Other objects that Dreamship documents. Their ids are not ids of variants or items.
_OTHERS = (
    *("order", "product", "tracking", "printfile", "lineitem", "lineticket", "shop", "category"),
    *("account", "webhook"),
)

_IS = r"""[\s"'\\]{0,8}(?:[:=>]|\r?\n\r?\n)[\s"'\\]{0,8}"""
# A kind at the end of the text may be truncated, so it does not count.
_KIND = re.compile(
    rf"(?<!\w)(?:(?P<action>action)|object(?:[_-]?type)?){_IS}"
    r"(?P<kind>[a-z][\w -]{2,60})(?![\w -]|$)",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    rf"""(?P<close>[\]}}])
      |  (?:(?<!\w)(?P<owner>[a-z]\w{{0,40}}){_IS})?(?P<open>[\[{{])
      |  (?<!\w)(?:(?P<own>(?:object[_-]?)?id)|(?P<item>item(?:[_-]?id)?)
                  |(?P<variant>(?:item[_-]?)?variant(?:[_-]?id)?))
         {_IS}\+?(?P<number>\d{{1,19}})(?:\.0{{1,6}})?(?![\w.])""",
    re.IGNORECASE | re.VERBOSE,
)
# Parts of a variant or an item that have ids of their own.
_PARTS = frozenset(
    {
        *("color", "colors", "size", "sizes", "option", "options", "user", "brand"),
        *("print_area", "print_areas", "ship_zone", "ship_zones", "ship_zone_methods"),
        *("category", "categories", "order", "product", "shop", "line_item", "line_items"),
    }
)


def mention_in(body: bytes) -> Mention | None:
    """Return the ids that such a body names, or None if it names no variant and no item."""
    text = text_of(body)[:MAX_CHARS]
    if "%22" in text or "%3A" in text:
        text = unquote_plus(text)
    about = subject(*_kinds(text))
    if about == "other":
        return None
    own, variants, items = _ids(text)
    if about == "item":
        # A change of the item does not contradict the values of its variants. Its id is the id of a
        # variant only if "item" is a truncated "item_variant".
        return Mention(variant_ids=own, item_ids=own + items)
    is_certain = about == "variant"
    # Without a kind, an id may be a variant's or an item's.
    read = items if is_certain else items + own
    if own or variants:
        return Mention(variant_ids=own + variants, item_ids=read, is_certain=is_certain)
    return Mention(unclear_item_ids=items, item_ids=items) if items else None


def subject(objects: tuple[str, ...], actions: tuple[str, ...]) -> Subject:
    """Return the subject of a body with these object types and actions.

    An action on a variant decides, whatever the object type is. "unknown" means that the type is
    present and not documented; "none" means that it is absent.
    """
    kinds, done = [_squeezed(text) for text in objects], [_squeezed(text) for text in actions]
    if any(kind.startswith(_VARIANT) for kind in kinds + done):
        return "variant"
    if _ITEM in kinds or (not kinds and any(action.startswith(_ITEM) for action in done)):
        return "item"
    if any(kind.startswith(_OTHERS) for kind in kinds + done):
        return "other"
    return "unknown" if kinds or done else "none"


def _squeezed(text: str) -> str:
    """Return the letters only: `item_variant`, `item-variant` and `ItemVariant` are one kind."""
    return "".join(filter(str.isalpha, text)).lower()


def _kinds(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the first object types and the first actions; nested objects may have more."""
    objects: list[str] = []
    actions: list[str] = []
    for found in _KIND.finditer(text):
        kinds, most = (actions, 1) if found["action"] else (objects, 2)
        if len(kinds) < most:
            kinds.append(found["kind"])
    return tuple(objects), tuple(actions)


def _ids(text: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the ids of the object itself, of variants, and of items."""
    own: dict[int, None] = {}
    variants: dict[int, None] = {}
    items: dict[int, None] = {}
    owners: list[str] = []
    for found in _TOKEN.finditer(text):
        if found["open"]:
            owners.append((found["owner"] or (owners[-1] if owners else "")).lower())
        elif found["close"]:
            del owners[-1:]
        elif 0 < (number := int(found["number"])) <= MAX_ID:
            owner = owners[-1] if owners else ""
            if found["own"]:
                if owner in _PARTS:
                    continue
                kind = (
                    items if owner in {_ITEM, "items"} else variants if "variant" in owner else own
                )
            else:
                kind = items if found["item"] else variants
            kind[number] = None
            if len(own) + len(variants) + len(items) >= MAX_IDS:
                break
    return tuple(own), tuple(variants), tuple(items)
