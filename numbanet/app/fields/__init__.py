"""Radiance fields: scenes, what learns them, and what the command learn-field writes."""
