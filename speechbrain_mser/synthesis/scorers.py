"""What can be measured of a translation beside its source.

Every scorer gives columns of a table, and none of them is a filter: what a
good value is, the reader of the table decides.
"""

from functools import cached_property

import numpy as np
import soundfile
import torch
from speechbrain.utils.edit_distance import accumulatable_wer_stats
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.dataio.batching import pad_together
from speechbrain_mser.devices import find_device
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.fingerprints import weights_digest
from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.lobes.hub import find_model, load_model

# Whisper's own codes; it knows Mandarin as Chinese.
WHISPER_CODES = {
    "eng": "en",
    "fra": "fr",
    "deu": "de",
    "ita": "it",
    "cmn": "zh",
    "spa": "es",
    "ell": "el",
    "rus": "ru",
    "fas": "fa",
}
# Written without spaces: its words are nobody's to count.
WITHOUT_WORDS = ("cmn",)
# Of Whisper's window, in seconds
LONGEST = 30.0


class Pair:
    """A translation and its source; audio is read when a scorer asks for it.

    Arguments
    ---------
    path : str or path-like
        The translation's file.
    language : str
        Its language, ISO 639-3.
    text : str
        What the translator says that it says; may be empty.
    source : dict
        The source's row of its manifest, its ``wav`` resolved.

    Raises
    ------
    AudioError
        On reading, where the audio cannot be used.
    """

    def __init__(self, path, language, text, source):
        self.path = path
        self.language = language
        self.text = text
        self.source = source

    @cached_property
    def made(self):
        """``[time]`` at 16 kHz."""
        return load_audio(self.path)

    @cached_property
    def spoken(self):
        """``[time]`` at 16 kHz, the source's."""
        row = self.source
        return load_audio(row["wav"], row["start"], row["stop"])


class Scorer:
    """Measures pairs.

    Its `settings` are recorded beside the scores: with others they are
    computed anew.
    """

    #: Of the table.
    columns = ()

    def settings(self):
        """What changes the numbers; JSON-like."""
        return {}

    def score(self, pairs):
        """Measure a batch.

        Arguments
        ---------
        pairs : list of Pair
            Their audio can be read.

        Returns
        -------
        list of dict
            Column to value, in the same order; a missing column was not to
            be had.
        """
        raise NotImplementedError


class DurationRatio(Scorer):
    """The translation's duration over its source's.

    Far from 1, content was lost or the translator has begun to babble.

    Example
    -------
    >>> pair = Pair("", "fra", "", {})
    >>> pair.made, pair.spoken = torch.ones(24000), torch.ones(16000)
    >>> DurationRatio().score([pair])
    [{'duration_ratio': 1.5}]
    """

    columns = ("duration_ratio",)

    def score(self, pairs):
        """As `Scorer.score`."""
        return [
            {"duration_ratio": len(pair.made) / len(pair.spoken)}
            for pair in pairs
        ]


class Clipping(Scorer):
    """The share of samples at full scale, as the file has them."""

    columns = ("clipped",)

    def score(self, pairs):
        """As `Scorer.score`."""
        return [{"clipped": _share_at_full_scale(pair.path)} for pair in pairs]


def _share_at_full_scale(path):
    # Not resampled, which would round off the corners
    samples, _ = soundfile.read(path, dtype="int16", always_2d=True)
    # Both ends: the lowest value has no positive counterpart
    return float((np.abs(samples.astype(np.int32)) >= 2**15 - 1).mean())


