"""The same bytes to many sockets by one system call (Linux, io_uring(7)).

Used for this alone: every send says MSG_DONTWAIT, so the kernel completes it within the call, taken, taken
in part or refused, and keeps nothing of it. No request outlives the call, and no memory is registered.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import socket
import sys
from array import array
from collections.abc import Sequence

# <linux/io_uring.h>; the numbers of the calls are those of every architecture.
_SETUP, _ENTER = 425, 426
_OP_SEND = 26
_ENTER_GETEVENTS = 1
_FEAT_SINGLE_MMAP = 1
_OFF_SQES = 0x1000_0000
_SQE_INTS, _SQE_LONGS = 16, 8  # 64 bytes
_FD, _ADDRESS, _LENGTH, _FLAGS, _USER_DATA = 1, 2, 6, 7, 4  # fd, len, msg_flags as ints; addr, user_data as longs
_CQE_INTS, _RESULT = 4, 2  # 16 bytes
_SEND_FLAGS = 0x40 | 0x4000  # MSG_DONTWAIT, MSG_NOSIGNAL

ENTRIES = 1024
"""Sends by one call."""


class Ring:
    """One submission and one completion queue, for one thread.

    Attributes:
        problem: why the kernel took no more requests, where it will not take any later.

    Raises:
        OSError: there is no io_uring here, or it may not be used: another system, an old kernel,
            `kernel.io_uring_disabled`, a filter of system calls.
    """

    def __init__(self) -> None:
        if not sys.platform.startswith("linux"):
            raise OSError(errno.ENOSYS, "io_uring is of Linux")
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self.problem: OSError | None = None
        self._fd = -1
        self._views: list[memoryview] = []
        self._maps: list[mmap.mmap] = []
        parameters = (ctypes.c_uint32 * 30)()  # struct io_uring_params
        self._fd = self._call(_SETUP, ENTRIES, ctypes.byref(parameters))
        try:
            self._map(list(parameters))
            self._try()
        except BaseException:
            self.close()
            raise

    def _call(self, number: int, *arguments: object) -> int:
        result: int = self._syscall(ctypes.c_long(number), *arguments)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    def _map(self, parameters: list[int]) -> None:
        sends, completions, features = parameters[0], parameters[1], parameters[5]
        if not features & _FEAT_SINGLE_MMAP:
            raise OSError(errno.ENOSYS, "this kernel's io_uring is too old")
        sq, cq = parameters[10:20], parameters[20:30]
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        size = max(sq[6] + 4 * sends, cq[5] + 16 * completions)
        rings = mmap.mmap(self._fd, size, flags=flags)
        requests = mmap.mmap(self._fd, 64 * sends, flags=flags, offset=_OFF_SQES)
        self._maps = [rings, requests]
        self._heads = self._view(rings, "I")
        self._sq_head, self._sq_tail = sq[0] // 4, sq[1] // 4
        self._cq_head, self._cq_tail = cq[0] // 4, cq[1] // 4
        first = cq[5] // 4
        self._results = self._view(rings, "i")[first : first + _CQE_INTS * completions]
        self._views.append(self._results)
        self._ints, self._longs = self._view(requests, "i"), self._view(requests, "Q")
        self._mask, self._results_mask = sends - 1, completions - 1
        for entry in range(sends):
            self._heads[sq[6] // 4 + entry] = entry
            requests[64 * entry] = _OP_SEND
            self._ints[_SQE_INTS * entry + _FLAGS] = _SEND_FLAGS

    def _view(self, area: mmap.mmap, kind: str) -> memoryview:
        whole = memoryview(area)
        view: memoryview = whole.cast(kind)  # type: ignore[call-overload]
        self._views += (view, whole)
        return view

    def _try(self) -> None:
        """See that sends end within the call here, those too that a full socket refuses."""
        left, right = socket.socketpair()
        with left, right:
            text = b"gapless" * 1000
            results = self.send([left.fileno()] * 2 * ENTRIES, text)
            taken = sum(each for each in results if each > 0)
            left.close()
            with right.makefile("rb") as reader:
                whole = reader.read() == (text * (taken // len(text) + 1))[:taken]
        if len(results) != 2 * ENTRIES or -errno.EAGAIN not in results or not taken or not whole:
            raise OSError(errno.ENOSYS, "this kernel's io_uring does not send as it should")

    def send(self, sockets: Sequence[int], data: bytes) -> list[int]:
        """Send `data` to each socket, as far as it takes it at once.

        Args:
            sockets: file descriptors, in any number.

        Returns:
            of each socket, in order, the bytes that it took, or an error's number below zero (-EAGAIN where it is
            full); of fewer sockets where the kernel takes no more requests now: the rest got nothing.
        """
        size, address = len(data), ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        assert address is not None
        heads, ints, longs = self._heads, self._ints, self._longs
        results: list[int] = []
        count = len(sockets)
        while (done := len(results)) < count:
            tail = heads[self._sq_tail]
            at = tail & self._mask
            number = min(count - done, self._mask + 1 - at)  # up to the ring's end: the next turn begins at its start
            first, last = at * _SQE_INTS, (at + number) * _SQE_INTS
            ints[first + _FD : last : _SQE_INTS] = array("i", sockets[done : done + number])
            ints[first + _LENGTH : last : _SQE_INTS] = array("i", (size,)) * number
            longs[at * _SQE_LONGS + _ADDRESS : (at + number) * _SQE_LONGS : _SQE_LONGS] = (
                array("Q", (address,)) * number
            )
            heads[self._sq_tail] = (tail + number) & 0xFFFF_FFFF
            submitted = self._submit(number)
            heads[self._sq_tail] = heads[self._sq_head]  # what was not submitted never is
            results += self._take(submitted)
            if submitted < number:
                break
        return results

    def _submit(self, number: int) -> int:
        try:
            return self._call(_ENTER, self._fd, number, 0, 0, None, 0)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOMEM):
                self.problem = error
            return 0

    def _take(self, number: int) -> list[int]:
        """The results of what was submitted just now, which are in the order of the requests."""
        heads = self._heads
        head = heads[self._cq_head]
        while (heads[self._cq_tail] - head) & 0xFFFF_FFFF < number:  # never, where `_try` came through
            with contextlib.suppress(InterruptedError):
                self._call(_ENTER, self._fd, 0, number, _ENTER_GETEVENTS, None, 0)
        at = head & self._results_mask
        split = min(number, self._results_mask + 1 - at)
        results: list[int] = []
        for start, count in ((at, split), (0, number - split)):
            first = start * _CQE_INTS
            results += self._results[first + _RESULT : first + count * _CQE_INTS : _CQE_INTS].tolist()
        heads[self._cq_head] = (head + number) & 0xFFFF_FFFF
        return results

    def close(self) -> None:
        """Give it back. Nothing is under way."""
        for view in self._views:
            view.release()
        for area in self._maps:
            area.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
