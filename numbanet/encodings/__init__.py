"""Encodings; importing this package registers them."""

from numbanet.encodings.composite import Composite as Composite
from numbanet.encodings.empty import Empty as Empty
from numbanet.encodings.frequency import Frequency as Frequency
from numbanet.encodings.grid import Grid as Grid
from numbanet.encodings.identity import Identity as Identity
from numbanet.encodings.one_blob import OneBlob as OneBlob
from numbanet.encodings.one_blob_frequency import OneBlobFrequency as OneBlobFrequency
from numbanet.encodings.permutohedral import Permutohedral as Permutohedral
from numbanet.encodings.random_fourier import RandomFourier as RandomFourier
from numbanet.encodings.spherical_harmonics import SphericalHarmonics as SphericalHarmonics
from numbanet.encodings.triangle_wave import TriangleWave as TriangleWave
