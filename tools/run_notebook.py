#!/usr/bin/env python3
"""Runs a notebook and keeps what it shows, without traces of this machine.

Usage: python tools/run_notebook.py docs/tour.ipynb
"""

import argparse
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

LANGUAGE = {"name": "python"}
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def run_notebook(notebook, folder):
    """Run it in a folder; outputs are put into it.

    Arguments
    ---------
    notebook : nbformat.NotebookNode
        Changed in place.
    folder : str or path-like
        Where it runs, and where what it writes stays.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell has failed.
    """
    NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=600,
        record_timing=False,
        resources={"metadata": {"path": os.fspath(folder)}},
        extra_arguments=["--HistoryManager.enabled=False"],
    ).execute()


def strip(notebook):
    """Take out what is this machine's or this run's: metadata, progress.

    Arguments
    ---------
    notebook : nbformat.NotebookNode
        Changed in place.
    """
    notebook.metadata = {"kernelspec": KERNEL, "language_info": LANGUAGE}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            # Progress and logs
            cell.outputs = [
                one for one in cell.outputs if one.get("name") != "stderr"
            ]
            for one in cell.outputs:
                if "metadata" in one:
                    one.metadata = {}
            _join_texts(cell)


def _join_texts(cell):
    """What was printed is one output, in however many pieces it came."""
    joined = []
    for one in cell.outputs:
        if joined and one.output_type == joined[-1].output_type == "stream":
            joined[-1].text += one.text
        else:
            joined.append(one)
    cell.outputs = joined


def main():
    """Run, strip and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    path = parser.parse_args().notebook
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        run_notebook(notebook, folder)
    strip(notebook)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
