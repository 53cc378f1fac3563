"""Writes lmzoo/compare/vega/vega.js: Vega, Vega-Lite and Vega-Embed in one file, as vl-convert bundles them.

The charts of a report are drawn by it. It is kept in the repository, so that a report needs no network and no further
package. Run this script after the version of vl-convert-python in constraints.txt has changed.
"""

from pathlib import Path

import vl_convert

FILE = Path(__file__).resolve().parent.parent / "lmzoo" / "compare" / "vega" / "vega.js"

SNIPPET = "window.vegaEmbed = vegaEmbed;"


def bundle() -> str:
    """Returns the text of vega.js: a comment with versions and license, and the JavaScript."""
    vega_lite = vl_convert.get_vegalite_versions()[-1]
    return (
        f"/*! Vega {vl_convert.get_vega_version()}, Vega-Lite {vega_lite} and Vega-Embed "
        f"{vl_convert.get_vega_embed_version()}. Copyright (c) 2015-2025, University of Washington Interactive Data "
        f"Lab. All rights reserved. License: BSD-3-Clause. */\n{vl_convert.javascript_bundle(SNIPPET)}\n"
    )


if __name__ == "__main__":
    FILE.write_text(bundle(), encoding="utf-8")
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")
