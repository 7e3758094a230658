"""Marks the versions of libraries that a program wants as wishes: the loader then goes on without them.

weaken.py PROGRAM VERSION...
"""
import struct
import sys


def main(path, versions):
    with open(path, "rb") as file:
        data = bytearray(file.read())
    offset, size, count = (struct.unpack_from(form, data, at)[0] for form, at in (("<Q", 0x28), ("<H", 0x3A), ("<H", 0x3C)))
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, offset + at * size) for at in range(count)]
    needed = next(section for section in sections if section[1] == 0x6FFFFFFE)
    strings = sections[needed[6]][4]
    at = needed[4]
    while True:
        _, parts, _, first, following = struct.unpack_from("<HHIII", data, at)
        part = at + first
        for _ in range(parts):
            _, flags, _, name, step = struct.unpack_from("<IHHII", data, part)
            text = data[strings + name : data.index(0, strings + name)].decode()
            if text in versions:
                struct.pack_into("<H", data, part + 4, flags | 2)
            part += step
        if not following:
            break
        at += following
    with open(path, "wb") as file:
        file.write(data)


main(sys.argv[1], sys.argv[2:])
