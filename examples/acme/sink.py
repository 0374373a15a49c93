"""A real SMTP server that keeps what it gets: `python -m examples.acme.sink PORT DATABASE_URL`."""

import asyncio
import sys

import asyncpg
from aiosmtpd.smtp import SMTP


class Sink:
    def __init__(self, pool):
        self.pool = pool

    async def handle_DATA(self, server, session, envelope):  # noqa: N802  # aiosmtpd's name
        content = envelope.content.decode(errors="replace")
        for recipient in envelope.rcpt_tos:
            await self.pool.execute("INSERT INTO mail (recipient, content) VALUES ($1, $2)", recipient, content)
        return "250 kept"


async def main(port, database_url):
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=2)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Sink(pool), hostname="acme.example"), "127.0.0.1", int(port))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
