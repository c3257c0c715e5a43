"""A fresh Debian with a real systemd, for the documented commands and for faults."""
