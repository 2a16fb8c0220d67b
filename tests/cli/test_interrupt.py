from __future__ import annotations

import os
import signal
import subprocess
import sys

_PROGRAM = "from haive.core.persistence.cli import main; main()"
_LINE = b'{"id": "a", "turns": [{"speaker": "user", "text": "hi"}]}\n'


def test_an_import_that_waits_for_input_can_be_interrupted():
    program = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "import", "-", "--dry-run", "--batch-size", "1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with program:
        assert program.stdin is not None
        program.stdin.write(_LINE * 10_000)  # more than the pipe holds: it reads
        program.stdin.flush()
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=20) == 130
        assert program.stderr is not None
        said = program.stderr.read()
    assert b"run the same command again" in said
    assert b"Traceback" not in said
    assert b"Fatal" not in said
