"""`syncd demo`: syncd with a simulated Dreamship on loopback, without any set-up."""

from syncd.demo.output import LiveOutput, PlainOutput, is_live
from syncd.demo.places import Folders, Ports, make_folders, open_in_browser
from syncd.demo.run import Demo
from syncd.demo.state import DemoState, Place, Result, sums
from syncd.demo.target import DemoTarget

__all__ = [
    "Demo",
    "DemoState",
    "DemoTarget",
    "Folders",
    "LiveOutput",
    "Place",
    "PlainOutput",
    "Ports",
    "Result",
    "is_live",
    "make_folders",
    "open_in_browser",
    "sums",
]
