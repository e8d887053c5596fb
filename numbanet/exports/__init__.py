"""Export of trained models to programs in other languages, from their device functions."""

from numbanet.exports.export import export as export
