"""How much may wait at a time, so that memory is bounded whatever clients send."""

import threading

MAX_REQUESTS = 256
MAX_BYTES = 64 * 2**20


class Admission:
    """Counts requests from their arrival until their answer has been handed over."""

    def __init__(self, requests: int = MAX_REQUESTS, size: int = MAX_BYTES) -> None:
        self._requests, self._size = requests, size
        self._changed = threading.Condition()

    def try_enter(self, size: int, requests: int = 1) -> bool:
        """Count requests of ``size`` bytes in; False, and nothing counted, where it is full."""
        with self._changed:
            if not self._fits(size, requests):
                return False
            self._requests -= requests
            self._size -= size
            return True

    def enter(self, size: int) -> None:
        """Count a request in, once there is room for it."""
        with self._changed:
            self._changed.wait_for(lambda: self._fits(size, 1))
            self._requests -= 1
            self._size -= size

    def leave(self, size: int, requests: int = 1) -> None:
        """Count requests out."""
        with self._changed:
            self._requests += requests
            self._size += size
            self._changed.notify_all()

    def _fits(self, size: int, requests: int) -> bool:
        return requests <= self._requests and size <= self._size
