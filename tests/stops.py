"""Stops a piece of work where it writes something, as Ctrl-C would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest


@contextmanager
def stopped_after(module: ModuleType, function: str) -> Iterator[None]:
    """The block must end in KeyboardInterrupt, raised when a call of the module's function has done its work."""
    honest = getattr(module, function)

    def stop(*args: Any) -> None:
        honest(*args)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, function, stop)
        with pytest.raises(KeyboardInterrupt):
            yield
