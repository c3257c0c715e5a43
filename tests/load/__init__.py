"""Load as Dreamship makes it, a daemon to bear it, and what must hold of the mirror afterwards."""
