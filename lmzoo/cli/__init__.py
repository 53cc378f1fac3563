"""The command line: commands parse options, call other packages, and print; heavy imports wait until a command runs.

Exit codes: 0 success, 1 a check failed, 2 bad input (one line on stderr), 130 after Ctrl-C, 143 after SIGTERM.
"""

from lmzoo.cli import bench, compare, complete, data, models, runs, show  # each module adds its commands to the group
from lmzoo.cli.group import cli, main

__all__ = ["bench", "cli", "compare", "complete", "data", "main", "models", "runs", "show"]
