"""Other libraries' progress bars off: a command shows its own progress, or nothing."""


def quiet() -> None:
    """Switch off the bars that transformers draws while it reads and writes weights."""
    from transformers.utils import logging

    logging.disable_progress_bar()
