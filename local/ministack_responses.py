"""Lets ministack send the head of a response together with its body.

Hypercorn writes one after the other. On a busy machine they arrive some milliseconds apart, and Terraform's AWS
provider was seen to close the connection in between and to send its request again: what had just been created "already
exists" then, and the apply fails.
"""

import h11
from hypercorn.events import RawData
from hypercorn.protocol.h11 import H11Protocol


async def send(protocol: H11Protocol, event) -> None:
    try:
        data = protocol.connection.send(event)
    except h11.LocalProtocolError:
        if protocol.connection.their_state != h11.ERROR:
            raise
        return
    if isinstance(event, h11.Response):
        protocol.head = data
        return
    head, protocol.head = protocol.head, b""
    if head or data:
        await protocol.send(RawData(data=head + data))


def extend() -> None:
    H11Protocol.head = b""
    H11Protocol._send_h11_event = send
