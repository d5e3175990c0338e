"""Topic names, topic filters and the matching between them (MQTT 5 §4.7, §4.8.2).

Topics and filters are compared as they are: case, white space and empty levels count, nothing
is normalised [MQTT-4.7.3-4].
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from gapless.errors import InvalidTopic

#: Default bound on the levels of a topic or filter. The standard has none; a deep topic costs work.
MAX_TOPIC_LEVELS: Final = 128
#: Default bound on the UTF-8 bytes of a topic or filter: the standard's own [MQTT-4.7.3-3].
MAX_TOPIC_BYTES: Final = 65_535

_SHARE: Final = "$share/"


def validate_topic(topic: str, *, max_levels: int = MAX_TOPIC_LEVELS, max_bytes: int = MAX_TOPIC_BYTES) -> None:
    """Checks a topic name, as in PUBLISH (MQTT 5 §4.7.1, §4.7.3).

    Raises:
        InvalidTopic: empty, a wildcard, U+0000, a surrogate, too long or too deep.
    """
    _validate_text(topic, "topic", max_levels, max_bytes)
    if "+" in topic or "#" in topic:
        raise InvalidTopic("a topic name contains a wildcard", hint="remove '+' and '#'")


def validate_filter(filter_: str, *, max_levels: int = MAX_TOPIC_LEVELS, max_bytes: int = MAX_TOPIC_BYTES) -> None:
    """Checks a topic filter, as in SUBSCRIBE, shared ones included (MQTT 5 §4.7.1, §4.8.2).

    The rules of `$share/{name}/{filter}` hold for 3.1.1 clients too: 3.1.1 gives such a filter
    no meaning of its own, and one meaning for both versions is the safer one.

    Raises:
        InvalidTopic: empty, a misplaced wildcard, a malformed `$share`, U+0000, a surrogate,
            too long or too deep.
    """
    _validate_text(filter_, "filter", max_levels, max_bytes)
    if filter_.startswith("$share/") or filter_ == "$share":
        filter_ = _split_shared(filter_)[1]
    if "#" in filter_ and (filter_.find("#") != len(filter_) - 1 or filter_[-2:] not in ("#", "/#")):
        raise InvalidTopic("'#' in a filter is not alone in the last level")
    if "+" in filter_ and any("+" in level and level != "+" for level in filter_.split("/")):
        raise InvalidTopic("'+' in a filter is not alone in its level")


def _validate_text(text: str, what: str, max_levels: int, max_bytes: int) -> None:
    if not text:
        raise InvalidTopic(f"the {what} is empty")
    if "\0" in text:
        raise InvalidTopic(f"the {what} contains U+0000")
    try:
        size = len(text) if text.isascii() else len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidTopic(f"the {what} contains a surrogate") from error
    if size > max_bytes:
        raise InvalidTopic(f"the {what} is too long", size=size, limit=max_bytes)
    levels = text.count("/") + 1
    if levels > max_levels:
        raise InvalidTopic(f"the {what} has too many levels", levels=levels, limit=max_levels)


def _split_shared(filter_: str) -> tuple[str, str]:
    group, separator, inner = filter_[len(_SHARE) :].partition("/")
    if not group or not separator or not inner:
        raise InvalidTopic("a shared subscription lacks its name or its filter", hint="write $share/{name}/{filter}")
    if "+" in group or "#" in group:
        raise InvalidTopic("the name of a shared subscription contains a wildcard")
    return group, inner


def parse_shared(filter_: str) -> tuple[str, str] | None:
    """Splits `$share/{name}/{filter}` into name and filter (MQTT 5 §4.8.2).

    Returns:
        None where the filter is not a shared one.

    Raises:
        InvalidTopic: it begins like a shared one, but the name or the filter is missing
            [MQTT-4.8.2-1] or the name has a wildcard [MQTT-4.8.2-2].
    """
    if not filter_.startswith(_SHARE) and filter_ != "$share":
        return None
    return _split_shared(filter_)


def matches(filter_: str, topic: str) -> bool:
    """Whether a valid filter (without `$share`) matches a valid topic name (MQTT 5 §4.7.1, §4.7.2).

    A filter that begins with a wildcard does not match a topic that begins with `$`.
    """
    if filter_ == topic:
        return True
    if topic.startswith("$") and filter_[:1] in ("+", "#"):
        return False
    wanted = filter_.split("/")
    levels = topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)


def covers(filter_a: str, filter_b: str) -> bool:
    """Whether every topic that `filter_b` matches is matched by `filter_a` too.

    Exact for valid filters without `$share`; a topic name is a filter without wildcards and may
    stand on either side.
    """
    if filter_b == "#" and filter_a == "+/#":
        return True  # every topic has a first level
    a_levels = filter_a.split("/")
    b_levels = filter_b.split("/")
    if filter_b.startswith("$") and a_levels[0] in ("+", "#"):
        return False
    for index, level in enumerate(a_levels):
        if level == "#":
            return True
        if index >= len(b_levels):
            return False
        other = b_levels[index]
        if other == "#" or level not in ("+", other):
            return False
    return len(a_levels) == len(b_levels)


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Node(Generic[K, V]):
    """One level of the tree; dictionaries exist only while they hold something."""

    __slots__ = ("children", "many", "one", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[K, V]] | None = None  # by literal level
        self.one: _Node[K, V] | None = None  # '+'
        self.many: dict[K, V] | None = None  # filters that end with '#' here
        self.values: dict[K, V] | None = None  # filters that end here

    @property
    def is_empty(self) -> bool:
        return not (self.children or self.one or self.many or self.values)


class FilterTree(Generic[K, V]):
    """Topic filters with values, found by topic: a trie by level.

    Under one filter each key has one value; the same key may stand under several filters and then
    comes once per matching filter out of `match`. Filters are expected to be valid and without
    `$share`. Matching costs time by the levels of the topic and the filters that agree with it so
    far, not by the number of filters. Memory of removed filters is freed.
    """

    __slots__ = ("_root", "_size")

    def __init__(self) -> None:
        self._root: _Node[K, V] = _Node()
        self._size = 0

    def __len__(self) -> int:
        """How many (filter, key) entries there are."""
        return self._size

    def add(self, filter_: str, key: K, value: V) -> V | None:
        """Puts `value` under the filter and key.

        Returns:
            The value that it replaced, or None.
        """
        levels = filter_.split("/")
        many = levels[-1] == "#"
        node = self._root
        for level in levels[:-1] if many else levels:
            node = _descend(node, level)
        entries = _entries(node, many=many)
        replaced = entries.get(key)
        if key not in entries:
            self._size += 1
        entries[key] = value
        return replaced

    def get(self, filter_: str, key: K) -> V | None:
        """The value under exactly this filter and key, or None."""
        levels = filter_.split("/")
        many = levels[-1] == "#"
        path = self._path(levels[:-1] if many else levels)
        if path is None:
            return None
        entries = path[-1].many if many else path[-1].values
        return None if entries is None else entries.get(key)

    def remove(self, filter_: str, key: K) -> V | None:
        """Takes the entry under exactly this filter and key away.

        Returns:
            Its value, or None where there was none.
        """
        levels = filter_.split("/")
        many = levels[-1] == "#"
        if many:
            levels.pop()
        path = self._path(levels)
        if path is None:
            return None
        node = path[-1]
        entries = node.many if many else node.values
        if entries is None or key not in entries:
            return None
        value = entries.pop(key)
        self._size -= 1
        if not entries:
            if many:
                node.many = None
            else:
                node.values = None
            _prune(path, levels)
        return value

    def _path(self, levels: list[str]) -> list[_Node[K, V]] | None:
        node = self._root
        path = [node]
        for level in levels:
            child = node.one if level == "+" else node.children.get(level) if node.children else None
            if child is None:
                return None
            path.append(child)
            node = child
        return path

    def match(self, topic: str) -> list[tuple[K, V]]:
        """All entries whose filter matches the topic name (MQTT 5 §4.7), in no stated order."""
        return [entry for entries in self.match_filters(topic) for entry in entries.items()]

    def match_filters(self, topic: str) -> list[dict[K, V]]:
        """The entries of each filter that matches the topic name, in an order that depends on the filters alone.

        The dictionaries are the tree's own, to be read only. As long as nothing is added and removed, two topics that
        match the same filters have the same ones.
        """
        found: list[dict[K, V]] = []
        levels = topic.split("/")
        if topic[:1] == "$":  # a leading wildcard matches no topic that begins with '$'
            child = self._root.children.get(levels[0]) if self._root.children else None
            if child is None:
                return found
            nodes = [child]
            del levels[0]
        else:
            nodes = [self._root]
        for level in levels:
            following: list[_Node[K, V]] = []
            for node in nodes:
                if node.many is not None:
                    found.append(node.many)
                if node.one is not None:
                    following.append(node.one)
                if node.children is not None:
                    child = node.children.get(level)
                    if child is not None:
                        following.append(child)
            if not following:
                return found
            nodes = following
        for node in nodes:
            if node.values is not None:
                found.append(node.values)
            if node.many is not None:  # 'a/#' matches its parent 'a' too
                found.append(node.many)
        return found


def _descend(node: _Node[K, V], level: str) -> _Node[K, V]:
    if level == "+":
        if node.one is None:
            node.one = _Node()
        return node.one
    if node.children is None:
        node.children = {}
    child = node.children.get(level)
    if child is None:
        child = node.children[level] = _Node()
    return child


def _entries(node: _Node[K, V], *, many: bool) -> dict[K, V]:
    if many:
        if node.many is None:
            node.many = {}
        return node.many
    if node.values is None:
        node.values = {}
    return node.values


def _prune(path: list[_Node[K, V]], levels: list[str]) -> None:
    """Cuts the empty nodes at the end of a path off their parents."""
    for index in range(len(levels) - 1, -1, -1):
        if not path[index + 1].is_empty:
            return
        parent, level = path[index], levels[index]
        if level == "+":
            parent.one = None
        elif parent.children is not None:
            del parent.children[level]
            if not parent.children:
                parent.children = None
