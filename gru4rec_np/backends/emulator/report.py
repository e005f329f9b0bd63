"""What the emulator finds out about a kernel: its faults, and what its memory traffic costs."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from gru4rec_np.files import KERNELS

HERE = str(KERNELS / "emulator")


class Fault(Exception):
    """A fault of a kernel.

    Attributes:
        kind: "race", "race between blocks", "out of bounds", "misaligned", "uninitialised",
            "const", "barrier", "warp", "deadlock", "order" or "stack overflow"; of a program also
            "wrong memory", "race with the host", "launch", "free" or "memory".
        lines: (file, line) of each access or barrier that causes it, the later access first.
    """

    def __init__(self, kind: str, message: str, lines: tuple[tuple[str, int], ...] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.lines = lines


REMEDIES = {
    "race": "Put __syncthreads() between the two, or __syncwarp() within a warp, or give each "
    "thread a place of its own.",
    "race between blocks": "No barrier orders blocks. Let one block write each place, or use "
    "atomics. Does the index depend on blockIdx?",
    "race with the host": "Call cudaDeviceSynchronize() after the launch.",
    "out of bounds": "Check the index against the length before the access.",
    "misaligned": "A vector type needs an address that is a multiple of its size.",
    "uninitialised": "Write a value there before the read: by a copy, cudaMemset or a kernel.",
    "barrier": "All threads of a block must reach the same __syncthreads(), none by a branch and "
    "none after a return of others.",
    "warp": "All threads that the mask names must reach the same call.",
    "deadlock": "All threads must reach the barriers that others wait at.",
    "order": "The result depends on which thread comes first. Let one thread write each place.",
    "stack overflow": "Use smaller local arrays, or shared or global memory.",
    "wrong memory": "Kernels use memory of cudaMalloc and cudaMallocManaged, host code all other. "
    "cudaMemcpy copies between them, in the direction of its kind.",
    "free": "Call cudaFree once, with the pointer that cudaMalloc returned.",
    "launch": "A block has 1 to 1024 threads, a grid at least one block. More than 48 KiB of "
    "dynamic shared memory needs cudaFuncSetAttribute.",
}


def fault_of(text: str, kernel: str, binary: Path) -> Fault:
    """The fault that the emulator reports as "kind|message", with its lines in the source."""
    kind, _, message = text.partition("|")
    lines = []

    def show(found: re.Match) -> str:
        if found[1]:
            frames = source_lines(binary, (found[1],))[0] or [("?", 0)]
        else:
            path, _, line = found[2].rpartition(":")
            frames = [(path, int(line))]
        frames = [(Path(path).name, line) for path, line in frames]
        lines.append(frames[0])
        inlined = "".join(f", called at {file}:{line}" for file, line in frames[1:])
        return f"{frames[0][0]}:{frames[0][1]}{inlined}"

    message = re.sub(r"<pc (\w+)>|<at ([^>]+)>", show, message)
    return Fault(kind, f"{kernel}: {kind}: {message}", tuple(lines))


@cache
def source_lines(binary: Path, addresses: tuple[str, ...]) -> list[list[tuple[str, int]]]:
    """Where instructions come from: for each address (path, line), then each caller that it was
    inlined into. Lines of the emulator's own header, whose functions are inlined, are left out.
    """
    command = ["addr2line", "-a", "-i", "-e", str(binary), *addresses]
    output = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    found: list[list[tuple[str, int]]] = []
    for text in output.splitlines():
        if text.startswith("0x"):
            found.append([])
            continue
        path, _, line = text.split(" (")[0].rpartition(":")
        if line.isdigit() and not path.startswith(HERE):
            found[-1].append((path, int(line)))
    return found


@dataclass
class Traffic:
    """Accesses of one sort.

    Attributes:
        requests: of warps: one for each time that any thread of a warp comes here.
        accesses: of threads.
        bytes: of all accesses.
        sectors: of 32 bytes, touched by the requests; of global memory.
        ideal: the fewest sectors that could hold the bytes of each request.
        conflicts: rounds of the memory banks beyond the fewest possible, of shared memory.
    """

    requests: int = 0
    accesses: int = 0
    bytes: int = 0
    sectors: int = 0
    ideal: int = 0
    conflicts: int = 0

    def add(self, other: Traffic) -> None:
        """Add the counts of another one."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


