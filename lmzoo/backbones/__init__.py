"""One architecture, one file, named after it. The registry finds them by their file names and imports them when asked."""
