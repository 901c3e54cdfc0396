"""Who asks, and what that one may do and see. Values and one context variable; no store and no HTTP."""
