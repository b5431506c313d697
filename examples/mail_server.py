#!/usr/bin/python3
"""A mail server to try things with: takes every mail into a maildir, and can be as difficult as real ones.

    examples/mail_server.py --maildir /tmp/mail --port 2525

Prints one line, `listening on 127.0.0.1:PORT`, then one line for each thing it does. It ends with the
process that started it. Needs Debian's python3-aiosmtpd.
"""
import argparse
import asyncio
import mailbox
import os
import signal

from aiosmtpd.smtp import SMTP


class Difficult:
    """aiosmtpd calls handle_RCPT for each recipient and handle_DATA for each mail."""

    def __init__(self, maildir, greylist, tarpit, tarpit_seconds):
        self.maildir = mailbox.Maildir(maildir, create=True)
        self.refusals = {address: 2 for address in greylist}
        self.tarpit = set(tarpit)
        self.tarpit_seconds = tarpit_seconds

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.refusals.get(address, 0) > 0:
            self.refusals[address] -= 1
            say("refused", address)
            return "451 4.7.1 Greylisted: try again later"
        if address in self.tarpit:
            self.tarpit.remove(address)
            say("holding", address)
            try:
                await asyncio.sleep(self.tarpit_seconds)
            except asyncio.CancelledError:
                say("hung-up", address)
                raise
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.maildir.add(envelope.content)  # written, synced, then renamed into its place
        for address in envelope.rcpt_tos:
            say("delivered", address)
        return "250 OK: it is in the mailbox"


def say(*words):
    print(*words, flush=True)


async def serve(options):
    parent = os.getppid()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    handler = Difficult(options.maildir, options.greylist, options.tarpit, options.tarpit_seconds)
    server = await loop.create_server(lambda: SMTP(handler, hostname="localhost", loop=loop),
                                      "127.0.0.1", options.port)
    say(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}")
    while not stop.is_set() and os.getppid() == parent:
        try:
            await asyncio.wait_for(stop.wait(), 0.5)
        except asyncio.TimeoutError:
            pass
    server.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maildir", required=True, help="made if it is not there")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--greylist", metavar="ADDRESS", action="append", default=[],
                        help="answer 451 to the first two mails for it; may be repeated")
    parser.add_argument("--tarpit", metavar="ADDRESS", action="append", default=[],
                        help="let the first mail for it wait; may be repeated")
    parser.add_argument("--tarpit-seconds", type=float, default=45, help="how long (%(default)s)")
    asyncio.run(serve(parser.parse_args()))


main()
