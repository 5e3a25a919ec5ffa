"""A reader of pickles that makes only objects that a vocabulary knows. It calls nothing that a pickle names by itself.

A pickle is a program for a small stack machine. This module runs such programs with four differences to Python's own
reader: names are looked up in a vocabulary, and nothing is ever imported; a function or class is called only if the
vocabulary says what calling it means; state is only given to objects that the vocabulary knows how to fill; and
neither the objects that containers lead to nor the bytes that calls are given may be far more than the file holds.
"""

from __future__ import annotations

import pickle
import pickletools
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from types import BuiltinFunctionType, FunctionType
from typing import Any, ClassVar, Protocol, final

import numpy as np

MAX_DEPTH = 100
"""Greatest depth of containers in containers."""


class UnknownName(ValueError):
    """A pickle names something that the vocabulary does not know.

    Args:
        module: the module that it names.
        name: the name in that module.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        by_value = " (a function or class that was saved as code)" if module.startswith("cloudpickle") else ""
        super().__init__(f"it needs {module}.{name}{by_value}, which is not a class that models consist of")


class Vocabulary(Protocol):
    """What a pickle may name, and what its names mean."""

    def find(self, module: str, name: str) -> Any:
        """The object of a name. Raises UnknownName."""

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """The object that a call makes. Raises ValueError for what may not be called."""

    def make(self, cls: Any, arguments: tuple[Any, ...]) -> Any:
        """A new object of a class, not yet filled. Raises ValueError for a class without such objects."""

    def fill(self, thing: Any, state: Any) -> Any:
        """The object after it was given its state. Raises ValueError for an object that takes none."""


def read_pickle(
    content: bytes, vocabulary: Vocabulary, *, old_protocols: bool = False, max_opcodes: int | None = None
) -> Any:
    """The object in a pickle.

    Args:
        content: the pickle.
        vocabulary: what names mean.
        old_protocols: whether the opcodes of protocols 0 and 1 are accepted, besides those of protocols 2 to 5.
        max_opcodes: largest number of opcodes; None: as many as there are.

    Raises:
        UnknownName: for a name that the vocabulary does not know.
        ValueError: for what the vocabulary does not allow, for opcodes that data do not need, and for a pickle that
            unpacks to far more than it holds.
        Exception: anything else, if the pickle is damaged.
    """
    machine = Machine(vocabulary, 4 * len(content) + 2**20, old_protocols=old_protocols)
    found = machine.run(content, max_opcodes)
    _check_expansion(found, 10_000 + len(content))
    return found


_OLD_PUSHED = frozenset({"INT", "LONG", "FLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"})
_PUSHED = _OLD_PUSHED | frozenset(
    [
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "LONG4",
        "BINFLOAT",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "SHORT_BINBYTES",
        "BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    ]
)
_OLD = _OLD_PUSHED | {"LIST", "DICT", "PUT", "GET"}
"""Opcodes that only protocols 0 and 1 need."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_CONTAINERS: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SCALARS = (str, int, float, bytes, type(None))
MAX_KEY_PARTS = 16
"""Largest number of parts of a tuple that is a key."""


