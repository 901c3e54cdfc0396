"""Webhooks: jobs whose handler is a signed HTTP request to another system.

`jobs.webhook("crm-sync", url=..., auth=Bearer(env="CRM_TOKEN"))` declares one in code, `jobs.create_webhook` makes one without. Sending
needs the extra `webhooks`; importing this package does not.
"""

from __future__ import annotations

from jobmanager.webhooks.auth import ApiKey, Auth, Basic, Bearer, Header
from jobmanager.webhooks.webhook import Webhook, WebhookInfo, WebhookTest

__all__ = ["ApiKey", "Auth", "Basic", "Bearer", "Header", "Webhook", "WebhookInfo", "WebhookTest"]
