"""Any bytes at all through signature, parser, rule and file: by Hypothesis, and by hand."""