SORTS = ("loads", "stores", "atomics", "shared_loads", "shared_stores", "shared_atomics")


@dataclass
class Line:
    """The memory traffic of a line of the source, and how often blocks meet at its barriers."""

    text: str = ""
    loads: Traffic = field(default_factory=Traffic)
    stores: Traffic = field(default_factory=Traffic)
    atomics: Traffic = field(default_factory=Traffic)
    shared_loads: Traffic = field(default_factory=Traffic)
    shared_stores: Traffic = field(default_factory=Traffic)
    shared_atomics: Traffic = field(default_factory=Traffic)
    barriers: int = 0


@dataclass(frozen=True)
class Step:
    """What a warp did at once, or the meeting of a block's threads at a barrier.

    Attributes:
        block, warp: numbers; all warps of the block meet at a barrier.
        kind: "read", "write", "atomic" or "barrier".
        place: (file name, line).
        array: its name, and bytes: its size; is_shared: it is in shared memory.
        size: bytes of an access. offsets: thread of the warp -> place in the array, in bytes.
    """

    block: int
    warp: int
    kind: str
    place: tuple[str, int]
    array: str = ""
    bytes: int = 0
    is_shared: bool = False
    size: int = 0
    offsets: dict[int, int] = field(default_factory=dict)


@dataclass
class Report:
    """The traffic of a launch, by line of the source. `print` shows a table.

    Attributes:
        lines: by (file name, line number).
        sources: text of the files, by name.
        threads: of a block.
        steps: the first 4,096 steps, block after block. Between two barriers the warps take turns.
    """

    kernel: str
    lines: dict[tuple[str, int], Line] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict, repr=False)
    threads: int = 0
    steps: list[Step] = field(default_factory=list, repr=False)

    def line(self, path: str, number: int) -> Line:
        """The entry of a line, added if it is new."""
        name = Path(path).name
        if name not in self.sources:
            there = Path(path).is_file()
            self.sources[name] = Path(path).read_text(encoding="utf-8") if there else ""
        text = self.sources[name].splitlines()[number - 1 : number]
        return self.lines.setdefault((name, number), Line("".join(text).strip()))

    def total(self, sort: str) -> Traffic:
        """All lines' traffic of one sort, such as "loads" or "shared_stores"."""
        total = Traffic()
        for line in self.lines.values():
            total.add(getattr(line, sort))
        return total

    @property
    def bytes_read(self) -> int:
        return self.total("loads").bytes + self.total("atomics").bytes

    @property
    def bytes_written(self) -> int:
        return self.total("stores").bytes + self.total("atomics").bytes

    @property
    def barriers(self) -> int:
        return sum(line.barriers for line in self.lines.values())

    def __str__(self) -> str:
        rows: list[tuple[str | int, ...]] = [
            ("line", "memory", "requests", "sectors", "ideal", "conflicts", "")
        ]
        for (file, number), line in sorted(self.lines.items()):
            where, text = f"{file}:{number}", line.text
            for sort in SORTS:
                t = getattr(line, sort)
                if not t.requests:
                    continue
                space = "shared" if sort.startswith("shared") else "global"
                what = f"{space} {sort.removeprefix('shared_')}"
                counts = (t.sectors, t.ideal, "") if space == "global" else ("", "", t.conflicts)
                rows.append((where, what, t.requests, *counts, text))
                where = text = ""
            if line.barriers:
                rows.append((where, "barrier", line.barriers, "", "", "", text))
        widths = [max(len(str(row[i])) for row in rows) for i in range(6)]
        lines = []
        for row in rows:
            cells = [f"{row[i]!s:<{widths[i]}}" for i in range(2)]
            cells += [f"{row[i]!s:>{widths[i]}}" for i in range(2, 6)]
            lines.append("  ".join([*cells, str(row[6])]).rstrip())
        loads, stores = self.total("loads"), self.total("stores")
        lines.append(
            f"{self.kernel}: reads {self.bytes_read:,} bytes in {loads.sectors:,} sectors (ideal "
            f"{loads.ideal:,}), writes {self.bytes_written:,} in {stores.sectors:,} (ideal "
            f"{stores.ideal:,}), {self.barriers:,} barriers"
        )
        return "\n".join(lines)
