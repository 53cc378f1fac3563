"""The sequence algorithms. For each: `naive_*`, the definition as a loop, and fast twins behind one dispatcher."""
