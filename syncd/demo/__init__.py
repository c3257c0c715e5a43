"""`syncd demo`: syncd with a simulated Dreamship on loopback, without any set-up."""

from syncd.demo.output import PlainOutput, live_output
from syncd.demo.run import Demo, DemoState, Result

__all__ = ["Demo", "DemoState", "PlainOutput", "Result", "live_output"]
