"""How many recommendations a second does the service give, and does it stay up?

    python benchmarks/service.py [--connections 1 8 32] [--seconds 20] [--backend numpy] [--write]
    python benchmarks/service.py --soak 10     minutes of clients of which half vanish

Serves a model of random weights, 37,483 items (as RSC15) and 100 units, in a process of its own.
wrk posts sessions of 1 to 5 random items to /recommend. It runs on the same machine, so the two
share the cores. --write puts the table into docs/http.md. Linux, with wrk installed.
"""

import argparse
import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import machine, put, random_model, table

ITEMS = 37_483
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "http.md"
SCRIPT = """
local n, i = 0, 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
function setup(thread) thread:set("n", n) n = n + 1 end
function init(args) math.randomseed(n) end
function request()
  local items = {}
  for j = 1, math.random(5) do items[j] = math.random(ITEMS) - 1 end
  return wrk.format(nil, nil, nil, '{"session":[' .. table.concat(items, ",") .. ']}')
end
function done(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  print("FOUND", summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, failed)
end
""".replace("ITEMS", str(ITEMS))


@contextlib.contextmanager
def serving(folder: Path, backend: str) -> Iterator[tuple[int, int]]:
    """A server of the model: its port and process id."""
    random_model(np.arange(ITEMS), "numpy").save(folder / "model.npz")
    with subprocess.Popen(
        [sys.executable, "-m", "gru4rec_np.serve", folder, "--port", "0", "--backend", backend,
         "--live-sessions", "1000"],
        stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            line = server.stdout.readline()
            yield int(re.search(r":(\d+) \(", line)[1]), server.pid
        finally:
            server.terminate()


def load(port: int, connections: int, seconds: int, script: Path) -> tuple[float, ...]:
    """Run wrk: requests a second, the median and the 99th percentile in ms, requests failed."""
    done = subprocess.run(
        ["wrk", f"-t{min(2, connections)}", f"-c{connections}", f"-d{seconds}s", "-s", script,
         f"http://127.0.0.1:{port}/recommend"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return tuple(map(float, re.search(r"FOUND\s+(.*)", done.stdout)[1].split()))


def measure(port: int, connections: list[int], seconds: int, folder: Path) -> str:
    """A table with a row for each number of connections."""
    script = folder / "post.lua"
    script.write_text(SCRIPT)
    load(port, 2, 3, script)  # warms up
    rows = []
    for n in connections:
        rate, median, p99, failed = load(port, n, seconds, script)
        rows.append([n, f"{rate:,.0f}", f"{median:.1f}", f"{p99:.1f}", f"{failed:.0f}"])
        print(*rows[-1], flush=True)
    return table(["connections", "requests/s", "p50, ms", "p99, ms", "failed"], rows)


def resident(pid: int) -> float:
    """Memory that a process holds, MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def client(port: int, until: float, found: Counter, seed: int) -> None:
    """Ask again and again: stateless, by session, hostile. Half of the times, leave too early."""
    rng = random.Random(seed)

    def body() -> tuple[str, bytes]:
        kind = rng.randrange(4)
        if kind == 0:
            return f"/sessions/s{rng.randrange(10**6)}/clicks", b'{"item": %d}' % rng.randrange(50)
        if kind == 1:
            return "/recommend", rng.choice(
                [b"{", b"\xff", b'{"session": []}', b'{"session": [1], "k": 1000000000}']
            )
        items = [rng.randrange(ITEMS) for _ in range(rng.randrange(1, 30))]
        return "/recommend", json.dumps({"session": items}).encode()

    while time.monotonic() < until:
        path, content = body()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        ).encode()
        leaves = rng.random() < 0.5
        sent = (head + content)[: rng.randrange(len(head + content)) + 1 if leaves else None]
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(sent)
                if leaves:
                    found["vanished"] += 1
                    continue
                answer = b""
                while part := connection.recv(2**16):
                    answer += part
                found[answer[9:12].decode()] += 1
        except OSError as error:
            found[type(error).__name__] += 1


def soak(port: int, pid: int, minutes: float) -> None:
    """Print the statuses seen and the server's memory, now and then."""
    found: Counter = Counter()
    began = time.monotonic()
    until = began + 60 * minutes
    clients = [threading.Thread(target=client, args=(port, until, found, i)) for i in range(8)]
    for thread in clients:
        thread.start()
    while alive := [thread for thread in clients if thread.is_alive()]:
        alive[0].join(30)
        files = len(os.listdir(f"/proc/{pid}/fd"))
        passed = time.monotonic() - began
        print(
            f"{passed:4.0f} s  {resident(pid):6.1f} MiB  {files} files  {dict(found)}", flush=True
        )


def main() -> None:
    """Measure, or soak."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    p.add_argument("--seconds", type=int, default=20)
    p.add_argument("--backend", default="numpy")
    p.add_argument("--soak", type=float, metavar="MINUTES")
    p.add_argument("--write", action="store_true", help="put the table into docs/http.md")
    args = p.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        with serving(Path(folder), args.backend) as (port, pid):
            if args.soak:
                return soak(port, pid, args.soak)
            found = measure(port, args.connections, args.seconds, Path(folder))
    print(found)
    if args.write:
        text = put(DOCUMENT.read_text(), "http", f"{machine()}.\n\n{found}")
        DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
