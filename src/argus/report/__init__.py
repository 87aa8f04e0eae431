"""Reports: tables, plots, pictures with what a technique kept, and one self-contained page per run."""
