"""Mirrors of every released version, as SQL."""
