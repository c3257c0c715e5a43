"""A fresh Debian with a real systemd, the documented commands in it, and what goes wrong."""
