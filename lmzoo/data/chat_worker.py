"""Renders a chat template in a process of its own: a program that `lmzoo.data.chat` starts, never imported.

It reads one JSON request on stdin and writes one JSON reply on stdout. The template comes from strangers: jinja2's
sandbox keeps it from the interpreter, and limits of the system on time and memory end what the sandbox does not. The
filters, globals and tags are those of transformers 5, so that the same template gives the same text.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from datetime import datetime
from typing import Any


def main() -> None:
    """Answers {"template", "variables", "most", "bytes", "seconds"} with {"text"} or {"error"}."""
    sys.path.extend(sys.argv[1:])  # the folder of jinja2: this process starts without the paths of the user
    request = json.load(sys.stdin)
    import jinja2

    signal.setitimer(signal.ITIMER_PROF, request["seconds"])  # of CPU time; its signal ends the process, also in C code
    resource.setrlimit(resource.RLIMIT_AS, (request["bytes"], request["bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        reply = {"text": _render(request["template"], request["variables"], request["most"])}
    except MemoryError:
        reply = {"error": "needs too much memory"}
    except RecursionError:
        reply = {"error": "is nested too deeply"}
    except jinja2.TemplateSyntaxError as error:
        reply = {"error": f"is wrong in line {error.lineno}: {error.message}"}
    except jinja2.TemplateError as error:
        reply = {"error": f"fails: {error.message or type(error).__name__}"}
    except Exception as error:
        reply = {"error": f"fails: {type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(reply))


def _render(template: str, variables: dict[str, Any], most: int) -> str:
    pieces, size = list[str](), 0
    for piece in _environment().from_string(template).generate(**variables):
        size += len(piece)
        if size > most:
            raise ValueError(f"its text has more than {most} characters")
        pieces.append(piece)
    return "".join(pieces)


def _environment() -> Any:
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """The block {% generation %}, which marks what the model writes: rendered as its content."""

        tags = {"generation"}  # noqa: RUF012 (as in jinja2)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

        def _content(self, caller: Any) -> str:
            return caller()

    class PlainNamespace(Namespace):
        """A namespace without attributes that begin with an underscore."""

        def __init__(*arguments: Any, **attributes: Any) -> None:
            self, rest = arguments[0], arguments[1:]
            found = dict(*rest, **attributes)
            for name in found:
                PlainNamespace._check(name)
            Namespace.__init__(self, found)

        def __setitem__(self, name: str, value: Any) -> None:
            PlainNamespace._check(name)
            Namespace.__setitem__(self, name, value)

        @staticmethod
        def _check(name: object) -> None:
            if isinstance(name, str) and name.startswith("_"):
                raise SecurityError(f"{name!r} must not begin with an underscore, as attribute of a namespace")

    class Dictionary:
        """The function `dict`, without the attributes of the type."""

        def __call__(self, *arguments: Any, **items: Any) -> dict[Any, Any]:
            return dict(*arguments, **items)

        def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
            return dict.fromkeys(*arguments)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form: str) -> str:
        return datetime.now().strftime(form)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    functions: dict[str, Any] = {"raise_exception": raise_exception, "strftime_now": strftime_now}
    functions |= {"dict": Dictionary(), "namespace": PlainNamespace}
    environment.globals.update(functions)
    return environment


if __name__ == "__main__":
    main()
