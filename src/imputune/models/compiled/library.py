"""Finds and calls the compiled library. PyTorch is loaded where it is used: `imputune --version` does without it."""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from imputune.errors import UserError

if TYPE_CHECKING:
    import torch

SWITCH = "IMPUTUNE_COMPILED"
SETS = ("any processor", "AVX2", "AVX-512")
"""Instruction sets, by their number in kernels.cpp."""
INTERFACE = 2  # of the functions in kernels.cpp: their arguments
LONGEST_VECTOR = 16  # numbers
Argument: TypeAlias = "int | torch.Tensor | Sequence[torch.Tensor | None] | None"


class Library:
    """The compiled functions, each for every instruction set.

    instruction_set: the number of the one in use, at first the best that this processor has.
    """

    def __init__(self, file: Path) -> None:
        """Load the file; raises OSError or AttributeError if it is of another system or of another version's source."""
        self._functions = ctypes.CDLL(str(file))
        if self._functions.imputune_interface() != INTERFACE:
            raise OSError(f"{file} was compiled from another version")
        self.best_set: int = self._functions.imputune_best_set()
        self.instruction_set = self.best_set

    def call(self, function: str, sizes: Sequence[int], *arguments: Argument) -> None:
        """Call a function of kernels.cpp with a structure of sizes and its other arguments.

        A tensor is passed as its address, None as a null pointer, a sequence as a structure of such pointers. Tensors
        are float32, on the processor and contiguous. Raises MemoryError if memory is short.
        """
        structure = (ctypes.c_long * len(sizes))(*sizes)
        if self._functions[function](self.instruction_set, structure, *map(_argument, arguments)):
            raise MemoryError(f"{function}: too little memory")


def library_for(*tensors: "torch.Tensor") -> Library | None:
    """Return the library if it can compute with these tensors: of single precision, on the processor."""
    import torch

    if all(each.dtype == torch.float32 and each.device.type == "cpu" for each in tensors):
        return find_library()
    return None


@cache
def find_library() -> Library | None:
    """Return the library; None if it was not compiled, is of another system or version, or is switched off.

    Raises UserError if the switch is neither 0 nor 1.
    """
    switch = os.environ.get(SWITCH, "1")
    if switch not in ("0", "1"):
        raise UserError(f"{SWITCH} must be 0 or 1, got {switch!r}")
    file = library_file()
    if file is None or switch == "0":
        return None
    try:
        return Library(file)
    except (OSError, AttributeError):
        return None


def library_file() -> Path | None:
    """Return the file that installing compiled, None without one."""
    files = (Path(__file__).with_name("_kernels" + suffix) for suffix in EXTENSION_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def name_of_code() -> str:
    """Return the compiled code's instruction set; `none` if there is none, with the reason if it cannot be loaded."""
    library = find_library()
    if library:
        return SETS[library.instruction_set]
    if library_file() is None or os.environ.get(SWITCH) == "0":
        return "none"
    return "none, because it is of another version or system: install imputune again"


def filled(numbers: int) -> int:
    """Return the length of a row that is filled up to whole vectors."""
    return -(-numbers // LONGEST_VECTOR) * LONGEST_VECTOR


def _argument(given: Argument) -> object:
    if given is None:
        return ctypes.c_void_p(None)
    if isinstance(given, int):
        return ctypes.c_long(given)
    if isinstance(given, Sequence):
        return (ctypes.c_void_p * len(given))(*(None if each is None else each.data_ptr() for each in given))
    return ctypes.c_void_p(given.data_ptr())
