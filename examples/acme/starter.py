"""Starts the company's services, a process each: `python -m examples.acme.starter DATABASE_URL`.

What they all import takes a second to import, so this does it once and then forks. A line on standard input is one order:
`["start", NAME, PORT, {more of its environment}]` or `["stop", NAME]`; it is answered by a line when it is done. The services end
with standard input, and all of them end when one does that nobody has stopped.
"""

import json
import os
import signal
import sys

from examples.acme.services import serve

SIGNALS = {signal.SIGINT, signal.SIGTERM}
running = {}


def start(database_url, name, port, environment):
    pid = os.fork()
    if pid:
        running[name] = pid
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.update(environment)
    try:
        serve(name, port, database_url)
    finally:
        os._exit(1)  # whatever comes to its end here was not asked to


def stop(name):
    """At once: what a service keeps is in its database."""
    pid = running.pop(name)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def see_who_ended(*_):
    for name, pid in list(running.items()):
        if os.waitpid(pid, os.WNOHANG)[0]:
            del running[name]
            sys.exit(f"the company's {name} ended")


def main(database_url):
    signal.signal(signal.SIGCHLD, see_who_ended)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # whoever started this may wait for them
    try:
        for line in sys.stdin:
            order, name, *more = json.loads(line)
            if order == "start":
                start(database_url, name, *more)
            else:
                stop(name)
            print("done", flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for name in list(running):
            stop(name)


if __name__ == "__main__":
    main(sys.argv[1])
