import platform
import subprocess
import sys

import pytest

from bdloss.memory import keep_freed_memory

# Page faults of a buffer of 50 MB that is made and freed again and again.
FAULTS = """
import resource
from bdloss.memory import keep_freed_memory

def count():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        b"x" * 50_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = count()
keep_freed_memory()
count()
print(before, count())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_freed_memory_is_kept():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert after < before / 10


@pytest.mark.parametrize("name", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch, name):
    monkeypatch.setattr(sys, "platform", name)
    assert not keep_freed_memory()
