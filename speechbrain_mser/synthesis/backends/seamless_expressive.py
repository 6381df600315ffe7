"""SeamlessExpressive: speech to speech that keeps the way of speaking."""

import json
import os
import shutil
from pathlib import Path

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.backends.external import ExternalBackend

# What its authors found best for each language (docs/expressive in
# facebookresearch/seamless_communication).
DURATION_FACTORS = {"cmn": 1.0, "deu": 1.1, "fra": 1.2, "ita": 1.0, "spa": 1.0}
CHECKPOINT = "m2m_expressive_unity.pt"
# By vocoder, and so by output rate; the first is published under two names.
VOCODERS = {
    "vocoder_pretssel": (
        "pretssel_melhifigan_wm.pt",
        "pretssel_melhifigan_wm-final.pt",
    ),
    "vocoder_pretssel_16khz": ("pretssel_melhifigan_wm-16khz.pt",),
}
TOKENIZER = "tokenizer.model"
CHAR_TOKENIZER = "spm_char_lang38_tc.model"
DTYPES = ("float16", "float32")
GUIDE = "docs/m5ser.md"


class SeamlessExpressive(ExternalBackend):
    """Meta's SeamlessExpressive in its own Python environment.

    It needs fairseq2 0.2 and torch 2.2, which cannot be installed beside this
    package: ``setup.sh`` of the recipe makes an environment, and a worker
    runs in it. The weights are gated (a request form), the tokenizers are
    downloads of their own; the recipe's README says where from. They are
    pickles: take them from there only.

    Arguments
    ---------
    worker_python : str
        The interpreter of the environment that ``setup.sh`` made.
    model_folder : str
        Holds ``m2m_expressive_unity.pt`` and the vocoder's checkpoint.
    tokenizer_folder : str
        Holds ``tokenizer.model`` and ``spm_char_lang38_tc.model``.
    worker_script : str
        The recipe's ``worker_seamless.py``.
    vocoder : str
        "vocoder_pretssel" (24 kHz) or "vocoder_pretssel_16khz".
    duration_factors : dict, optional
        By how much the speech is stretched, for each language; its languages
        are those that can be asked for. By default the authors' own.
    dtype : str
        "float16", or "float32", which a machine without a GPU needs.
    beam_size : int
        For decoding the text.
    no_repeat_ngram : int
        Tokens after which a phrase may not come again.
    max_tokens : int
        Of text.
    max_seconds : float
        Longest utterance. Beyond some 20 s it leaves out a part of what was
        said, and does not tell.
    environment, working_folder, log_folder, start_timeout, request_timeout, \
max_restarts
        As for `ExternalBackend`.

    Example
    -------
    >>> backend = SeamlessExpressive("seamless/bin/python", "weights", "spm")
    >>> backend.languages, backend.settings()["duration_factors"]["fra"]
    (('cmn', 'deu', 'fra', 'ita', 'spa'), 1.2)
    >>> backend.open()
    Traceback (most recent call last):
    ...
    InputError: worker_python: there is no interpreter seamless/bin/python...
    """

    def __init__(
        self,
        worker_python,
        model_folder,
        tokenizer_folder,
        worker_script="seamless_expressive/worker_seamless.py",
        vocoder="vocoder_pretssel",
        duration_factors=None,
        dtype="float16",
        beam_size=5,
        no_repeat_ngram=10,
        max_tokens=200,
        max_seconds=20.0,
        environment=None,
        working_folder=None,
        log_folder=None,
        start_timeout=900.0,
        request_timeout=600.0,
        max_restarts=8,
    ):
        if vocoder not in VOCODERS:
            raise InputError(
                f"vocoder is {vocoder!r}, expected one of {', '.join(VOCODERS)}"
            )
        if dtype not in DTYPES:
            raise InputError(
                f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}"
            )
        self.worker_python = str(worker_python)
        self.model_folder = str(model_folder)
        self.tokenizer_folder = str(tokenizer_folder)
        self.worker_script = str(worker_script)
        self.audio = {
            "model": "seamless_expressivity",
            "vocoder": vocoder,
            "duration_factors": dict(duration_factors or DURATION_FACTORS),
            "dtype": dtype,
            "beam_size": beam_size,
            "no_repeat_ngram": no_repeat_ngram,
            "max_tokens": max_tokens,
        }
        super().__init__(
            command=[self.worker_python, self.worker_script],
            languages=sorted(self.audio["duration_factors"]),
            max_seconds=max_seconds,
            environment=environment,
            working_folder=working_folder,
            log_folder=log_folder,
            start_timeout=start_timeout,
            request_timeout=request_timeout,
            max_restarts=max_restarts,
        )

    def settings(self):
        """What decides how its audio sounds.

        Returns
        -------
        dict
            Model, vocoder, duration factors, precision and decoding; not
            where the files are.
        """
        return dict(self.audio)

    def _command(self):
        """The worker's command, of files that are there."""
        python = self._absolute(self.worker_python)
        if shutil.which(python) is None:
            raise InputError(
                "worker_python: there is no interpreter "
                f"{self.worker_python} (in {self.working_folder}); "
                f"{GUIDE} says how its environment is made"
            )
        script = self._absolute(self.worker_script)
        if not os.path.isfile(script):
            raise InputError(
                f"worker_script: there is no {self.worker_script} (in "
                f"{self.working_folder}); expected the recipe's own worker "
                f"({GUIDE})"
            )
        words = {
            "checkpoint": self._file("model_folder", CHECKPOINT),
            "vocoder_checkpoint": self._file(
                "model_folder", *VOCODERS[self.audio["vocoder"]]
            ),
            "tokenizer": self._file("tokenizer_folder", TOKENIZER),
            "char_tokenizer": self._file("tokenizer_folder", CHAR_TOKENIZER),
            **self.audio,
            "duration_factors": json.dumps(self.audio["duration_factors"]),
        }
        del words["model"]
        options = [
            word
            for name, value in words.items()
            for word in (f"--{name}", str(value))
        ]
        return [python, script, *options]

    def _absolute(self, path):
        return os.path.join(self.working_folder, path)

    def _file(self, setting, *names):
        """The first of the names that is in the folder."""
        folder = Path(self._absolute(getattr(self, setting)))
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise InputError(
            f"{setting}: the folder {folder} has no {' or '.join(names)}; "
            f"{GUIDE} says where it comes from"
        )
