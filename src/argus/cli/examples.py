"""The examples under a command's help."""


def examples(*lines: str) -> str:
    """Command lines as a help epilogue, one per line and never wrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
