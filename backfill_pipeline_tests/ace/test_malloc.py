"""The heap: what large answers took goes back to the system."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys, threading, psutil
from backfill_pipeline.ace.malloc import give_back_large_buffers
said = give_back_large_buffers()
grown = []
def work():
    for _ in range(4):
        body = bytearray()
        for _ in range(64):
            body += bytes(1 << 18)
        grown.append(bytes(2000))
        del body
before = psutil.Process().memory_info().rss
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
print(said, (psutil.Process().memory_info().rss - before) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems give large buffers back by themselves")
def test_large_buffers_of_many_threads_are_given_back():
    """Eight threads that took 16 MB four times each leave less than one such buffer behind."""
    told = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout.split()
    assert told[0] == "True"
    assert int(told[1]) < 16
