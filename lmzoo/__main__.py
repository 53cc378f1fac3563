"""Entry point of the `lmzoo` command, also as `python -m lmzoo`.

Ctrl-C while a module is imported ends the process at once: nothing has been written then, a traceback through imports
says nothing, and a library that catches every exception could swallow the interrupt and leave itself half imported.
"""

import gc
import os
import signal
import sys
from types import FrameType

_IMPORTS = "<frozen importlib."  # file name of the frames of Python's import system
# Python looks for garbage after so many new objects. Its default of 700 adds a third to the time of importing torch.
_NEW_OBJECTS = 20_000


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handler of SIGINT until a run installs its own: ends the process within an import, else as Python does."""
    step = frame
    while step is not None:
        if step.f_code.co_filename.startswith(_IMPORTS):
            os.write(2, b"lmzoo: interrupted\n")
            os._exit(130)
        step = step.f_back
    signal.default_int_handler(number, frame)


def main() -> None:
    """Run the command."""
    gc.set_threshold(_NEW_OBJECTS)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        from lmzoo.cli import main as command

        command()
    except KeyboardInterrupt:
        sys.stderr.write("lmzoo: interrupted\n")
        sys.exit(130)
    finally:
        gc.freeze()  # else Python would look for garbage in all of torch before the process ends


if __name__ == "__main__":
    main()
