"""The command line. Each subcommand lives in its own module and is imported only when it is asked for."""

import signal
import sys

# As a process of our own: until `main` can say it better, and after it, Ctrl-C ends us without a traceback.
OWN_PROCESS = sys.argv[0] == "-m" or sys.argv[0].endswith("laadplein")
if OWN_PROCESS and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
