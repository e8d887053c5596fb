"""Volume rendering: an occupancy grid, a ray marcher, and compositing with its gradients."""

from numbanet.volumes.cameras import Camera as Camera
from numbanet.volumes.compositing import Composited as Composited
from numbanet.volumes.compositing import composite as composite
from numbanet.volumes.compositing import composite_backward as composite_backward
from numbanet.volumes.occupancy import OccupancyGrid as OccupancyGrid
from numbanet.volumes.samples import Samples as Samples
from numbanet.volumes.visible import visible as visible
