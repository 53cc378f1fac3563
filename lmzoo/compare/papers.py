"""The papers of the compared models in BibTeX, from `papers.bib` in the registry entries of their families."""

from __future__ import annotations

import re

from lmzoo import humanize, registry
from lmzoo.compare.results import Results
from lmzoo.errors import ConfigError

FILE = "papers.bib"
_ENTRY = re.compile(r"^@\w+\{([^,\s]+),.*?^\}$", re.MULTILINE | re.DOTALL)  # each ends with a line "}"


def bibtex(results: Results) -> str:
    """Return the papers of all models, each once, in the order of the table; models without papers are left out."""
    known = registry.families()
    entries: dict[str, str] = {}
    for model in [*results.ranked, *results.unranked]:
        run = model.run or model.name  # "runs/gpt2.tiny,seed=1338", also of a finished run in any directory
        name = run.rpartition("/")[2].partition(",")[0]
        family = known.get(name.partition("+")[0].partition(".")[0])
        try:
            papers = family.papers if family else ""
        except ConfigError as error:  # of a user's registry: no reason to lose a report
            entries[name] = f"% {humanize.line(str(error))}"
            continue
        for entry in _ENTRY.finditer(papers):
            entries.setdefault(entry[1], entry[0])
    return "\n\n".join(entries.values()) + "\n" if entries else ""
