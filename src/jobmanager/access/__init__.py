"""Principals: for whom a call is made, and what the principal may do and see. Values and one context variable; no store and no HTTP."""
