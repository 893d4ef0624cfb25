"""What a file is, by its first bytes; for messages about a file that is not what its name says."""

import json
from pathlib import Path

__all__ = ["starts_as_safetensors", "what_it_is"]

_AGAIN = "download the file itself"
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "it is compressed with gzip: decompress it first"),
    (b"BZh", "it is compressed with bzip2: decompress it first"),
    (b"\xfd7zXZ\x00", "it is compressed with xz: decompress it first"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: decompress it first"),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive: unpack it and name the file inside"),
    (b"Rar!\x1a\x07", "it is a RAR archive: unpack it and name the file inside"),
    (b"GGUF", "it is a GGUF file (stable-diffusion.cpp, llama.cpp), which cannot be exported: take the .safetensors"),
    (b"\x89HDF", "it is an HDF5 file (Keras), which cannot be exported: take the .safetensors"),
    (b"\x89PNG", "it is a PNG image"),
    (b"\xff\xd8\xff", "it is a JPEG image"),
    (b"%PDF", "it is a PDF document"),
    (b"\x7fELF", "it is a program"),
    (b"MZ", "it is a program"),
)
_TAR_AT = 257
_HEAD = 4096


def starts_as_safetensors(head: bytes) -> bool:
    """Whether a file with these first bytes (nine at least) is a ``.safetensors``: a length, then JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def what_it_is(file: Path) -> str:
    """Return what the file seems to be and what to do about it: "it is ...".

    Args:
        file: a file that could not be read as what its name says.

    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if not size:
        return f"it is empty: {_AGAIN} again"
    if starts_as_safetensors(head):
        return f"it is a .safetensors file: name it so{_cut_off(head, size)}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        return "it is a Git LFS pointer, not the weights: fetch them with `git lfs pull`, or download the file itself"
    start = text[:1000].lower()
    if start.startswith(b"<?xml") and b"<html" not in start:
        return f"it is an XML document, as servers answer with that refuse a download: {_AGAIN} again"
    if start.startswith((b"<!doctype html", b"<head")) or b"<html" in start:
        return (
            f"it is an HTML page, not the weights: {_AGAIN} (on the Hub the address with /resolve/, not /blob/); "
            "a page that asks to log in needs a token"
        )
    if not head.strip(b"\x00"):
        return f"it begins with nothing but zeros, as a download that was broken off: {_AGAIN} again"
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return "it is a tar archive: unpack it and name the file inside (torch before 0.2 wrote such ones)"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(file)
    if text.startswith((b"{", b"[")):
        return _kind_of_json(text)
    if head[:1] == b"\x80" and head[1:2] in b"\x01\x02\x03\x04\x05":
        return "it is a pickle of Python: if torch.save wrote it, name it .ckpt, .bin or .pt"
    if _is_text(head):
        line = b" ".join(text[:80].split()).decode(errors="replace")
        return f"it is text ({line!r}), not weights: {_AGAIN}"
    return f"it is of no known kind (it starts with {head[:8]!r}): {_AGAIN} again"


def _is_text(head: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)


def _cut_off(head: bytes, size: int) -> str:
    length = int.from_bytes(head[:8], "little")
    return (
        f"; but its header would be {length} bytes long and the file has {size}: it is cut off" if length > size else ""
    )


def _kind_of_zip(file: Path) -> str:
    import zipfile

    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return f"it is a zip archive that is cut off or damaged (torch.save writes such ones): {_AGAIN} again"
    if any(name.endswith("data.pkl") for name in names):
        return "it is a file of torch.save: name it .ckpt, .bin or .pt"
    return f"it is a zip archive (of {', '.join(names[:3]) or 'nothing'}): unpack it and name the file inside"


def _kind_of_json(text: bytes) -> str:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    message = content.get("error") or content.get("message") if isinstance(content, dict) else None
    if isinstance(message, str):
        return f"it is the answer of a server, {message[:200]!r}, not the weights: {_AGAIN} again"
    return "it is JSON text, not weights: name the file beside it that holds them"
