"""The command line: parse, call, print. A command's work lives in its room; nothing heavy is imported before it runs.

Exit codes: 0 done, 1 a check failed, 2 bad input (one line on stderr), 130 interrupted.
"""

from lmzoo.cli import bench, models, runs  # each module puts its commands into the group
from lmzoo.cli.group import cli, main

__all__ = ["bench", "cli", "main", "models", "runs"]
