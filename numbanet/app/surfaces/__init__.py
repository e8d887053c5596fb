"""Surfaces as signed distances: meshes and formulas, and what a network learns of them."""
