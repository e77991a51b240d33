"""Threads for what watches the service: it is answered while all others are busy."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Result = TypeVar("Result")

_threads = ThreadPoolExecutor(4, thread_name_prefix="watching")  # starts none before it is asked


async def watching(work: Callable[[], Result]) -> Result:
    """What `work` returns; it runs in a thread that nothing else can hold."""
    return await asyncio.get_running_loop().run_in_executor(_threads, copy_context().run, work)
