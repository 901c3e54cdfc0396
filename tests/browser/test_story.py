"""The story that pages are tested against adds up."""

from __future__ import annotations

from collections import Counter

from jobmanager import JobManager

from .story import DUE_TODAY, MIDNIGHT


def test_the_instants_of_the_day_are_as_many_as_the_story_says(story: JobManager) -> None:
    ids = [view.id for view in story.list_jobs()]
    due = story.due_instants(ids, limit=1000, since=MIDNIGHT)

    assert Counter(cell.status.value for cells in due.values() for cell in cells) == DUE_TODAY


def test_two_processes_live_and_one_handler_is_missing(story: JobManager) -> None:
    assert story.health().symptoms == ()
    assert [standing.id for standing in story.standings() if not standing.has_handler] == [
        "approve-mature-affiliate-conversions"
    ]
