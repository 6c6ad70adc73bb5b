"""200 requests a second, each asking for the server's address anew, taking the first one it is told, and trying it once."""
import asyncio
import collections
import signal
import socket
import sys
import time

RATE, LIMIT = 200, 15
seen = collections.Counter()
slowest = 0.0


async def get(loop):
    global slowest
    begun = time.monotonic()
    try:
        async with asyncio.timeout(LIMIT):
            found = await loop.getaddrinfo("web", 80, family=socket.AF_INET, type=socket.SOCK_STREAM)
            reader, writer = await asyncio.open_connection(*found[0][4])
            writer.write(b"GET /slow HTTP/1.0\r\nHost: web\r\n\r\n")
            answer = await reader.read()
            writer.close()
        head, _, colour = answer.partition(b"\r\n\r\n")
        seen[colour.decode() if b" 200 " in head else "lost: " + repr(head[:40])] += 1
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
        next_at += 1 / RATE
        await asyncio.sleep(max(0, next_at - time.monotonic()))
    await asyncio.gather(*tasks)
    lost = {why: n for why, n in seen.items() if why.startswith("lost")}
    print(f"sent={sum(seen.values())} lost={sum(lost.values())} slowest={slowest:.3f} {dict(seen)}")
    sys.stdout.flush()


asyncio.run(main())
