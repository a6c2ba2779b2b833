"""The exception classes, and the table by which the extension module raises them."""

from __future__ import annotations

import errno
import pickle

import pytest

import ndarena
from ndarena import errors

TREE = {
    "FormatError": ValueError,
    "CorruptionError": OSError,
    "StaleRefError": LookupError,
    "ClosedError": ValueError,
    "LockTimeoutError": TimeoutError,
    "ReadOnlyError": PermissionError,
    "CudaUnavailableError": RuntimeError,
}


@pytest.mark.parametrize(("name", "standard"), TREE.items())
def test_tree(name, standard):
    own = getattr(ndarena, name)
    assert own is getattr(errors, name)
    assert issubclass(own, ndarena.Error)
    assert issubclass(own, standard)
    assert own.__doc__


def test_base():
    assert issubclass(ndarena.Error, Exception)
    assert not issubclass(ndarena.Error, (OSError, ValueError))
    assert set(errors.__all__) == {"Error", *TREE}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("format", ndarena.FormatError),
        ("stale_ref", ndarena.StaleRefError),
        ("closed", ndarena.ClosedError),
        ("cuda_unavailable", ndarena.CudaUnavailableError),
        ("unsupported", ndarena.Error),
        ("no_memory", MemoryError),
        ("invalid", ValueError),
        ("type", TypeError),
        ("something new", ndarena.Error),
    ],
)
def test_codes_with_a_message(code, expected):
    with pytest.raises(expected, match=r"^what happened$") as caught:
        errors._raise(code, 0, "what happened", "a.nda")
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("code", "number", "expected", "expected_number"),
    [
        ("corruption", 0, ndarena.CorruptionError, errno.EUCLEAN),
        ("corruption", errno.EIO, ndarena.CorruptionError, errno.EIO),
        ("lock_timeout", 0, ndarena.LockTimeoutError, errno.ETIMEDOUT),
        ("read_only", 0, ndarena.ReadOnlyError, errno.EROFS),
        ("not_found", 0, FileNotFoundError, errno.ENOENT),
        ("exists", errno.EEXIST, FileExistsError, errno.EEXIST),
        ("permission", errno.EPERM, PermissionError, errno.EPERM),
        ("os", errno.ENOSPC, OSError, errno.ENOSPC),
        ("os", errno.ENOENT, FileNotFoundError, errno.ENOENT),
    ],
)
@pytest.mark.parametrize("filename", [None, "a.nda"])
def test_codes_with_a_number(code, number, expected, expected_number, filename):
    with pytest.raises(expected) as caught:
        errors._raise(code, number, "what happened", filename)
    error = caught.value
    assert type(error) is expected
    assert (error.errno, error.strerror, error.filename) == (
        expected_number,
        "what happened",
        filename,
    )


def test_pickle():
    with pytest.raises(ndarena.CorruptionError) as caught:
        errors._raise("corruption", 0, "bad page", "a.nda")
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is ndarena.CorruptionError
    assert (again.errno, again.filename) == (errno.EUCLEAN, "a.nda")
