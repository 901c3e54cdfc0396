"""Notifications: which event tells whom, as what text, and how the message gets there. The store keeps them until then.

`Notifier` is what another channel implements; it is announced as an entry point of the group `jobmanager.notifiers`, or given to
`JobManager(notifiers=...)`.
"""

from __future__ import annotations

from jobmanager.notify.message import Message, Notifier, NotSentError, UnsureError

__all__ = ["Message", "NotSentError", "Notifier", "UnsureError"]
