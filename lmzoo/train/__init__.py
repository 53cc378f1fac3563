"""Training: one loop for every model, runs that survive what happens to them, and the parts of both."""
