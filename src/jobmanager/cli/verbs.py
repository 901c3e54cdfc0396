"""How verbs are declared: click's commands and groups, with help that people read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click


class _Page(click.HelpFormatter):
    """A page of help."""

    def write_heading(self, heading: str) -> None:
        super().write_heading(click.style(heading, bold=True))


class _Context(click.Context):
    formatter_class = _Page


class Verb(click.Command):
    """A verb, with an example of its use."""

    context_class = _Context

    def __init__(self, *arguments: Any, example: str, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Example"):
            formatter.write(f"  {self.example}\n")  # never wrapped: it is to be copied
        super().format_epilog(ctx, formatter)


class Verbs(click.Group):
    """A verb that has verbs of its own. Without one of them `default` is meant, or its help."""

    command_class = Verb
    context_class = _Context

    def __init__(self, name: str, *, default: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self._default = list(default)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Completion in a shell parses what stands before the word, too.
        return super().parse_args(ctx, args if args or ctx.resilient_parsing else self._default)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of their declaration."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.write_section(ctx, formatter, "Commands", self.list_commands(ctx))

    def write_section(
        self, ctx: click.Context, formatter: click.HelpFormatter, title: str, names: Sequence[str]
    ) -> None:
        """Write these verbs under a title, each with the whole first paragraph of its help: click cuts it at 45 characters."""
        found = [(name, command) for name in names if (command := self.get_command(ctx, name))]
        with formatter.section(title):
            formatter.write_dl([(name, (command.help or "").partition("\n\n")[0]) for name, command in found])


def verb(name: str, *, example: str, epilog: str | None = None) -> Callable[[Callable[..., Any]], Verb]:
    """Declare a verb of the command itself; its docstring is its help."""
    return click.command(name, cls=Verb, example=example, epilog=epilog)
