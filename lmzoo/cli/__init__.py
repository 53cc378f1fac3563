"""The command line: commands parse options, call other packages, and print; heavy imports wait until a command runs.

Exit codes: 0 success, 1 a check failed, 2 bad input (one line on stderr), 130 after Ctrl-C, 143 after SIGTERM.
"""

from lmzoo.cli import (  # each module adds its commands to the group
    bench,
    compare,
    complete,
    data,
    export,
    gguf,
    imports,
    inspect,
    lm_eval,
    models,
    new,
    probe,
    push,
    puzzle,
    report,
    reproduce,
    runs,
    sample,
    show,
    transplant,
)
from lmzoo.cli.group import cli, main

__all__ = [
    "bench",
    "cli",
    "compare",
    "complete",
    "data",
    "export",
    "gguf",
    "imports",
    "inspect",
    "lm_eval",
    "main",
    "models",
    "new",
    "probe",
    "push",
    "puzzle",
    "report",
    "reproduce",
    "runs",
    "sample",
    "show",
    "transplant",
]
