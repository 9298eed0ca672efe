"""All modules that a call may need in one file: a process of 15 ms spends 2 of them on looking for sixty files.

The import system looks for each module through three finders, lists its directory, and reads and doubts a file. Here a
table says where in the bundle a module's code lies, and one stat(2) whether its source is still the one that was
compiled. What is not in the table, or has changed, is imported as ever; so is everything where there is no bundle.

The table also knows what a module imports when it is loaded. Those are loaded before it, without the import system,
whose care for locks and hooks takes 15 us a module.
"""

from __future__ import annotations

import marshal
import sys
from _frozen_importlib import ModuleSpec
from _thread import _count as other_threads
from posix import O_CLOEXEC, O_RDONLY, close, pread, stat
from posix import open as open_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

    #: Of each module: whether it is a package, the path, mtime (ns) and size of its source, where its code lies behind
    #: the table and how long it is, and which modules of the bundle it imports when it is loaded, packages first.
    Table = dict[str, tuple[bool, str, int, int, int, int, tuple[str, ...]]]

NAME = f"modules.{sys.implementation.cache_tag}.bundle"
HEAD = 16  # bytes: the length of the table that follows, as decimal digits


class Finder:
    """A finder and loader (importlib.abc) of what lies in the bundle *fd*, from *start* on."""

    def __init__(self, fd: int, table: Table, start: int) -> None:
        self._fd = fd
        self._table = table
        self._start = start

    def find_spec(self, name: str, _path: Sequence[str] | None = None, _target: object = None) -> ModuleSpec | None:
        entry = self._table.get(name)
        if entry is None:
            return None
        package, path, mtime, size, *_ = entry
        try:
            now = stat(path)
        except OSError:
            return None
        if (now.st_mtime_ns, now.st_size) != (mtime, size):
            return None
        spec = ModuleSpec(name, self, origin=path, is_package=package)  # type: ignore[arg-type]
        spec.has_location = True
        if package and spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(path.rpartition("/")[0])
        return spec

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        return None  # the import system makes an ordinary one

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        # The import system would have another thread wait for a module that is not complete; here nothing would.
        if not other_threads():
            for needed in self._table[name][-1]:
                if needed not in sys.modules:
                    self._load(needed)
        exec(self.get_code(name), module.__dict__)

    def _load(self, name: str) -> None:
        """Do what importing *name* does; nothing where it has changed, or its package is not loaded."""
        above, _, last = name.rpartition(".")
        package = sys.modules.get(above)
        spec = self.find_spec(name)
        if package is None or spec is None:
            return
        module = type(sys)(name)
        module.__spec__ = spec
        module.__loader__ = self  # type: ignore[assignment]
        module.__package__ = spec.parent
        module.__file__ = spec.origin
        if spec.submodule_search_locations is not None:
            module.__path__ = spec.submodule_search_locations
        sys.modules[name] = module
        try:
            self.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        setattr(package, last, module)

    def get_code(self, name: str) -> CodeType:
        _, _, _, _, at, length, _ = self._table[name]
        code: CodeType = marshal.loads(pread(self._fd, length, self._start + at))
        return code


def install() -> None:
    """From now on modules of pycni come from the bundle beside this module, if there is one."""
    try:
        fd = open_file(f"{__file__.rpartition('/')[0]}/__pycache__/{NAME}", O_RDONLY | O_CLOEXEC)
    except OSError:
        return
    try:
        length = int(pread(fd, HEAD, 0))
        table: Table | None = marshal.loads(pread(fd, length, HEAD))
    except (OSError, ValueError, EOFError, TypeError):
        table = None
    # A bundle of another version of this module may have another form. And a caller may have closed the standard
    # streams: what is opened then would be taken for one of them.
    if fd > 2 and type(table) is dict and (finder := Finder(fd, table, HEAD + length)).find_spec(__name__):
        sys.meta_path.insert(0, finder)
    else:
        close(fd)
