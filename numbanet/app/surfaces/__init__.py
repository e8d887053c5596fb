"""Surfaces as signed distances: meshes and formulas, and networks that learn them."""
