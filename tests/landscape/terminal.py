"""Runs a command in a terminal of its own, waits until it has drawn a word, presses Ctrl-C, and prints what it drew."""

import os
import pty
import select
import sys
import time

seconds, word, command = float(sys.argv[1]), sys.argv[2].encode(), sys.argv[3:]
child, terminal = pty.fork()
if child == 0:
    os.execvp(command[0], command)
drawn, end, pressed = b"", time.monotonic() + seconds, False
while time.monotonic() < end:
    if not select.select([terminal], [], [], 0.1)[0]:
        continue
    try:
        more = os.read(terminal, 65536)
    except OSError:
        more = b""
    if not more:
        break
    drawn += more
    if not pressed and word in drawn:
        pressed = True
        os.write(terminal, b"\x03")
_, status = os.waitpid(child, 0)
sys.stdout.buffer.write(drawn)
sys.exit(os.waitstatus_to_exitcode(status))
