"""The command line: commands parse options, call other packages, and print; heavy imports wait until a command runs.

Exit codes: 0 success, 1 a check failed, 2 bad input (one line on stderr), 130 interrupted.
"""

from lmzoo.cli import bench, data, models, new, runs  # each module adds its commands to the group
from lmzoo.cli.group import cli, main

__all__ = ["bench", "cli", "data", "main", "models", "new", "runs"]
