"""RATE requests a second, each asking for the server's address anew, taking the first one it is told, and trying it once.

Where the machine has no time for so many, no more than half a second's are under way: a heap of them would be lost in here.
"""
import asyncio
import collections
import os
import signal
import socket
import sys
import time

LIMIT = 15
HOST, PORT, PATH = os.environ.get("HOST", "web"), int(os.environ.get("PORT", "80")), os.environ.get("PATH_ASKED", "/slow")
RATE = int(os.environ.get("RATE", "200"))
MOST = RATE // 2
REQUEST = f"GET {PATH} HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode()
seen = collections.Counter()
slowest = 0.0
refused = barred = 0.0  # since when the last requests were refused, or 0; how long they were in all


def count(answer):
    """An answer of 401 or 403 begins or goes on with a time of refusals, another one of the server's ends it."""
    global refused, barred
    head, _, body = answer.partition(b"\r\n\r\n")
    code, now = head.split(b" ")[1:2], time.monotonic()
    if code in ([b"401"], [b"403"]):
        refused = refused or now
    elif refused:
        barred, refused = barred + now - refused, 0.0
    if code == [b"200"]:
        seen[body.decode()] += 1
    else:
        seen["lost: " + repr(head[:40])] += 1


async def get(loop):
    global slowest
    begun = time.monotonic()
    try:
        async with asyncio.timeout(LIMIT):
            found = await loop.getaddrinfo(HOST, PORT, family=socket.AF_INET, type=socket.SOCK_STREAM)
            reader, writer = await asyncio.open_connection(*found[0][4])
            writer.write(REQUEST)
            answer = await reader.read()
            writer.close()
        count(answer)
    except Exception as error:
        seen["lost: " + repr(error)] += 1
    slowest = max(slowest, time.monotonic() - begun)


async def main():
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    tasks, next_at = set(), time.monotonic()
    while not over.is_set():
        task = asyncio.create_task(get(loop))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if len(tasks) >= MOST:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        next_at = max(next_at + 1 / RATE, time.monotonic())
        await asyncio.sleep(next_at - time.monotonic())
    await asyncio.gather(*tasks)
    lost = {why: n for why, n in seen.items() if why.startswith("lost")}
    out = barred + (time.monotonic() - refused if refused else 0)
    print(f"sent={sum(seen.values())} lost={sum(lost.values())} barred={out:.3f} slowest={slowest:.3f} {dict(seen)}")
    sys.stdout.flush()


asyncio.run(main())
