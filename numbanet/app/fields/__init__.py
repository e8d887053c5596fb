"""Radiance fields: scenes, their training, and the command learn-field."""
