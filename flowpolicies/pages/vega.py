"""The libraries that draw charts in a page, Vega and Vega-Lite, as one script of about 0.9 MB."""

from __future__ import annotations

from functools import cache
from typing import Any


def check_vega() -> Any:
    """The module that holds the libraries.

    Raises:
        ImportError: if its package is not installed.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise ImportError("reports need vl-convert-python: pip install 'flowpolicies[report]'") from error
    return vl_convert


@cache
def vega_script() -> str:
    """A script that defines `vegaEmbed`, and that can stand in a page.

    Raises:
        ImportError: if the package of the libraries is not installed.
    """
    script: str = check_vega().javascript_bundle()
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
