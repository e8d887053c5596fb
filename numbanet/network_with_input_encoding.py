"""An encoding and the network that reads it, and a network by itself."""

from typing import Any

from numbanet.array_types import Array, ArrayLike
from numbanet.composition import Composition
from numbanet.encoded_network import EncodedNetwork
from numbanet.encodings.base import AbstractEncoding
from numbanet.engine import Batch, Gradients
from numbanet.model import AbstractModel
from numbanet.model_passes import Context
from numbanet.networks.base import AbstractMLP
from numbanet.random import Pcg32
from numbanet.target import AbstractTarget


class NetworkWithInputEncoding(AbstractModel):
    """An encoding and the network that reads it, evaluated together.

    Args:
        encoding: the encoding component; its features are padded to a multiple of 16.
        network: the network component, with the padded width as its n_input_dims.
        rng: where the initial parameters come from.
        target: the device that it runs on.
    """

    __slots__ = {"network": "The network component."}

    def __init__(
        self, encoding: AbstractEncoding, network: AbstractMLP, rng: Pcg32, target: AbstractTarget
    ):
        super().__init__(Composition.of(encoding, network), rng, target)
        self.encoding = encoding
        self.network = network
        self.padded_output_dims = network.padded_output_dims
        padded = encoding.padded(network.n_input_dims)
        self.engine = target.network_engine(EncodedNetwork(padded, network))

    def _components(self):
        return {"encoding": self.encoding, "network": self.network}

    def _evaluate(self, inputs: Any, params: Any, outputs: Any) -> Any:
        return self.engine.inference(inputs, params, outputs)

    def kernel_params(self, params: ArrayLike | None = None) -> Array:
        """Parameters as kernels read them, [n_params] in `precision`; see device_functions.

        Args:
            params: convert these instead of the model's own, float32 [n_params].
        """
        return self._chosen_params(params)

    def device_functions(
        self, threads_per_block: int = 128, shared_offset: int = 0, fused: bool | None = None
    ) -> Any:
        """Device functions `load` and `infer` that evaluate this model in users' CUDA kernels.

        They stay valid while the model is trained: the parameters are an argument of the kernel,
        for which `kernel_params()` is asked before each launch.

        Args:
            threads_per_block: that the kernel will be launched with, a multiple of 32.
            shared_offset: bytes of dynamic shared memory in front that belong to others, such as
                the device functions of another model.
            fused: None lets the lanes of a warp work together on tensor cores where that is
                possible, and else each lane alone, which is much slower; True raises an error
                instead; False is each lane alone.

        Returns:
            numbanet.cuda.in_kernels.device_functions.DeviceFunctions.

        Raises:
            ValueError: the model is not on a GPU, an argument is not allowed, or fused=True asks
                for what is not possible.
        """
        return self.target.device_functions(
            self.engine.model,
            threads_per_block=threads_per_block,
            shared_offset=shared_offset,
            fused=fused,
        )

    def _propagate(
        self, context: Context, dl_dy: Any, gradients: Gradients | None, dl_dx: Any
    ) -> None:
        batch = Batch(context.inputs, external_dl_dy=dl_dy)
        self.engine.forward_backward(batch, context.params, None, gradients, dl_dx)


class Network(NetworkWithInputEncoding):
    """A network by itself: its inputs are padded with ones to a multiple of 16.

    The networks have no biases; the weights of the padding act as the first layer's.
    """

    __slots__ = ()
