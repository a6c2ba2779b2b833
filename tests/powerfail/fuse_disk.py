"""A disk in a file that keeps a record of every write and flush: a FUSE server in its process.

    python tests/powerfail/fuse_disk.py MOUNT_POINT IMAGE LOG

MOUNT_POINT/disk is the image, for a loop device. Each write to it and each flush of it is put down
in the log, in the order in which they came; flush means that all before it is safe. What is written
to MOUNT_POINT/marks goes to the same log, so a process can say between its writes what it does.
The kernel's protocol is spoken directly, there are only two files. Root. Ends when unmounted.

The log: records of kind (W, F, M), offset, length, then the data.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterator
from typing import BinaryIO

RECORD = struct.Struct("<cQQ")
HEAD = struct.Struct("<IIQQIIII")  # request: length, opcode, unique, node, uid, gid, pid, padding
REPLY = struct.Struct("<IiQ")  # length, -errno, unique
ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
LARGEST_WRITE = 128 * 1024
ROOT, DISK, MARKS = 1, 2, 3
NAMES = {b"disk": DISK, b"marks": MARKS}
DIRECT_IO = 1  # of an open file: no page cache above us

(LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT) = (
    *(1, 2, 3, 4, 14, 15, 16, 17, 18, 20, 25, 26),
)
OPENDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 27, 29, 36, 38, 42
WITHOUT_REPLY = {FORGET, INTERRUPT, BATCH_FORGET}


class Server:
    """Answers the kernel until the file system is unmounted."""

    def __init__(self, device: int, image: str, log: BinaryIO) -> None:
        self.device = device
        self.image = os.open(image, os.O_RDWR)
        self.size = os.fstat(self.image).st_size
        self.log = log

    def note(self, kind: bytes, offset: int, data: bytes) -> None:
        self.log.write(RECORD.pack(kind, offset, len(data)) + data)

    def attributes(self, node: int) -> bytes:
        size = self.size if node == DISK else 0
        mode, links = (0o40700, 2) if node == ROOT else (0o100600, 1)
        return ATTRIBUTES.pack(
            *(node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)
        )

    def answer(self, opcode: int, node: int, body: bytes) -> bytes | int:
        """Return what the kernel gets: bytes, or an errno."""
        if opcode == INIT:
            _, minor, readahead, _ = struct.unpack_from("<IIII", body)
            sizes = (16, 12, LARGEST_WRITE, 1, 0, 0)
            flags = 1 << 5  # FUSE_BIG_WRITES
            head = struct.pack("<IIIIHHIIHH", 7, min(minor, 31), readahead, flags, *sizes)
            return head + bytes(32)
        if opcode == LOOKUP:
            found = NAMES.get(body.rstrip(b"\0"))
            if found is None:
                return errno.ENOENT
            return struct.pack("<QQQQII", found, 0, 3600, 3600, 0, 0) + self.attributes(found)
        if opcode in (GETATTR, SETATTR):
            return struct.pack("<QII", 3600, 0, 0) + self.attributes(node)
        if opcode in (OPEN, OPENDIR):
            return struct.pack("<QII", 0, DIRECT_IO if opcode == OPEN else 0, 0)
        if opcode == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return os.pread(self.image, size, offset) if node == DISK else b""
        if opcode == WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            data = body[40 : 40 + size]
            if node == DISK:
                os.pwrite(self.image, data, offset)
            self.note(b"W" if node == DISK else b"M", offset, data)
            return struct.pack("<II", size, 0)
        if opcode == FSYNC:
            if node == DISK:
                self.note(b"F", 0, b"")
            return b""
        if opcode == STATFS:
            return struct.pack("<QQQQQIIII", 0, 0, 0, 0, 0, 4096, 255, 4096, 0) + bytes(24)
        if opcode in (RELEASE, RELEASEDIR, FLUSH, DESTROY):
            return b""
        return errno.ENOSYS

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self.device, LARGEST_WRITE + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                if error.errno == errno.ENODEV:
                    break  # unmounted
                raise
            _, opcode, unique, node, *_ = HEAD.unpack_from(request)
            if opcode in WITHOUT_REPLY:
                continue
            reply = self.answer(opcode, node, request[HEAD.size :])
            number, text = (reply, b"") if isinstance(reply, int) else (0, reply)
            os.write(self.device, REPLY.pack(REPLY.size + len(text), -number, unique) + text)


def read_log(file: BinaryIO) -> Iterator[tuple[bytes, int, bytes]]:
    """The records: kind, offset, data."""
    while head := file.read(RECORD.size):
        kind, offset, length = RECORD.unpack(head)
        yield kind, offset, file.read(length)


def mount(point: str) -> int:
    """Mount, and return the descriptor to serve."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    flags = 2 | 4  # MS_NOSUID | MS_NODEV
    if libc.mount(b"powerfail", point.encode(), b"fuse", flags, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount: {os.strerror(number)}", point)
    return device


def main() -> None:
    point, image, log = sys.argv[1:]
    with open(log, "wb", buffering=2**20) as file:
        server = Server(mount(point), image, file)
        print("mounted", flush=True)
        server.serve()


if __name__ == "__main__":
    main()
