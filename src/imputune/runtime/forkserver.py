"""Imported first by the process that workers are forked from: it ends when its command ends, however that ends.

It would otherwise first import all modules of the workers, which takes seconds.
"""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1

if sys.argv[:1] == ["-c"]:  # as multiprocessing starts it
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
