"""What a folder of translations holds, to compare with another's."""


def audio(work):
    """What is in the files."""
    folder = work.folder.path
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in (".flac", ".csv")
    }
