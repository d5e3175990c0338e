"""Values by topic name, found by filter: without a look at each topic, whose number clients decide."""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class _Node(Generic[V]):
    """A level of topics; the entry is that of the topic which ends here: when it was put, and its value."""

    __slots__ = ("children", "entry")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.entry: tuple[int, V] | None = None


class TopicTree(Generic[V]):
    """A mapping from topic names to values, which knows what a filter matches (MQTT 5 §4.7)."""

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()
        self._count = 0

    def put(self, topic: str, value: V) -> None:
        """Keep a topic's value, in place of the one that it had."""
        node = self._root
        for level in topic.split("/"):
            found = node.children.get(level)
            if found is None:
                found = node.children[level] = _Node()
            node = found
        self._count += 1
        node.entry = (self._count, value)

    def remove(self, topic: str) -> None:
        """Forget a topic, where it is there."""
        path: list[tuple[_Node[V], str]] = []
        node = self._root
        for level in topic.split("/"):
            found = node.children.get(level)
            if found is None:
                return
            path.append((node, level))
            node = found
        node.entry = None
        for parent, level in reversed(path):
            child = parent.children[level]
            if child.children or child.entry is not None:
                return
            del parent.children[level]

    def matching(self, filter_: str) -> list[V]:
        """The values of all topics that a valid filter (without `$share`) matches, the one put last at the end.

        A filter that begins with a wildcard does not match a topic that begins with `$` (§4.7.2).
        """
        nodes = self._find(filter_, most=None)
        assert nodes is not None
        entries = [node.entry for node in nodes if node.entry is not None]
        entries.sort(key=lambda entry: entry[0])
        return [value for _, value in entries]

    def few_matching(self, filter_: str, most: int) -> list[V] | None:
        """The same in no order; None where more than `most` levels would have to be looked at side by side."""
        nodes = self._find(filter_, most=most)
        return None if nodes is None else [node.entry[1] for node in nodes if node.entry is not None]

    def _find(self, filter_: str, *, most: int | None) -> list[_Node[V]] | None:
        nodes = [self._root]
        for index, level in enumerate(filter_.split("/")):
            if level == "#":
                return self._below(nodes, first=index == 0, most=most)
            if level == "+":
                nodes = [
                    child
                    for node in nodes
                    for name, child in node.children.items()
                    if index or not name.startswith("$")
                ]
            else:
                nodes = [child for node in nodes if (child := node.children.get(level)) is not None]
            if most is not None and len(nodes) > most:
                return None
        return nodes

    def _below(self, nodes: list[_Node[V]], *, first: bool, most: int | None) -> list[_Node[V]] | None:
        """These, for `a/#` matches `a` too, and all below them."""
        if first:
            nodes = [child for name, child in self._root.children.items() if not name.startswith("$")]
        found: list[_Node[V]] = []
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            found.append(node)
            waiting.extend(node.children.values())
            if most is not None and len(found) + len(waiting) > most:
                return None
        return found
