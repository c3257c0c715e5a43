"""The change feed goes out: each `[[push]]` takes it in order, by a signed POST or a command."""
