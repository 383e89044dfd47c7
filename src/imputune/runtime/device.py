"""The device on which PyTorch computes: the CPU, or a CUDA GPU with the imputer's passes captured as graphs."""

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from imputune.errors import UserError
from imputune.settings.names import DeviceName


def choose_device(name: DeviceName) -> torch.device:
    """Return the device that `device` in params.yaml means; `auto` is the GPU if there is one, else the CPU.

    Raises UserError when `device` is cuda and PyTorch finds no GPU.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise UserError(
            "params.yaml has device: cuda, but PyTorch finds no GPU here: set device to auto or cpu, "
            "or install a CUDA build of PyTorch and the GPU's driver"
        )
    if not has_gpu or name == "cpu":
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = False  # cuDNN would round the inputs of LSTM and GRU heads to 10 bits
    return torch.device("cuda")


def graphed(module: nn.Module, samples: tuple[torch.Tensor, ...]) -> Callable[..., Any]:
    """Return `module` as a function whose forward and backward passes are each replayed as one CUDA graph.

    CUDA only: a replay needs one launch, the passes themselves one per operation. The module and `samples`, arguments
    of the usual shapes, must be on the GPU. The passes must do the same on every call; they may not wait for a number
    from the GPU or copy one to it. Arguments of other shapes, such as an epoch's last batch, run without the graph.

    A replay returns tensors in the graph's own memory, and the next call overwrites them: clone what must outlive a
    step. The same holds for gradients that autograd stores where `.grad` is None: clear them with
    `zero_grad(set_to_none=True)`, or the next replay would overwrite the sum it is added to. Where `.grad` is a tensor
    already, as with `FlatWeights`, the graph adds to it in place, and it may be set to 0 in place. Change weights only
    in place: the graph reads them from the memory in which it was captured, so create `FlatWeights` first.

    Source: torch.cuda.make_graphed_callables, which replaces the module's `forward` by the replay.
    """
    ungraphed = module.forward
    # Earlier graphs wait in reference cycles. The garbage collector must free them before a capture: destroying a graph
    # while another is captured breaks the capture.
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        replay = torch.cuda.make_graphed_callables(module, samples)
    finally:
        if was_enabled:
            gc.enable()

    def run(*tensors: torch.Tensor) -> Any:
        return (replay if tensors[0].shape == samples[0].shape else ungraphed)(*tensors)

    return run
