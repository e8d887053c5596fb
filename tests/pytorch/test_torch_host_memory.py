"""Memory of the CPU that tensors of one step after another have: never two at once."""

import gc
import threading
import weakref

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")

import numbanet.torch as tcnn  # noqa: E402
from numbanet.torch.host_memory import LARGEST, MOST_PIECES, SMALLEST, HostMemory  # noqa: E402

ENCODING = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 15}
NETWORK = {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 1}


def test_a_piece_is_lent_again_when_no_tensor_has_it():
    memory = HostMemory()
    first = memory.empty(SMALLEST // 16, 16)
    address = first.data_ptr()
    assert (first.shape, first.dtype) == ((SMALLEST // 16, 16), torch.float32)
    assert first.is_contiguous()
    assert address % 64 == 0
    second = memory.empty(SMALLEST)
    assert second.data_ptr() != address
    del first
    third = memory.empty(SMALLEST - SMALLEST % 3)
    assert third.data_ptr() != second.data_ptr()
    del second, third
    assert memory.empty(SMALLEST).data_ptr() == address


@pytest.mark.parametrize(
    "kept", [torch.detach, torch.Tensor.numpy, lambda tensor: tensor[5:], torch.Tensor.storage,
             lambda tensor: memoryview(tensor.numpy()), torch.nn.Parameter],
    ids=["detached", "array", "view", "storage", "buffer", "parameter"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_whatever_reads_the_memory_keeps_it(kept):
    memory = HostMemory()
    tensor = memory.empty(SMALLEST)
    address, held = tensor.data_ptr(), kept(tensor)
    del tensor
    assert memory.empty(SMALLEST).data_ptr() != address
    del held
    addresses = {each.data_ptr() for each in [memory.empty(SMALLEST) for _ in range(2)]}
    assert address in addresses


def test_few_pieces_are_kept_and_none_of_another_size():
    memory = HostMemory()
    tensors = [memory.empty(SMALLEST + k) for k in range(3 * MOST_PIECES)]
    assert len({tensor.data_ptr() for tensor in tensors}) == len(tensors)
    assert len(memory._pieces) == MOST_PIECES
    tensors.clear()
    assert memory.empty(4 * SMALLEST).numel() == 4 * SMALLEST
    for n in (0, SMALLEST - 1):
        before = list(memory._pieces)
        assert memory.empty(n).numel() == n
        assert list(memory._pieces) == before
    assert LARGEST > SMALLEST


def test_threads_get_memory_of_their_own():
    memory, wrong = HostMemory(), []

    def fill(number):
        for _ in range(50):
            tensor = memory.empty(SMALLEST).fill_(number)
            wrong.extend([number] * int((tensor != number).any()))

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_gradients_that_a_program_holds_stay_as_they_are():
    module = tcnn.NetworkWithInputEncoding(2, 3, ENCODING, NETWORK, device="cpu")
    x = torch.rand(2048, 2, generator=torch.Generator().manual_seed(0))
    held, copies = [], []
    for k in range(3):
        y = module(x)
        (gradient,) = torch.autograd.grad((y * (k + 1)).sum(), module.params, retain_graph=True)
        (again,) = torch.autograd.grad((y * (k + 1)).sum(), module.params)
        assert torch.equal(gradient, again)
        held += [gradient, again]
        copies += [gradient.clone(), again.clone()]
    assert all(map(torch.equal, held, copies))
    assert len({gradient.data_ptr() for gradient in held}) == len(held)


@pytest.mark.parametrize("grow", [
    lambda tensor: tensor.resize_(2 * SMALLEST),
    lambda tensor: tensor.untyped_storage().resize_(8 * SMALLEST),
])  # fmt: skip
def test_it_cannot_grow_and_says_so(grow):
    memory = HostMemory()
    tensor = memory.empty(SMALLEST).fill_(7)
    with pytest.raises(RuntimeError, match="storage that is not resizable"):
        grow(tensor[:])
    assert (tensor == 7).all()
    grow(tensor.clone())
    address = tensor.data_ptr()
    assert tensor.resize_(5).shape == (5,)
    assert memory.empty(SMALLEST).data_ptr() != address


def test_it_ends_with_its_owner():
    memory = HostMemory()
    tensor = memory.empty(SMALLEST)
    piece = weakref.ref(memory._pieces[0][0])
    del memory, tensor
    gc.collect()
    assert piece() is None
