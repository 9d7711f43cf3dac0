"""`embedge serve --stdio`: JSON lines in, JSON lines out, for a program that started this one.

The main thread reads, the scheduler's workers encode, one thread writes. What a client sends
faster than it is answered waits in its pipe, so memory is bounded.
"""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO

from embedge.encoder import Encoder
from embedge.errors import EmbedgeError
from embedge.ort.threads import start
from embedge.serve.admission import Admission
from embedge.serve.protocol import (
    CANCEL_FIELDS,
    MAX_LINE,
    REQUEST_FIELDS,
    Id,
    answer,
    check_id,
    check_protocol,
    error_object,
    greeting,
)
from embedge.serve.requests import (
    RequestError,
    check_fields,
    choice,
    make_request,
    parse_object,
)
from embedge.serve.scheduler import Job, Result, Scheduler
from embedge.serve.vectors import FORMATS

_BOM = b"\xef\xbb\xbf"  # which some writers on Windows put first


class Terminated(BaseException):  # not one that `except Exception` takes for its own
    """The process was asked to end while it waited for input."""


class StdioServer:
    """Answers the lines of one client."""

    def __init__(self, encoder: Encoder, stdin: BinaryIO, stdout: BinaryIO) -> None:
        self._encoder, self._stdin, self._stdout = encoder, stdin, stdout
        self._admission = Admission()
        self._answers: queue.SimpleQueue[tuple[Iterator[str], int] | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._running: dict[Id, Job | None] = {}  # guarded by the lock
        self._reading = self._stopped = False

    def serve(self) -> None:
        """Greet, then answer until the input ends or `stop`; all that was read is answered."""
        self._admission.enter(0)
        self._answers.put((iter([json.dumps(greeting(self._encoder)) + "\n"]), 0))
        with Scheduler(self._encoder) as scheduler:
            writer = threading.Thread(
                target=self._write, args=(scheduler,), name="embedge-answers", daemon=True
            )
            start([writer])
            with suppress(Terminated):
                self._read(scheduler)
        self._answers.put(None)
        writer.join()

    def stop(self) -> None:
        """End as if the input had ended; for the handler of a signal, on the thread of `serve`."""
        self._stopped = True
        if self._reading:
            raise Terminated

    def _read(self, scheduler: Scheduler) -> None:
        number = 0
        while not self._stopped:
            self._reading = True
            line = self._line()
            self._reading = False
            if not line:
                return
            number += 1
            size = len(line)
            self._admission.enter(size)
            if number == 1:
                line = line.removeprefix(_BOM)
            self._handle(scheduler, line, number, size)

    def _line(self) -> bytes:
        """The next line, or MAX_LINE + 1 bytes of a longer one, whose rest is dropped."""
        line = rest = self._stdin.readline(MAX_LINE + 1)
        while len(line) > MAX_LINE and rest and not rest.endswith(b"\n"):
            rest = self._stdin.readline(MAX_LINE)
        return line

    def _handle(self, scheduler: Scheduler, line: bytes, number: int, size: int) -> None:
        """Answer a line, or have it answered; ``size`` bytes are then counted out."""
        identity: Id | None = None
        try:
            if size > MAX_LINE:
                raise RequestError(f"expected lines of at most {MAX_LINE} bytes, got a longer one")
            fields = parse_object(line)
            if "cancel" in fields:
                self._cancel(scheduler, fields)
                self._admission.leave(size)
                return
            claimed = check_id("id", fields.get("id"))
            with self._lock:
                if claimed in self._running:
                    raise RequestError(f"id {claimed!r:.80} is that of a request still running")
                identity = claimed
            self._submit(scheduler, claimed, fields, size)
        except EmbedgeError as error:
            shown: dict[str, Any] = {"id": identity, "error": error_object(error)}
            if identity is None:
                shown["line"] = number
            self._answers.put((iter([json.dumps(shown) + "\n"]), size))

    def _submit(
        self, scheduler: Scheduler, identity: Id, fields: dict[str, Any], size: int
    ) -> None:
        check_protocol(fields)
        check_fields(fields, REQUEST_FIELDS)
        form = choice(fields, "encoding_format", FORMATS)
        request = make_request(self._encoder, fields.get("texts"), fields, self._encoder.dim)
        with self._lock:  # `done` may come before `submit` returns, and waits for this
            self._running[identity] = None
            job = scheduler.submit(request, partial(self._done, identity, form, size))
            if identity in self._running:
                self._running[identity] = job

    def _done(self, identity: Id, form: str, size: int, result: Result | EmbedgeError) -> None:
        with self._lock:
            del self._running[identity]
        self._answers.put((answer(identity, result, form), size))

    def _cancel(self, scheduler: Scheduler, fields: dict[str, Any]) -> None:
        check_protocol(fields)
        check_fields(fields, CANCEL_FIELDS)
        identity = check_id("cancel", fields["cancel"])
        with self._lock:
            job = self._running.get(identity)
        if job is not None:  # else it was answered meanwhile
            scheduler.cancel(job)

    def _write(self, scheduler: Scheduler) -> None:
        gone = False
        while (item := self._answers.get()) is not None:
            pieces, size = item
            try:
                if not gone:
                    for piece in pieces:
                        self._stdout.write(piece.encode("ascii"))
                    self._stdout.flush()
            except OSError:  # the client has exited: nobody reads the rest
                gone = self._stopped = True
                with self._lock:
                    jobs = [job for job in self._running.values() if job is not None]
                for job in jobs:
                    scheduler.cancel(job)
            self._admission.leave(size)
