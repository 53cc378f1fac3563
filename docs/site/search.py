"""The search of the site: English words with their stems, and Chinese text in pairs of neighboring characters.

Chinese has no spaces, so Sphinx would take a clause for one word. The query is split in the same way by the browser; a
page is found if it has all pairs.
"""

from __future__ import annotations

import re

from sphinx.search.en import SearchEnglish

HAN = "\u3400-\u9fff"


class SearchMixed(SearchEnglish):
    """Search in English and Chinese pages."""

    lang = "mixed"
    js_splitter_code = """
var splitQuery = (query) =>
  (query.match(/[HAN]+|(?:(?![HAN])[\\p{Letter}\\p{Number}_])+/gu) ?? []).flatMap((run) =>
    /^[HAN]{3,}$/.test(run) ? [...run].slice(1).map((character, at) => run[at] + character) : [run]);
""".replace("HAN", "\\u3400-\\u9fff")

    def split(self, input: str) -> list[str]:
        """Returns the words of a text, and the pairs of characters of each run of Chinese."""
        found: list[str] = []
        for run in re.findall(rf"[{HAN}]+|[^\W{HAN}]+", input):
            chinese = re.match(rf"[{HAN}]{{3,}}", run) is not None
            found += [run[at : at + 2] for at in range(len(run) - 1)] if chinese else [run]
        return found
