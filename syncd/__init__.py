"""A daemon that keeps a shop's mirror of Dreamship's availability equal to Dreamship."""

__version__ = "0.2.0"