@final
class Machine:
    """The stack machine.

    Args:
        vocabulary: what names mean.
        budget: number of bytes that calls and objects may be given in all; most of them copy what they are given.
        old_protocols: see `read_pickle`.
    """

    def __init__(self, vocabulary: Vocabulary, budget: int, *, old_protocols: bool) -> None:
        self.vocabulary, self.budget = vocabulary, budget
        self.refused: frozenset[str] = frozenset() if old_protocols else _OLD
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # The parts of the stack below each mark.
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes, max_opcodes: int | None) -> Any:
        """Runs a pickle to its end, and returns the object on top of the stack."""
        for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            name = opcode.name
            if number == max_opcodes:
                raise ValueError(f"the pickle has more than {max_opcodes:,} opcodes")
            if name in self.refused:
                raise ValueError(f"the opcode {name} is of a protocol before 2")
            if name in _PUSHED:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _CONTAINERS:
                self.stack.append(_CONTAINERS[name]())
            elif name in _SHORT_TUPLES:
                n = _SHORT_TUPLES[name]
                self.stack[-n:] = [tuple(self.stack[-n:])]
            elif name in self.OPERATIONS:
                self.OPERATIONS[name](self, argument)
            elif name == "STOP":
                return self.stack.pop()
            else:
                raise ValueError(f"the opcode {name} is not needed by data")
        raise ValueError("the pickle has no end")

    def _protocol(self, number: int) -> None:
        if number > pickle.HIGHEST_PROTOCOL:
            raise ValueError(f"the pickle has protocol {number}, the highest known one is {pickle.HIGHEST_PROTOCOL}")

    def _frame(self, _: Any) -> None:
        """Only says where bytes may be read ahead."""

    def _spend(self, given: Any) -> None:
        """Counts what a call or an object is given, and what the parts of it hold."""
        self.budget -= _size(given)
        if self.budget >= 0 and isinstance(given, tuple | list | dict):
            self.budget -= sum(map(_size, given.values() if isinstance(given, dict) else given))
        if self.budget < 0:
            raise ValueError("the pickle unpacks to far more than it holds")

    def _mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _marked(self) -> list[Any]:
        """What was put on the stack since the last mark, which is removed."""
        found, self.stack = self.stack, self.below.pop()
        return found

    def _tuple(self, _: Any) -> None:
        items = self._marked()
        self.stack.append(tuple(items))

    def _list(self, _: Any) -> None:
        items = self._marked()
        self.stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._marked()
        self.stack.append({})
        self._update(items)

    def _frozenset(self, _: Any) -> None:
        items = self._marked()
        self.stack.append(frozenset(map(_checked_key, items)))

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._marked()

    def _put(self, place: Any) -> None:
        self.memo[place] = self.stack[-1]

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, place: Any) -> None:
        self.stack.append(self.memo[place])

    def _append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._marked())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) not in (list, deque):
            raise ValueError(f"items are added to a {type(target).__name__}")
        target.extend(items)

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def _setitems(self, _: Any) -> None:
        self._update(self._marked())

    def _update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) not in (dict, OrderedDict):
            raise ValueError(f"keys are set in a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_checked_key(key)] = value

    def _additems(self, _: Any) -> None:
        items, target = self._marked(), self.stack[-1]
        if type(target) is not set:
            raise ValueError(f"members are added to a {type(target).__name__}")
        target.update(map(_checked_key, items))

    def _global(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self.vocabulary.find(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise ValueError("a name is not a text")
        self.stack.append(self.vocabulary.find(module, name))

    def _reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self._spend(arguments)
        self.stack.append(self.vocabulary.call(function, _checked_arguments(arguments)))

    def _newobj(self, _: Any) -> None:
        arguments, cls = self.stack.pop(), self.stack.pop()
        self.stack.append(self.vocabulary.make(cls, _checked_arguments(arguments)))

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        self._spend(state)
        self.vocabulary.fill(self.stack[-1], state)

    OPERATIONS: ClassVar[dict[str, Callable[[Machine, Any], None]]] = {
        "PROTO": _protocol,
        "FRAME": _frame,
        "MARK": _mark,
        "TUPLE": _tuple,
        "FROZENSET": _frozenset,
        "POP": _pop,
        "POP_MARK": _pop_mark,
        "LIST": _list,
        "DICT": _dict,
        "PUT": _put,
        "GET": _get,
        "BINPUT": _put,
        "LONG_BINPUT": _put,
        "MEMOIZE": _memoize,
        "BINGET": _get,
        "LONG_BINGET": _get,
        "APPEND": _append,
        "APPENDS": _appends,
        "SETITEM": _setitem,
        "SETITEMS": _setitems,
        "ADDITEMS": _additems,
        "GLOBAL": _global,
        "STACK_GLOBAL": _stack_global,
        "REDUCE": _reduce,
        "NEWOBJ": _newobj,
        "BUILD": _build,
    }
    """Name of an opcode -> what it does with the stack."""


def _checked_arguments(arguments: Any) -> tuple[Any, ...]:
    if type(arguments) is not tuple:
        raise ValueError(f"a call has a {type(arguments).__name__} instead of arguments")
    return arguments


def _size(thing: Any) -> int:
    """About the number of bytes that a copy of a thing takes, without those of its parts."""
    if isinstance(thing, str | bytes | bytearray):
        return len(thing)
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    return 8 * len(thing) if isinstance(thing, dict | list | tuple | set | frozenset | deque) else 0


def _checked_key(key: Any) -> Any:
    """A key of a dict. What takes long to hash is refused: nested or long tuples, and huge numbers."""
    parts = key if type(key) is tuple else (key,)
    if len(parts) > MAX_KEY_PARTS or not all(isinstance(part, _SCALARS) for part in parts):
        raise ValueError(f"a {type(key).__name__} is a key")
    if any(isinstance(part, int) and abs(part) >= 1 << 64 for part in parts):
        raise ValueError("a huge number is a key")
    return key


def _check_expansion(thing: Any, limit: int) -> None:
    """Raises a ValueError for functions in containers, and for containers that contain themselves, or others so often
    that walking through them visits more than `limit` objects."""
    todo, seen = [iter([thing])], 0
    while todo:
        part = next(todo[-1], todo)
        if part is todo:
            todo.pop()
            continue
        seen += 1
        if seen > limit or len(todo) > MAX_DEPTH:
            raise ValueError("containers are nested too deeply, or repeat one another too often")
        if isinstance(part, FunctionType | BuiltinFunctionType):
            raise ValueError(f"the function {part.__qualname__} is not data")
        if inside := _parts(part):
            todo.append(iter(inside))


def _parts(thing: Any) -> Collection[Any]:
    if isinstance(thing, dict):
        return thing.values()
    if isinstance(thing, list | tuple | set | frozenset | deque):
        return thing
    if isinstance(thing, np.ndarray):
        return list(thing.flat) if thing.dtype == object else ()
    return () if isinstance(thing, type) else getattr(thing, "__dict__", {}).values()
