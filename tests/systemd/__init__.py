"""A fresh Debian with a real systemd, what the README tells to do in it, and what goes wrong."""
