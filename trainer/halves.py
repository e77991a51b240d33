"""Choose and prove apart: every measured set is cut once, and nothing that was chosen by a figure is proved by it.

Softening, and whatever else a search finds, is chosen on one half; the gate, the intervals and the card speak of the
other alone.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from app.errors import BadDataset
from trainer.training_set import Judged


def split_halves(judged: Judged, *, seed: int = 0, name: str = "measured") -> tuple[Judged, Judged]:
    """The halves (choose, prove) of the set called `name`.

    All queries that share a relevant passage, directly or over others, fall into one half: what was learnt about a
    passage while choosing would flatter the proof. Such clusters are put in the order of SHA-256 over the seed and
    their first query id, and cut where the halves' queries are most nearly equal. So translations of one set, which
    keep its query ids, are cut alike; the order of queries and passages says nothing; and a set that grows keeps its
    halves but for the clusters near the cut: an encoder tuned from an earlier one is not proved on what that one was
    chosen by. Raises `BadDataset` when there is nothing to cut, which is one cluster.
    """
    cluster_of = clusters(judged)
    key: dict[int, str] = {}
    for cluster, query_id in zip(cluster_of.tolist(), judged.ids, strict=True):
        key[cluster] = min(key.get(cluster, query_id), query_id)
    if len(key) < 2:
        raise BadDataset(
            f"The set '{name}' cannot be cut into a half to choose by and a half to prove with: its {len(judged.ids)} "
            "queries all share their passages; add judged queries about other passages."
        )
    order = sorted(key, key=lambda cluster: hashlib.sha256(f"{seed}\0{key[cluster]}".encode()).digest())
    sizes = np.cumsum(np.bincount(cluster_of)[order])[:-1]  # queries in the first half, cut after 1, 2, … clusters
    cut = int(np.argmin(np.abs(sizes - len(judged.ids) / 2))) + 1
    proves = np.isin(cluster_of, order[cut:])
    return judged.take(np.flatnonzero(~proves).tolist()), judged.take(np.flatnonzero(proves).tolist())


def clusters(judged: Judged) -> NDArray[np.int64]:
    """A number per query, (queries,): queries have the same one if they share a passage, directly or over others."""
    count = len(judged.relevant)
    if not count:
        return np.empty(0, dtype=np.int64)
    query = np.repeat(np.arange(count), [len(rows) for rows in judged.relevant])  # (pairs,)
    _, passage = np.unique(np.concatenate(judged.relevant), return_inverse=True)  # (pairs,)
    nodes = count + int(passage.max()) + 1  # the queries, then the passages
    edges = coo_array((np.ones(len(query), dtype=np.int8), (query, count + passage)), shape=(nodes, nodes))
    _, label = connected_components(edges, directed=False)
    return np.asarray(label[:count], dtype=np.int64)
