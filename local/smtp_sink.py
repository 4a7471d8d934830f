"""A mail server that delivers nothing: each message it accepts becomes one .eml file, whole and unchanged.

Speaks as much SMTP as Python's smtplib and ministack's relay use; listens on loopback only.
"""

import argparse
import asyncio
import itertools
import os
import signal
import time
from pathlib import Path

# SES itself stops at 40 MB; a larger message is refused, so that the folder stays bounded by what was really sent.
MAX_MESSAGE_BYTES = 40 * 1024 * 1024
LINE_LIMIT = 64 * 1024
IDLE_SECONDS = 60


class Mailbox:
    """The folder of the kept messages. A file appears under its name only when it is complete."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._counter = itertools.count(1)
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, message: bytes) -> Path:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        path = self._folder / f"{stamp}-{next(self._counter):04d}.eml"
        draft = path.with_suffix(".part")
        draft.write_bytes(message)
        os.replace(draft, path)
        return path


class Session:
    """One client's conversation."""

    def __init__(self, mailbox: Mailbox, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._mailbox = mailbox
        self._reader = reader
        self._writer = writer
        self._sender: str | None = None
        self._recipients: list[str] = []

    async def converse(self) -> None:
        await self._say("220 alert-archive mail sink")
        while line := await self._line():
            verb, _, argument = line.decode("latin-1").strip().partition(" ")
            match verb.upper():
                case "EHLO":
                    await self._say(f"250-localhost\r\n250-8BITMIME\r\n250 SIZE {MAX_MESSAGE_BYTES}")
                case "HELO" | "NOOP":
                    await self._say("250 OK")
                case "MAIL":
                    self._sender, self._recipients = argument, []
                    await self._say("250 OK")
                case "RCPT":
                    self._recipients.append(argument)
                    await self._say("250 OK")
                case "DATA":
                    await self._receive()
                case "RSET":
                    self._sender, self._recipients = None, []
                    await self._say("250 OK")
                case "QUIT":
                    await self._say("221 Bye")
                    return
                case _:
                    await self._say("502 Command not implemented")

    async def _receive(self) -> None:
        if self._sender is None or not self._recipients:
            await self._say("503 MAIL and RCPT come first")
            return
        await self._say("354 End with a line that holds one dot")
        lines: list[bytes] = []
        size = 0
        while (line := await self._line()) not in (b".\r\n", b".\n"):
            if not line:
                return  # the client went away in the middle: there is no message to keep
            size += len(line)
            if size <= MAX_MESSAGE_BYTES:
                # A leading dot is doubled on the wire.
                lines.append(line[1:] if line.startswith(b"..") else line)
        if size > MAX_MESSAGE_BYTES:
            await self._say("552 Message is too large")
        else:
            path = self._mailbox.keep(b"".join(lines))
            print(f"{path.name} {size} bytes {self._sender} {' '.join(self._recipients)}", flush=True)
            await self._say("250 Kept")
        self._sender, self._recipients = None, []

    async def _line(self) -> bytes:
        return await asyncio.wait_for(self._reader.readline(), IDLE_SECONDS)

    async def _say(self, text: str) -> None:
        self._writer.write(text.encode() + b"\r\n")
        await self._writer.drain()


async def listen(folder: Path, port: int) -> asyncio.Server:
    mailbox = Mailbox(folder)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await Session(mailbox, reader, writer).converse()
        except (ConnectionError, TimeoutError, ValueError):
            pass  # a client that hung up, fell silent or sent an endless line costs only its own connection
        finally:
            writer.close()

    return await asyncio.start_server(accept, "127.0.0.1", port, limit=LINE_LIMIT)


async def serve(folder: Path, port: int) -> None:
    server = await listen(folder, port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with server:
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.folder, arguments.port))
