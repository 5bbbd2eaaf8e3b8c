"""Words that messages are made of."""


def counted(number: int, one: str, several: str = "") -> str:
    """A number and what it is of.

    Example:
        >>> counted(1, "tensor"), counted(1200, "tensor")
        ('1 tensor', '1,200 tensors')
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"
