"""How the C library treats memory that a training step has freed."""

import ctypes

MIB = 2**20
SETTINGS = {-1: 128 * MIB, -3: 32 * MIB, -2: 16 * MIB}
"""glibc's M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_TOP_PAD (malloc.h), with what they are set to."""


def keep_freed_memory() -> bool:
    """Let this process keep up to 128 MiB of freed memory for its next tensors; say whether the C library does so.

    By default glibc hands freed memory back to the system and asks for it again in the next step, page by page. That
    takes a twentieth of the time of a training step of CSAI, and a seventh of that of imputing. Other C libraries go on
    as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # Windows, macOS, musl
        return False
    return all(mallopt(setting, number) for setting, number in SETTINGS.items())
