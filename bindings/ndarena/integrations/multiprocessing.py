"""Arrays by reference through queues, pipes and pools of `multiprocessing`.

After `register`, which `ndarena.shared` calls, an array in a shared segment or a file arena
travels as a reference: the receiver gets an array over the same memory. All other arrays
are pickled by NumPy as before.
"""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

from ndarena._refs import send_array

__all__ = ["register", "unregister"]

# What NumPy itself is asked for; 5 would need buffers that a pipe cannot carry.
_PROTOCOL = 4


def _reduce(a: np.ndarray[Any, Any]) -> Any:
    return send_array(a) or a.__reduce_ex__(_PROTOCOL)


def register() -> None:
    """Let `multiprocessing` send arrays of shareable arenas by reference.

    Queues, pipes, `Pool`, `Manager` and `concurrent.futures.ProcessPoolExecutor` use it, in
    the process that calls this and in every process that it has sent an array to. Receivers
    need not call anything. Calling it again changes nothing.

    Notes
    -----
    By reference means shared: a sender that reuses the array changes what it has sent.

    `pickle.dumps` is not affected.

    Examples
    --------
    >>> import multiprocessing, ndarena
    >>> from ndarena.integrations.multiprocessing import register
    >>> register()
    >>> receiver, sender = multiprocessing.Pipe(duplex=False)
    >>> with ndarena.shared(capacity="1MiB") as arena:
    ...     a = arena.zeros(3)
    >>> sender.send(a)
    >>> b = receiver.recv()
    >>> a[0] = 1
    >>> b
    array([1., 0., 0.])
    """
    ForkingPickler.register(np.ndarray, _reduce)


def unregister() -> None:
    """Send all arrays as copies again.

    Examples
    --------
    >>> from ndarena.integrations.multiprocessing import unregister
    >>> unregister()
    """
    extra: dict[type, Any] = ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    extra.pop(np.ndarray, None)
