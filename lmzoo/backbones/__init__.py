"""One architecture, one file, named after it. The registry finds each by its file's name, imports it when asked."""
