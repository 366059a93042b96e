# SPDX-License-Identifier: Apache-2.0
"""What comes after a result that stands already: a picture, a table. Whether it succeeds decides nothing."""

import contextlib
import warnings
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def decoration(what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Whatever fails in the body is said in one line, and the verb goes on; what a library warns of, not at all."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a letter of a folder's name that matplotlib's font has not, for one
            yield
    except ModuleNotFoundError as error:  # matplotlib is left out where many workers run
        package = (error.name or "").partition(".")[0]
        say(f"no {what} without {package}: pip install 'blobzero[report]'")
    except Exception as error:
        say(f"no {what}: {type(error).__name__}: {' '.join(str(error).split())}")
