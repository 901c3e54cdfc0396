"""`Dst`: what a schedule at particular times does when the clocks of its zone change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jobmanager.errors import CronError
from jobmanager.validation.options import closest_name
from jobmanager.validation.texts import shown

Gap = Literal["end", "shift", "skip"]
Fold = Literal["first", "second", "both"]
GAPS, FOLDS = get_args(Gap), get_args(Fold)
# cron(8) of Debian: "Clock changes of more than 3 hours are considered to be corrections", so no policy holds for them.
LARGEST_SHIFT = 3 * 3_600

_SKIPPED = {
    "end": "a skipped time at the end of the gap",
    "shift": "a skipped time later by the gap",
    "skip": "a skipped time not at all",
}
_REPEATED = {
    "first": "a repeated time the first time",
    "second": "a repeated time the second time",
    "both": "a repeated time both times",
}


@dataclass(frozen=True, slots=True)
class Dst:
    """The rule for times of day that a change of the clocks skips (the gap) or shows twice (the fold).

    gap: "end" runs once, at the end of the gap; "shift" runs later by the gap, as the time is read by the offset from before it (02:30
    becomes 03:30); "skip" does not run on that day. fold: "first", "second" or "both" of the two. The default is the rule of Debian's cron.
    It makes no difference to a schedule with `*` in minute or hour, which follows the wall clock, nor to a change of more than three
    hours. Raises CronError(kind="bad_value", field="dst") for any other word.
    """

    gap: Gap = "end"
    fold: Fold = "first"

    def __post_init__(self) -> None:
        for name, words in (("gap", GAPS), ("fold", FOLDS)):
            if (word := getattr(self, name)) not in words:
                raise _refusal(f"{name}={shown(word)}", f"Use one of {', '.join(words)}.")

    @property
    def text(self) -> str:
        """Both words, as `Dst.read` reads them back: "shift,both"."""
        return f"{self.gap},{self.fold}"

    def describe(self) -> str:
        """Describe what differs from the default as an English phrase; '' if nothing does."""
        skipped = _SKIPPED[self.gap] if self.gap != DEBIAN.gap else ""
        repeated = _REPEATED[self.fold] if self.fold != DEBIAN.fold else ""
        return ", ".join(filter(None, (skipped, repeated)))

    @classmethod
    def read(cls, value: Any) -> Dst:
        """Return the policy that was given as one, as a text ("shift,both", "skip") or as a mapping; CronError for any other value."""
        if isinstance(value, Dst):
            return value
        if isinstance(value, Mapping) and value.keys() <= {"gap", "fold"}:
            return cls(**{name: word for name, word in value.items() if word is not None})
        if not isinstance(value, str):
            raise _refusal(shown(value), HOW_TO_WRITE)
        return cls(**dict(_named(word.strip(), value) for word in value.split(",")))


def _named(word: str, text: str) -> tuple[str, Any]:
    """Return a word with its field; the two share no word."""
    if word in GAPS:
        return "gap", word
    if word in FOLDS:
        return "fold", word
    raise _refusal(shown(text), closest_name(word, GAPS + FOLDS).lstrip() or HOW_TO_WRITE)


def _refusal(value: str, hint: str) -> CronError:
    return CronError(
        f"{value} is no policy for changes of the clocks.",
        kind="bad_value",
        field="dst",
        value=value,
        hint=hint,
    )


HOW_TO_WRITE = 'Use Dst(gap="shift", fold="both"), or the words of it as a text: "shift,both".'
DEBIAN = Dst()
