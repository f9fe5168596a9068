"""One buffer for everything that is read: each read is dealt with before the next one, so that none needs its own."""

from __future__ import annotations

BUFFER = memoryview(bytearray(1 << 18))
