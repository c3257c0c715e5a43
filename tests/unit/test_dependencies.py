"""The pinned requirements are complete, have hashes, and fit the declared dependencies."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

from documents import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PINNED = (ROOT / "systemd" / "requirements.txt").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    """Return each package with its one version."""
    found = re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", PINNED, re.MULTILINE)
    assert len(found) == len(dict(found))
    return dict(found)


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    """An installation has the versions that the package declares."""
    extras = PROJECT["optional-dependencies"]
    for text in PROJECT["dependencies"] + extras["postgresql"] + extras["mysql"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins()[canonicalize_name(wanted.name)]), text


def test_every_pin_has_hashes() -> None:
    """Without a valid hash pip refuses the whole file."""
    entries = re.split(r"^(?=[a-z])", PINNED, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins())
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry


def test_indirect_dependencies_are_pinned_too() -> None:
    """For packages that are installed here in the pinned version."""
    for name, version in pins().items():
        try:
            here = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if here.version != version:
            continue
        for text in here.requires or ():
            wanted = Requirement(text)
            # The drivers of `[publish]`: psycopg has its compiled half as an extra.
            extra = {"extra": "binary" if name == "psycopg" else ""}
            if wanted.marker is None or wanted.marker.evaluate(extra):
                assert canonicalize_name(wanted.name) in pins(), f"{name} needs {text}"
