"""Load like Dreamship's, a daemon under this load, and checks of the mirror afterwards."""
