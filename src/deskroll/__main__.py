"""The command `deskroll`, also as `python -m deskroll`."""

import io
import signal
import sys
import threading
from typing import NoReturn


def _interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """Send an interrupt once more, in a moment, that came where Python raises nothing: in a callback of an import."""
    if lost.exc_type is KeyboardInterrupt:
        threading.Timer(0.01, signal.raise_signal, [signal.SIGINT]).start()
    else:
        sys.__unraisablehook__(lost)


def main() -> NoReturn:
    """Run the command line and exit; an interrupt is one line on stderr wherever it comes, imports included."""
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()  # they may be closed
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names from all over the world, on a terminal of another age
            stream.reconfigure(errors="backslashreplace")
    sys.unraisablehook = _interrupt_again
    try:
        from deskroll import cli

        code = cli.main()
    except (KeyboardInterrupt, RuntimeError) as error:
        # Before Python 3.12 one that comes as a class is made, as imports do, is the cause of a RuntimeError.
        if KeyboardInterrupt not in (type(error), type(error.__cause__)):
            raise
        code = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is decided: the interpreter may end in peace
    sys.unraisablehook = sys.__unraisablehook__  # and can start no thread any more
    if code == 130:  # typer makes a quiet exit of most interrupts
        # When it came as the run was committed, nobody here can say.
        sys.stderr.write("error: Interrupted; nothing was published, unless `deskroll runs` says so.\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
