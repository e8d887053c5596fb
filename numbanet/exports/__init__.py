"""Trained models as programs of other languages, made of their components' device functions."""

from numbanet.exports.export import export as export
