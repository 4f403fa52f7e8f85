"""Read YAML as Kubernetes' tools do, with the line of every value, and within bounds whatever the file has in it.

The parser's events are read one by one, so that no depth, alias or size of a file can take more than the bounds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from defects.values import shown

MAX_BYTES = 1 << 25  # of a file; all of KServe's definitions take a fifth of it
MAX_VALUES = 2_000_000  # in a file, each alias counted as what it stands for
MAX_DEPTH = 100
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
STANDARD = "tag:yaml.org,2002:"

NULL = re.compile(r"~|null|Null|NULL|")
TRUE = re.compile(r"yes|Yes|YES|on|On|ON|true|True|TRUE")
FALSE = re.compile(r"no|No|NO|off|Off|OFF|false|False|FALSE")
INTEGER = re.compile(r"[-+]?[0-9]{1,40}")
FLOAT = re.compile(r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)")
PAIR = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

Scalar = str | int | float | bool | None


class BadYAML(ValueError):
    """A file is no YAML that Kubernetes' tools take; the message says where and why, in one line."""


@dataclass(slots=True)
class Node:
    """A value, the line that it begins in, and how many values it has in it."""

    value: Scalar | dict[str, Entry] | list[Node]
    line: int
    size: int = 1


class Entry(NamedTuple):
    """The value of a key, and the line of the key."""

    line: int
    node: Node


@dataclass(slots=True)
class Open:
    """A mapping or a list that is being read."""

    node: Node
    anchor: str | None
    key: Key | None = None
    merged: list[Node] = field(default_factory=list)


class Key(NamedTuple):
    """A key of a mapping, and its line; `<<` merges other mappings into this one."""

    text: str
    line: int
    merges: bool


def read(content: bytes) -> list[Node]:
    """Return the documents of a file that are not empty; raises `BadYAML`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadYAML(f"line {line}: is not UTF-8; expected YAML in UTF-8") from None
    try:
        return [node for node in _Reader().documents(_without_pairs(text)) if node.value is not None]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadYAML(f"line {line}: {error.problem or error.context}; expected YAML") from None
    except yaml.YAMLError as error:
        raise BadYAML(f"{str(error).splitlines()[0]}; expected YAML") from None


def _without_pairs(text: str) -> str:
    """Return JSON without pairs of surrogates in escapes, which YAML does not know; other text as it is."""
    return PAIR.sub(_character, text) if text.lstrip()[:1] in ("{", "[") else text


def _character(pair: re.Match[str]) -> str:
    units = int(pair[2], 16), int(pair[3], 16)
    return pair[1] + chr(0x10000 + ((units[0] - 0xD800) << 10) + units[1] - 0xDC00)


class _Reader:
    """Makes nodes of a parser's events."""

    def __init__(self) -> None:
        self._open: list[Open] = []
        self._anchors: dict[str, Node] = {}
        self._done: Node | None = None
        self._values = 0

    def documents(self, text: str) -> Iterator[Node]:
        """Yield the root of each document."""
        for event in yaml.parse(text, Loader=LOADER):
            match event:
                case yaml.DocumentStartEvent():
                    self._anchors, self._done = {}, None
                case yaml.DocumentEndEvent():
                    if self._done is not None:
                        yield self._done
                case yaml.ScalarEvent():
                    self._add(_scalar(event), event.anchor, plain=event.tag is None and event.implicit[0])
                case yaml.AliasEvent():
                    self._add(self._alias(event), None)
                case yaml.MappingStartEvent():
                    self._begin(Node({}, _line(event)), event.anchor)
                case yaml.SequenceStartEvent():
                    self._begin(Node([], _line(event)), event.anchor)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self._end()

    def _begin(self, node: Node, anchor: str | None) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise BadYAML(f"line {node.line}: is nested deeper than {MAX_DEPTH} levels")
        self._open.append(Open(node, anchor))

    def _end(self) -> None:
        ended = self._open.pop()
        for merged in ended.merged:
            _merge(ended.node, merged)
        self._add(ended.node, ended.anchor)

    def _alias(self, event: Any) -> Node:
        line = _line(event)
        if event.anchor not in self._anchors:
            raise BadYAML(f"line {line}: the alias {shown(event.anchor)} stands for nothing that ends before it")
        target = self._anchors[event.anchor]
        return Node(target.value, line, target.size)

    def _add(self, node: Node, anchor: str | None, *, plain: bool = False) -> None:
        """Put a complete value where it belongs."""
        self._values += 1
        if max(self._values, node.size) > MAX_VALUES:
            raise BadYAML(f"line {node.line}: more than {MAX_VALUES:,} values, with what aliases stand for")
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self._done = node
            return
        parent = self._open[-1]
        parent.node.size += node.size
        if isinstance(parent.node.value, list):
            parent.node.value.append(node)
        elif parent.key is None:
            parent.key = _key(node, plain=plain)
        else:
            _put(parent, parent.node.value, parent.key, node)
            parent.key = None


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _put(parent: Open, known: Any, key: Key, node: Node) -> None:
    """Add a pair to a mapping that is being read."""
    if key.merges:
        parent.merged += node.value if isinstance(node.value, list) else [node]
    elif key.text in known:
        raise BadYAML(f"line {key.line}: the key {shown(key.text)} is in line {known[key.text].line} already")
    else:
        known[key.text] = Entry(key.line, node)


def _merge(node: Node, merged: Node) -> None:
    if not isinstance(merged.value, dict) or not isinstance(node.value, dict):
        raise BadYAML(f"line {merged.line}: << takes mappings; this is none")
    node.value |= {key: entry for key, entry in merged.value.items() if key not in node.value}


def _key(node: Node, *, plain: bool) -> Key:
    """Return a key as JSON has it, a text."""
    if isinstance(node.value, dict | list):
        raise BadYAML(f"line {node.line}: a key is a list or a mapping; expected text")
    text = node.value if isinstance(node.value, str) else json.dumps(node.value)
    return Key(text, node.line, plain and text == "<<")


def _scalar(event: Any) -> Node:
    line, text, tag = _line(event), event.value, event.tag
    if tag is None and not event.implicit[0]:  # in quotes
        return Node(text, line)
    if tag in ("!", f"{STANDARD}str", f"{STANDARD}binary"):
        return Node(text, line)
    if tag is not None and not tag.startswith(STANDARD):
        raise BadYAML(f"line {line}: the tag {shown(tag)} is unknown")
    if NOT_FINITE.fullmatch(text):
        raise BadYAML(f"line {line}: has {text}; expected finite numbers")
    return Node(_plain(text), line)


def _plain(text: str) -> Scalar:
    """Return what a scalar without quotes means."""
    if NULL.fullmatch(text):
        return None
    if TRUE.fullmatch(text):
        return True
    if FALSE.fullmatch(text):
        return False
    if INTEGER.fullmatch(text) and not re.match(r"[-+]?0[0-9]", text):
        return int(text)
    if FLOAT.fullmatch(text) and math.isfinite(value := float(text)):
        return value
    return text
