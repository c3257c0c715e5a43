"""`syncd demo`: the whole main job on loopback, with nothing to set up."""

from syncd.demo.output import PlainShow, live_show
from syncd.demo.run import Frame, Play, Result

__all__ = ["Frame", "PlainShow", "Play", "Result", "live_show"]
