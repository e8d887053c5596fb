"""The encodings; importing this package registers them."""

from numbanet.encodings.grid import Grid as Grid
from numbanet.encodings.identity import Identity as Identity
from numbanet.encodings.one_blob import OneBlob as OneBlob
