"""What an evaluation that was interrupted has heard, for the one that goes on."""

import json
import os
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from speechbrain_mser import __version__
from speechbrain_mser.files.atomic import atomic_path
from speechbrain_mser.files.fingerprints import settings_digest, weights_digest

FOLDER = ".unfinished"


class Unfinished:
    """Answers of recognisers to sets, kept until all are there.

    Another recogniser, other settings or other audio have answers of their own.

    Arguments
    ---------
    folder : str or path-like
        The evaluation's output folder.
    settings : dict
        What answers depend on besides recogniser, candidates and utterances;
        plain values.
    """

    def __init__(self, folder, settings):
        self.folder = Path(folder) / FOLDER
        self.settings = settings

    def answer(self, recognizer, table, labels, audio, ask):
        """What is kept, or what is said now, and is kept from now on.

        Arguments
        ---------
        recognizer : EmotionRecognizer
            Who is asked.
        table, labels, audio
            A set, as `recognize_sets` takes it; the table in the order of its
            answers.
        ask : callable
            Without arguments; gives the next two.

        Returns
        -------
        table : pandas.DataFrame
            The utterances that could be recognised, by ID.
        log_probs : torch.Tensor
            ``[n, draws, n_labels]``.
        """
        asked = {
            "version": __version__,
            "settings": self.settings,
            "recognizer": _described(recognizer),
            "labels": [*labels],
            "utterances": [_files(each) for each in (table, audio)],
        }
        path = self.folder / f"{settings_digest(asked)}.safetensors"
        kept = _read(path)
        if kept is not None:
            names, log_probs = kept
            return table[table.ID.isin(names)], log_probs
        found, log_probs = ask()
        with atomic_path(path) as partial:
            save_file(
                {"log_probs": log_probs.contiguous()},
                partial,
                {"ids": json.dumps([*found.ID])},
            )
        return found, log_probs

    def forget(self):
        """All is there: nothing is kept."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _described(recognizer):
    """All that a recogniser's answers depend on."""
    return {
        "encoder": recognizer.mods.encoder.fingerprint(),
        "connector": weights_digest(recognizer.mods.connector),
        "llm": recognizer.mods.llm.digest,
        "trained": sorted(recognizer.trained_words()),
        # Prompts, words, frames; of an object its name alone
        "settings": {
            name: repr(value)
            for name, value in vars(recognizer.hparams).items()
            if name != "modules"
        },
    }


def _files(table):
    """Utterances, with what their files are without reading them."""
    states = {wav: os.stat(wav) for wav in table.wav.unique()}
    return [
        [
            *map(str, (row.ID, row.wav, row.start, row.stop)),
            states[row.wav].st_size,
            states[row.wav].st_mtime_ns,
        ]
        for row in table.itertuples()
    ]


def _read(path):
    """IDs and log-probabilities; None where there are none, or damaged ones."""
    try:
        with safe_open(path, "pt") as file:
            names = json.loads(file.metadata()["ids"])
            return names, file.get_tensor("log_probs")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
