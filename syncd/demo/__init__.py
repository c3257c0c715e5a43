"""`syncd demo`: the whole main job on loopback, with nothing to set up."""

from syncd.demo.play import Frame, Play, Result
from syncd.demo.shows import PlainShow, live_show

__all__ = ["Frame", "PlainShow", "Play", "Result", "live_show"]
