"""The costs of syncd, as ratios measured in one run; see run.py."""
