"""`python -m tests.kill.process DATABASE STATE TOOL_URL [stop-in-window]`: a gateway told by lines what to do.

`call OPERATION ITEM` answers with what the caller is told. With `stop-in-window` the process stops itself (SIGSTOP) between the last
check and the first write of a call.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from interlock.policy.permit import Permit
from tests.kill.world import far, files
from tests.support.shop import counter


def stop_in_window():
    spend = Permit.spend

    def spend_and_stop(self, **more):
        spend(self, **more)
        os.kill(os.getpid(), signal.SIGSTOP)

    Permit.spend = spend_and_stop


async def main(database_url, state, url, mode=""):
    if mode:
        stop_in_window()
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with counter(database_url, Path(state), files=files(url)) as made:

        def tell(**what):
            sys.stdout.write(json.dumps(what) + "\n")
            sys.stdout.flush()

        async def call(operation, item):
            session = await made.session()
            answer = await far(made, session, operation, item)
            tell(code=getattr(answer, "code", ""), call_id=answer.call_id)

        tell(process_id=made.system.process_id)
        calls = []
        while line := await lines.readline():
            _, operation, item = line.decode().split()
            calls.append(asyncio.create_task(call(operation, item)))
        await asyncio.gather(*calls)


asyncio.run(main(*sys.argv[1:]))
