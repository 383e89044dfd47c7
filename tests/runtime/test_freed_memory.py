import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from imputune.runtime.freed_memory import keep_freed_memory

assert keep_freed_memory()
faults = []
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2**18) for _ in range(64)]
    del tensors
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(max(faults[5:]))
"""
PAGES = 64 * 2**20 // 4096  # of the tensors of a round


@pytest.mark.skipif(sys.platform != "linux", reason="measures glibc")
def test_freed_memory_serves_the_next_tensors():
    """A process that allocates and frees 64 MiB again and again asks the system for them in the first rounds alone."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < PAGES / 10
