"""Tests of packages that can be called: they are functions and stay packages."""

from __future__ import annotations

import inspect
import subprocess
import sys

import lmzoo
from lmzoo import api


def test_make_callable_leaves_a_package_that_imports_its_modules() -> None:
    script = (
        "import sys, lmzoo\n"
        "assert callable(lmzoo.train) and 'torch' not in sys.modules\n"
        "import lmzoo.train.config as config\n"
        "from lmzoo.train.schedule import learning_rate\n"
        "from lmzoo.compare import compare, Results\n"
        "assert callable(lmzoo.train) and callable(lmzoo.compare)\n"
        "assert lmzoo.train.config is config and lmzoo.compare.compare is compare\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_make_callable_shows_the_signature_of_the_function() -> None:
    assert inspect.signature(lmzoo.train) == inspect.signature(api.train)
    assert inspect.signature(lmzoo.compare) == inspect.signature(api.compare)
