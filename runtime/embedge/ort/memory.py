"""Return freed memory, which the C library's allocator keeps, to the system."""

import ctypes
import sys
from contextlib import suppress


def release_free_memory() -> None:
    """Return memory that is freed but still held by the allocator to the system.

    Some hundred megabytes stay resident otherwise after a model is gone. Does nothing where the
    allocator has no such function, such as musl's.
    """
    with suppress(OSError, AttributeError):
        if sys.platform == "win32":
            ctypes.CDLL("ucrtbase")._heapmin()
        elif sys.platform == "darwin":
            ctypes.CDLL(None).malloc_zone_pressure_relief(None, ctypes.c_size_t(0))
        else:
            ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
