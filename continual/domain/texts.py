"""What text every database and message can hold; knows nothing of where it comes from or goes."""

MOST_CHARACTERS = 500


def unstorable(text: str) -> bool:
    """Whether the text holds a zero character or half a surrogate pair, which databases refuse."""
    return "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text)
