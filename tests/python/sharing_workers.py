"""What the worker processes of test_sharing.py run; importable by spawned ones."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time

import numpy as np

import ndarena


def address(a: np.ndarray) -> int:
    return a.__array_interface__["data"][0]


def describe(a: np.ndarray) -> tuple[bool, float]:
    """Whether it came by reference, and its sum."""
    return ndarena.arena_of(a) is not None, float(a.sum())


def double(a: np.ndarray) -> np.ndarray:
    """A result in the same arena as the argument."""
    with ndarena.arena_of(a).handler():
        return a * 2


def double_named(name: str, number: int) -> np.ndarray:
    """A result in the arena of that name, from nothing."""
    with ndarena.shared(name, "r+") as arena, arena.handler():
        return np.full(100_000, 2.0 * number)


def double_and_pid(a: np.ndarray) -> tuple[int, np.ndarray]:
    return os.getpid(), double(a)


def add_one(a: np.ndarray) -> None:
    a += 1


def answer(inbox, outbox) -> None:
    """Send back what comes, doubled, until None comes."""
    while (a := inbox.get()) is not None:
        outbox.put(double(a))


def answer_pipe(connection) -> None:
    while (a := connection.recv()) is not None:
        connection.send(double(a))


def put_and_vanish(queue, name: str) -> None:
    """End without any cleaning up, right after the message has been written."""
    with ndarena.shared(name, "r+") as arena:
        queue.put(arena.full(100_000, 5.0))
        os._exit(0)


def terminate_a_pool(arrays) -> None:
    """Leave a pool while most of its tasks have not been looked at."""
    with multiprocessing.Pool(2) as pool:
        pending = pool.imap_unordered(double, arrays)
        next(pending)


def hold_and_wait(connection, a: np.ndarray) -> None:
    """Allocate, send, and wait to be killed."""
    arena = ndarena.arena_of(a)
    mine = [arena.full(10_000, n) for n in range(10)]
    connection.send(mine[3])
    connection.send("ready")
    time.sleep(600)


def kill_itself(a: np.ndarray) -> None:
    keep = double(a)
    os.kill(os.getpid(), signal.SIGKILL)
    del keep


def sum_shared(shared_list) -> list[float]:
    return [float(a.sum()) for a in shared_list]


def main() -> None:
    """After exec: take a message from standard input, answer on standard output."""
    import pickle

    a = pickle.load(sys.stdin.buffer).get()
    result = double(a)
    a[:] = -1
    sys.stdout.buffer.write(pickle.dumps(ndarena.ref(result)))


if __name__ == "__main__":
    main()


def offer_messages(connection, segments: int, copies: int) -> None:
    """Send messages from segments of its own, and keep these until the answer."""
    arenas = [ndarena.shared(capacity="1MiB") for _ in range(segments)]
    arrays = [arena.full(1000, number) for number, arena in enumerate(arenas)]
    connection.send([[pickle.dumps(ndarena.ref(a)) for _ in range(copies)] for a in arrays])
    connection.recv()
    for arena in arenas:
        arena.close()
