"""Where training runs: on the CPU, or on a CUDA GPU with the imputer's passes captured as graphs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from imputune.errors import UserError
from imputune.settings.names import DeviceName


def choose_device(name: DeviceName) -> torch.device:
    """Return the device that `device` in params.yaml means: `auto` is the GPU where there is one, else the CPU.

    Raises UserError when CUDA is asked for and PyTorch finds no GPU.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise UserError(
            "params.yaml has device: cuda, but PyTorch finds no GPU here: set device to auto or cpu, "
            "or install a CUDA build of PyTorch and the GPU's driver"
        )
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def graphed(module: nn.Module, samples: tuple[torch.Tensor, ...]) -> Callable[..., Any]:
    """Return `module` as a function whose forward and backward passes are each replayed as one CUDA graph.

    CUDA only: a replay costs one launch where the passes cost one per operation. The module and `samples`, its
    arguments by shape, must be on the GPU; the passes must do the same on every call, waiting for no number from the
    GPU and copying none to it. Arguments of other shapes, such as an epoch's last batch, run as they are.

    What a replay returns lies in the graph's own memory, and the next call overwrites it: clone what must outlive a
    step. So do the gradients of the weights, which autograd sets as `.grad` where there is none: clear them with
    `zero_grad(set_to_none=True)`, or the next replay would overwrite the sum it is added to. A `.grad` that stands
    already, as those of `FlatWeights`, is added to where it is, and may be set to 0 in place. Weights change in place
    alone: the graph reads them where they were when it was captured, so `FlatWeights` comes first.

    Source: torch.cuda.make_graphed_callables, which replaces the module's `forward` by the replay.
    """
    as_it_is = module.forward
    replay = torch.cuda.make_graphed_callables(module, samples)

    def run(*tensors: torch.Tensor) -> Any:
        return (replay if tensors[0].shape == samples[0].shape else as_it_is)(*tensors)

    return run
