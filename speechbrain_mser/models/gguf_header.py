"""What a GGUF file says of itself, and whether it holds that.

GGUF is the file format of llama.cpp: keys with values, a list of tensors,
their (mostly quantised) data. It comes from strangers, and its readers believe
its lengths; so these are compared with the file's size first.
"""

import math
import os
import struct

from speechbrain_mser.errors import InputError

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?"}
_NUMBERS |= {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# Lists within lists that are read, and names that are kept.
_DEEPEST, _LONGEST = 4, 1 << 16


class GGUFHeader:
    """Keys and tensors of a GGUF file that is whole.

    Arguments
    ---------
    path : path-like
        The file.

    Attributes
    ----------
    values : dict
        Key to number or text; lists are not kept.
    types : set of int
        In which the tensors are stored, by GGML's numbers.
    shapes : dict
        Each tensor's name to its dimensions, the last first.

    Raises
    ------
    InputError
        It is no GGUF file, is cut short, or has lengths that cannot be.
    """

    def __init__(self, path):
        from gguf.constants import GGML_QUANT_SIZES

        self.values, self.types, self.shapes = {}, set(), {}
        sizes = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
        with open(path, "rb") as file:
            self._file, self._path = file, path
            self._size = os.fstat(file.fileno()).st_size
            if file.read(4) != b"GGUF":
                raise self._refusal("it does not begin as such a file")
            (version,) = self._unpack("I")
            if version not in (2, 3):
                raise self._refusal(f"its version is {version}, not 2 or 3")
            tensors, keys = self._unpack("QQ")
            for _ in range(keys):
                key = self._string()
                (kind,) = self._unpack("I")
                value = self._value(kind)
                if value is not None:
                    self.values[key] = value
            ends = [self._tensor(sizes) for _ in range(tensors)]
            alignment = self.values.get("general.alignment", 32)
            if not isinstance(alignment, int) or alignment < 1:
                raise self._refusal(f"its alignment is {alignment!r}")
            data = -(-file.tell() // alignment) * alignment
        end = data + max(ends, default=0)
        if end > self._size:
            raise self._refusal(
                f"it is cut short: {self._size} of {end} bytes are there"
            )

    def _tensor(self, sizes):
        """Where a tensor's data end, from where all data begin."""
        name = self._string()
        (rank,) = self._unpack("I")
        if rank > 8:
            raise self._refusal(f"its tensor {name} has {rank} dimensions")
        shape = self._unpack(f"{rank}Q")
        kind, start = self._unpack("IQ")
        if kind not in sizes:
            raise self._refusal(
                f"its tensor {name} is stored as type {kind}, which the "
                "package gguf does not know; update it"
            )
        self.types.add(kind)
        self.shapes[name] = shape
        block, size = sizes[kind]
        return start + -(-math.prod(shape) // block) * size

    def _value(self, kind, depth=0):
        """A number or a text; of a list nothing, it is stepped over."""
        if kind in _NUMBERS:
            return self._unpack(_NUMBERS[kind])[0]
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY or depth == _DEEPEST:
            raise self._refusal(f"it has a value of type {kind}")
        kind, count = self._unpack("IQ")
        if kind in _NUMBERS:
            self._skip(count * struct.calcsize(_NUMBERS[kind]))
        elif kind == _STRING:
            for _ in range(count):
                self._skip(*self._unpack("Q"))
        else:
            for _ in range(count):
                self._value(kind, depth + 1)
        return None

    def _string(self):
        (length,) = self._unpack("Q")
        if length > _LONGEST:  # a chat template may be; names are not
            self._skip(length)
            return ""
        return self._read(length).decode(errors="replace")

    def _skip(self, length):
        if self._file.tell() + length > self._size:
            raise self._refusal("it is cut short, or damaged")
        self._file.seek(length, os.SEEK_CUR)

    def _unpack(self, form):
        form = f"<{form}"
        return struct.unpack(form, self._read(struct.calcsize(form)))

    def _read(self, length):
        data = self._file.read(length)
        if len(data) != length:
            raise self._refusal("it is cut short, or damaged")
        return data

    def _refusal(self, why):
        return InputError(f"{self._path} cannot be read as GGUF: {why}")