class WhisperScorer(Scorer):
    """Which language Whisper hears, and how far its words are from the text.

    Nobody tells it the language: speech that is heard as another one is
    transcribed as that. Texts are compared without case and punctuation;
    Mandarin has a CER only. A translation above 30 s, or without a text, has
    neither.

    Arguments
    ---------
    source : str
        A multilingual Whisper: hub name or folder.
    save_path : str
        Where files from the hub are kept.
    device : str
        Where it runs.
    """

    columns = ("heard_language", "language_agrees", "wer", "cer", "heard_text")

    def __init__(self, source, save_path="pretrained_models", device="cpu"):
        files = ("config.json", "preprocessor_config.json")
        role = "the scorers' Whisper"
        folder = find_model(source, save_path, role, "whisper", files)
        self._processor = WhisperProcessor.from_pretrained(
            folder, trust_remote_code=False
        )
        model, _ = load_model(
            WhisperForConditionalGeneration, folder, f"{role} (whisper)"
        )
        self._languages = {
            number: token.strip("<|>")
            for token, number in getattr(
                model.generation_config, "lang_to_id", {}
            ).items()
        }
        if not self._languages:
            raise InputError(
                f"{source} knows no languages; the scorers need a "
                "multilingual Whisper, such as openai/whisper-small"
            )
        self._model = model.eval().to(find_device(device))

    def settings(self):
        """As `Scorer.settings`."""
        return {"weights": weights_digest(self._model)}

    @torch.inference_mode()
    def score(self, pairs):
        """As `Scorer.score`."""
        inputs = self._processor(
            [pair.made.numpy() for pair in pairs],
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
            return_attention_mask=True,
        ).to(self._model.device)
        languages = [
            self._languages[number]
            for number in self._model.detect_language(
                inputs.input_features
            ).tolist()
        ]
        tokens = self._model.generate(
            **inputs, language=languages, task="transcribe", do_sample=False
        )
        texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [
            self._compare(pair, language, text.strip())
            for pair, language, text in zip(
                pairs, languages, texts, strict=True
            )
        ]

    def _compare(self, pair, language, text):
        scores = {"heard_language": language, "heard_text": text}
        if pair.language in WHISPER_CODES:
            agrees = language == WHISPER_CODES[pair.language]
            scores["language_agrees"] = int(agrees)
        if pair.text and len(pair.made) <= LONGEST * SAMPLE_RATE:
            scores |= error_rates(pair.text, text, pair.language)
        return scores


def error_rates(text, heard, language):
    """How far what was heard is from a text.

    Arguments
    ---------
    text : str
        The reference.
    heard : str
        The hypothesis.
    language : str
        ISO 639-3.

    Returns
    -------
    dict
        ``wer`` and ``cer``, edits over the reference's words and characters;
        no ``wer`` in languages that are written without spaces, nothing for a
        reference without a word.

    Example
    -------
    >>> error_rates("Le train part.", "le train par", "fra")
    {'wer': 0.3333..., 'cer': 0.0769...}
    """
    normalize = BasicTextNormalizer()
    words, heard = normalize(text).split(), normalize(heard).split()
    if not words:
        return {}
    kinds = {"wer": (words, heard)}
    if language in WITHOUT_WORDS:
        # Where somebody puts a space is no part of the text.
        kinds = {"cer": (list("".join(words)), list("".join(heard)))}
    else:
        kinds["cer"] = (list(" ".join(words)), list(" ".join(heard)))
    return {
        name: accumulatable_wer_stats([reference], [hypothesis])["WER"] / 100
        for name, (reference, hypothesis) in kinds.items()
    }


class EmotionAgreement(Scorer):
    """Whether a recogniser hears the same emotion in both.

    It was trained on the source's language: what it says of another one is a
    measurement of both, the translator and the recogniser.

    Arguments
    ---------
    recognizer : str
        What a training left, or its name on the hub.
    device : str
        Where it runs.
    trusted : bool
        As for `EmotionRecognizer.from_hparams`.
    """

    columns = (
        "emotion_of_source",
        "emotion_of_translation",
        "emotion_agrees",
        "label_probability",
    )

    def __init__(self, recognizer, device="cpu", trusted=False):
        self._recognizer = EmotionRecognizer.from_hparams(
            recognizer, run_opts={"device": device}, trusted=trusted
        )
        # A source is met once in every language.
        self._heard = {}

    def settings(self):
        """As `Scorer.settings`."""
        described = self._recognizer.describe()
        return {**described, "labels": self._recognizer.labels()}

    def score(self, pairs):
        """As `Scorer.score`."""
        new = [pair for pair in pairs if pair.source["ID"] not in self._heard]
        if new:
            words, _ = self._recognize([pair.spoken for pair in new])
            for pair, word in zip(new, words, strict=True):
                self._heard[pair.source["ID"]] = word
        words, log_probs = self._recognize([pair.made for pair in pairs])
        labels = self._recognizer.labels()
        return [
            self._compare(pair, word, dict(zip(labels, probs, strict=True)))
            for pair, word, probs in zip(
                pairs, words, log_probs.exp().tolist(), strict=True
            )
        ]

    def _recognize(self, signals):
        wavs = pad_together(signals, -1)
        return self._recognizer.recognize_batch(wavs.data, wavs.lengths)

    def _compare(self, pair, word, probabilities):
        before = self._heard[pair.source["ID"]]
        scores = {
            "emotion_of_source": before,
            "emotion_of_translation": word,
            "emotion_agrees": int(before == word),
        }
        if pair.source["emotion"] in probabilities:
            label = pair.source["emotion"]
            scores["label_probability"] = probabilities[label]
        return scores
