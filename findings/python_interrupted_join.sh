#!/usr/bin/env bash
# CPython 3.11.7: if a signal's handler raises while `Thread.join(timeout)` waits, as Ctrl-C does, the thread is
# taken for ended: `is_alive()` says False, and a second `join()` returns at once, while the thread still runs.
# (`_wait_for_tstate_lock` releases a lock that it finds locked, which is the running thread's own.)
#
# It matters where a program decides by `is_alive()` whether it may end by `sys.exit`: a daemon thread inside of
# torch is then ended in C++ code, which aborts the process (SIGABRT, exit code 134) in place of 130.
# Wait for a `threading.Event` that the thread sets at its end.
#
# Seen: 3.11.7 is_alive False, the thread has a frame.
set -euo pipefail
python3 - <<'PYTHON'
import os
import signal
import sys
import threading
import time

thread = threading.Thread(target=time.sleep, args=(5,), daemon=True)
thread.start()
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    thread.join(3)
except KeyboardInterrupt:
    says, is_running = thread.is_alive(), thread.ident in sys._current_frames()
print(sys.version.split()[0], "is_alive:", says, "has a frame:", is_running)
sys.exit((says, is_running) != (False, True))
PYTHON
