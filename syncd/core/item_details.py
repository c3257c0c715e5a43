"""The statuses and the countries of an item, in every form that Dreamship may send."""

from __future__ import annotations

from collections.abc import Iterator

from syncd.core.model import ItemDetails, JsonObject
from syncd.core.payload import name_text

# There are about 250 countries; a longer list is no list of countries.
MAX_COUNTRIES = 1_000
MAX_COUNTRY_CHARS = 100
# The names under which an object may have the code of its country.
_COUNTRY_KEYS = ("code", "iso", "id", "name")


def item_details(document: JsonObject) -> ItemDetails:
    """Return the details in an item object; any of them may be missing or have another form."""
    return ItemDetails(
        release_status=name_text(document.get("release_status")),
        operational_status=name_text(document.get("operational_status")),
        countries=_countries(document.get("ship_zones")),
    )


def _countries(zones: object) -> tuple[str, ...] | None:
    """Return each country of the zones once; None if no zone says which countries it has."""
    if not isinstance(zones, list):
        return None
    listed = [
        zone["countries"]
        for zone in zones
        if isinstance(zone, dict) and isinstance(zone.get("countries"), list)
    ]
    if zones and not listed:
        return None
    countries = dict.fromkeys(one for zone in listed for one in _named(zone))
    return tuple(countries) if len(countries) <= MAX_COUNTRIES else None


def _named(zone: list[object]) -> Iterator[str]:
    for country in zone:
        name = country
        if isinstance(country, dict):
            name = next((country[key] for key in _COUNTRY_KEYS if country.get(key)), None)
        text = name_text(name)
        if text and len(text) <= MAX_COUNTRY_CHARS:
            yield text
