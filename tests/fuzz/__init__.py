"""Draws wrong input for every way into lmzoo, and watches what it does; see scripts/fuzz."""
