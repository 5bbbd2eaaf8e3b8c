"""The characters of what a command prints: readable where the terminal has them, never an error."""

import codecs
import sys
import unicodedata


def let_all_be_printed() -> None:
    """Let standard output and standard error take every text.

    Where a process is said to have ASCII alone (`LC_ALL=C`), nearly every terminal shows UTF-8, as
    Python itself assumes (PEP 540). Elsewhere a character that the terminal's encoding lacks is
    spelt out. Bytes of file names that are no characters at all are written as they are.
    """
    for stream in (sys.stdout, sys.stderr):
        encoding = getattr(stream, "encoding", None)
        if encoding is None or not hasattr(stream, "reconfigure"):
            continue  # something of a test, or of a program that calls this one
        ascii_alone = codecs.lookup(encoding).name == "ascii"
        stream.reconfigure(encoding="utf-8" if ascii_alone else None, errors=SPELT_OUT)


def narrow(text: str) -> str:
    """A text with the wide signs of a Chinese or Japanese keyboard as the ASCII that they mean.

    Example:
        >>> narrow("betas\uff1d0.9\uff0c0.95")
        'betas=0.9,0.95'
    """
    return unicodedata.normalize("NFKC", text)


def _spell_out(error: UnicodeError) -> tuple[bytes | str, int]:
    assert isinstance(error, UnicodeEncodeError)
    sign = error.object[error.start]
    if 0xDC80 <= ord(sign) <= 0xDCFF:  # noqa: PLR2004 - what stands for a byte, by PEP 383
        return bytes([ord(sign) - 0xDC00]), error.start + 1
    return sign.encode("ascii", "backslashreplace"), error.start + 1


SPELT_OUT = "descend.spelt_out"
codecs.register_error(SPELT_OUT, _spell_out)
