"""The JSON API of the dashboard, at `/api/v1`: what people do on the pages, for programs."""
