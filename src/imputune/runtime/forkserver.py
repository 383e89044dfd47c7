"""Imported first in the process that workers are forked from.

The system ends this process with its command, even after kill -9. It would otherwise first import all modules of the
workers, which takes seconds.
"""

import ctypes
import os
import signal

COMMAND = "IMPUTUNE_COMMAND"
"""The environment variable with the command's process id, for this process alone."""
PR_SET_PDEATHSIG = 1

if (command := os.environ.pop(COMMAND, None)) is not None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(command):  # it has ended already
        os._exit(1)
