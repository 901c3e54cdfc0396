"""A console that shows no control character of a text, whatever is rendered: only rich's own styles command the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.segment import Segment

from jobmanager.validation.printable import printable_lines

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType


class EscapingConsole(Console):
    """Escapes each text where everything that is printed comes by, nested or not."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Return the segments of what is shown, their texts escaped; those that move the cursor are rich's own."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable_lines(text), style)
