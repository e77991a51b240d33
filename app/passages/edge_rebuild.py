"""Builds the index in the background: copies the shard, lets a child optimize the copy, carries over what was
written meanwhile, swaps. A crash at any moment leaves the old shard, which has every acknowledged write."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import orjson

from app.passages.disk import allocated_bytes, remove_tree, require_space, sync_tree
from app.passages.edge_children import Children
from app.passages.edge_folder import EdgeFolder
from app.passages.edge_shard import Handle, ShardSlot, load_shard
from app.passages.index_space import IndexSpace

log = logging.getLogger(__name__)


class Rebuilder:
    """Rebuilds when more than `index_after` vectors are unindexed, or points deleted since last time.

    `publish(folder, counted)` makes the folder the one that the next start opens.
    """

    def __init__(
        self,
        slot: ShardSlot,
        folder: EdgeFolder,
        children: Children,
        space: IndexSpace,
        index_after: int,
        publish: Callable[[Path, int], None],
    ) -> None:
        self._slot, self._folder, self._children = slot, folder, children
        self._space = orjson.dumps(space.to_dict()).decode()
        self._index_after = index_after
        self._publish = publish
        self._changed = threading.Condition()
        self._asked = self._answered = 0
        self._deleted = 0
        self._unindexable = 0  # vectors that the last rebuild left without an index; no reason for another
        self._stopping = False
        self.running = False
        self._thread = threading.Thread(target=self._run, name="passages-index", daemon=True)
        self._thread.start()

    def look(self, deleted: int = 0) -> None:
        """Call after each write: whether a rebuild is due is found out in the background."""
        with self._changed:
            self._asked += 1
            self._deleted += deleted
            self._changed.notify_all()

    def wait(self, timeout_s: float | None) -> bool:
        """Whether, in that time, everything written so far was indexed that has to be."""
        with self._changed:
            asked = self._asked
            return self._changed.wait_for(lambda: self._answered >= asked, timeout_s)

    def close(self) -> None:
        """Close the children first: the thread may be waiting for one."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._asked > self._answered)
                if self._stopping:
                    return
                asked = self._asked
            self._rebuild_if_due()
            with self._changed:
                self._answered = asked
                self._changed.notify_all()

    def _rebuild_if_due(self) -> None:
        try:
            while self._is_due() and not self._stopping:
                self._rebuild()
        except Exception:
            if not self._stopping:
                log.exception("The passages could not be indexed; searches go on without")
                self._settle()

    def _is_due(self) -> bool:
        return max(self._unindexed() - self._unindexable, self._deleted) > self._index_after

    def _unindexed(self) -> int:
        with self._slot.reading() as live:
            return live.unindexed()

    def _settle(self) -> None:
        """What is unindexed now stays so until `index_after` more have come: no rebuild in a loop."""
        self._unindexable = self._unindexed()
        with self._changed:
            self._deleted = 0

    def _rebuild(self) -> None:
        build = self._folder.new_build()
        self.running = True
        try:
            with self._children.turn:
                self._require_space()
                deleted = self._deleted
                self._slot.copy(build, track=True)
                if not self._children.run("index", str(build), "--space", self._space)["changed"]:
                    return self._settle()
                self._take_over(build)
                with self._changed:
                    self._deleted -= deleted
        finally:
            self.running = False
            self._slot.forget()
            remove_tree(build)

    def _require_space(self) -> None:
        """For the copy and its graph: what fills the disk is written to no more."""
        with self._slot.reading() as live:
            require_space(self._folder.root, 2 * allocated_bytes(live.folder))

    def _take_over(self, build: Path) -> None:
        with self._slot.reading() as live:
            target = self._folder.next_shard(live.folder)
        build.rename(target)
        fresh = Handle(shard=load_shard(target), folder=target, lexical=live.lexical)
        fresh.counted = int(fresh.shard.info().indexed_vectors_count)
        unindexed = fresh.unindexed()
        try:
            old = self._slot.swap(fresh, publish=lambda: self._publish(target, fresh.counted))
        except BaseException:
            fresh.shard.close()
            remove_tree(target)
            raise
        self._unindexable = unindexed
        # Edge flushes what it closes, holding the GIL: leave it little to write.
        sync_tree(old.folder)
        old.shard.close()
        remove_tree(old.folder)
