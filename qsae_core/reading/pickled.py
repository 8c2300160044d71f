"""What torch.save puts beside tensors: a reader of the few pickle operations that it takes. No torch here.

Python's own unpickler calls whatever a file names. This one knows no calls: text, numbers, lists, mappings,
and four names that torch writes for tensors. Anything else is refused before it has had any effect.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

MOST_BYTES = 2**24
"""Of the pickled part, which holds names and shapes, and no values."""
MOST_OPERATIONS = 2**20


class RefusedError(ValueError):
    """What is not read, in words that say what it is."""


class Storage(NamedTuple):
    """Where the values of tensors are: an entry of the file, by its key."""

    kind: str
    """torch's name of its type, such as ``FloatStorage``."""
    key: str
    n_values: int


class StoredTensor(NamedTuple):
    """A tensor as the file describes it, unchecked."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Name(NamedTuple):
    """One of the names that may be in a file."""

    name: str


class _Mark:
    """Where a group of values begins."""


TENSOR, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
ORDERED, SIZE = "collections OrderedDict", "torch Size"
NAMES = (TENSOR, PARAMETER, ORDERED, SIZE)


def contents(data: bytes) -> Any:
    """The pickled value: None, booleans, numbers, text, lists, tuples, mappings and ``StoredTensor``.

    Raises:
        ValueError: if it is damaged, or holds anything else; with what that is.
    """
    if len(data) > MOST_BYTES:
        raise RefusedError(f"its description has {len(data):,} bytes; allowed are {MOST_BYTES:,}")
    return _Machine().run(data)


class _Machine:
    """A stack and a memo, as pickle has them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        try:
            for count, (code, argument, _) in enumerate(pickletools.genops(data)):
                if count > MOST_OPERATIONS:
                    raise RefusedError(f"more than {MOST_OPERATIONS:,} operations")
                if code.name == "STOP":
                    return self._result()
                operation = _OPERATIONS.get(code.name)
                if operation is None:
                    raise RefusedError(f"it has the operation {code.name}, which is not read here")
                operation(self, argument)
        except RefusedError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise RefusedError(f"it is damaged ({type(error).__name__}: {error})") from error
        raise RefusedError("it is damaged (it has no end)")

    def _result(self) -> Any:
        (value,) = self.stack
        if isinstance(value, _Name | _Mark | Storage):
            raise RefusedError("it holds no value")
        return value

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def to_mark(self) -> list[Any]:
        """The values behind the last mark, which are taken off, and the mark."""
        at = max(i for i, value in enumerate(self.stack) if isinstance(value, _Mark))
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def take(self, n: int) -> list[Any]:
        if n > len(self.stack):
            raise IndexError("nothing on the stack")
        values = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return values

    def name(self, text: str) -> None:
        """A global: one of ``NAMES``, or a type of storage."""
        module, _, name = text.partition(" ")
        if text not in NAMES and not (module == "torch" and name.endswith("Storage") and name.isalnum()):
            raise RefusedError(
                f"it names {text.replace(' ', '.')}, which is neither a tensor nor a plain value"
            )
        self.push(_Name(text))

    def name_from_stack(self, _: Any) -> None:
        module, name = self.take(2)
        self.name(f"{module} {name}")

    def storage(self, _: Any) -> None:
        """A persistent id: ``("storage", type, key, device, number of values)``."""
        word, kind, key, device, n_values = self.stack.pop()
        if word != "storage" or not isinstance(kind, _Name) or kind.name in NAMES:
            raise RefusedError("it refers to something that is no storage")
        if not (isinstance(key, str) and isinstance(device, str) and _is_count(n_values)):
            raise RefusedError("a storage is not described as torch does it")
        self.push(Storage(kind.name.partition(" ")[2], key, n_values))

    def call(self, _: Any) -> None:
        """What the names stand for; nothing is called."""
        function, arguments = self.take(2)
        if not isinstance(function, _Name):
            raise RefusedError("it calls what is no name")
        if function.name == ORDERED and arguments == ():
            self.push({})
        elif function.name == SIZE and len(arguments) == 1:
            self.push(tuple(arguments[0]))
        elif function.name == PARAMETER and isinstance(arguments[0], StoredTensor):
            self.push(arguments[0])
        elif function.name == TENSOR:
            storage, offset, shape, stride = arguments[:4]
            numbers = (offset, *shape, *stride)
            if not isinstance(storage, Storage) or not all(map(_is_count, numbers)):
                raise RefusedError("a tensor is not described as torch does it")
            self.push(StoredTensor(storage, offset, tuple(shape), tuple(stride)))
        else:
            raise RefusedError(f"it calls {function.name.replace(' ', '.')} in a way that is not read here")

    def put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def set_items(self, _: Any) -> None:
        values = self.to_mark()
        self._set(self.stack[-1], values)

    def set_item(self, _: Any) -> None:
        values = self.take(2)
        self._set(self.stack[-1], values)

    def _set(self, target: Any, values: list[Any]) -> None:
        keys = values[::2]
        if type(target) is not dict or len(values) % 2 or not all(isinstance(k, str | int) for k in keys):
            raise RefusedError("a mapping is not one of text or numbers")
        target.update(zip(keys, values[1::2], strict=True))

    def appends(self, _: Any) -> None:
        values = self.to_mark()
        self._extend(values)

    def append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise RefusedError("something is appended to what is no list")
        self.stack[-1].extend(values)

    def build(self, _: Any) -> None:
        """The state of an object: what state_dict() keeps beside its tensors is of no use here."""
        state = self.stack.pop()
        if type(self.stack[-1]) is not dict or type(state) is not dict or set(state) - {"_metadata"}:
            raise RefusedError("it gives a state to something that has none")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _constant(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(value)


def _tuple_of(n: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(tuple(machine.take(n)))


def _argument(machine: _Machine, value: Any) -> None:
    machine.push(value)


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.push(_Mark()),
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
    "EMPTY_TUPLE": _constant(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.to_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _argument),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _argument),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, key: machine.push(machine.memo[key])),
    "MEMOIZE": _Machine.memoize,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_from_stack,
    "BINPERSID": _Machine.storage,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
}
