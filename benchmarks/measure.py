"""Run a command and print its exit status, seconds and peak memory in KB: a script of its own, and a small one.

A process's peak counts the memory of the process that started it (Linux keeps it over exec), so nothing large may be
imported here.
"""

import resource
import subprocess
import sys
import time

if __name__ == "__main__":
    started = time.monotonic()
    status = subprocess.call(sys.argv[1:])
    seconds = time.monotonic() - started
    print(f"\n{status} {seconds} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
