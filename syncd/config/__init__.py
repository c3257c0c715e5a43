"""One frozen configuration from a TOML file and the environment, or all its errors together."""

from syncd.config.loading import SYSTEM_PATH, find, load, parse, search
from syncd.config.publish import TargetUrl
from syncd.config.redaction import in_force, to_toml
from syncd.config.settings import (
    KEYS_VARIABLE,
    REMOTE_ADMIN_VARIABLE,
    SECTIONS,
    TABLES,
    Config,
    Publish,
    Push,
)
from syncd.config.types import Address, Secret, SigningSecret
from syncd.config.validators import is_loopback

__all__ = [
    "KEYS_VARIABLE",
    "REMOTE_ADMIN_VARIABLE",
    "SECTIONS",
    "SYSTEM_PATH",
    "TABLES",
    "Address",
    "Config",
    "Publish",
    "Push",
    "Secret",
    "SigningSecret",
    "TargetUrl",
    "find",
    "in_force",
    "is_loopback",
    "load",
    "parse",
    "search",
    "to_toml",
]
