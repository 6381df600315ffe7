"""Recognise emotions with a trained system."""

from functools import cached_property

import torch
from hyperpyyaml import resolve_references
from ruamel.yaml import YAML
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.fetching import FetchConfig
from speechbrain.utils.logger import get_logger

from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.devices import with_device
from speechbrain_mser.emotions import (
    candidate_labels,
    check_emotion_words,
    in_known_spelling,
    without_trained,
)
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation import calibration as calibrations
from speechbrain_mser.files.fingerprints import weights_digest
from speechbrain_mser.finite import NO_SCORE, NOT_FINITE, finite_rows
from speechbrain_mser.inference.adaptation import (
    KAPPA_MEAN,
    KAPPA_VARIANCE,
    Adaptation,
)
from speechbrain_mser.inference.batch_checks import (
    check_batch,
    check_path,
    check_rows,
)
from speechbrain_mser.inference.folder import (
    RELEASED,
    SETTINGS_FILE,
    build_recognizer,
    find_beside,
    find_folder,
    load_trusted,
    needs_trust,
    read_settings,
)
from speechbrain_mser.inference.heard_speech import HeardSpeech, listener_of
from speechbrain_mser.inference.publish import publish
from speechbrain_mser.inference.recordings import hear
from speechbrain_mser.inference.settings import override_settings
from speechbrain_mser.lobes.connector import Connected

logger = get_logger(__name__)


class EmotionRecognizer(Pretrained):
    """A trained system that says which emotion it hears.

    In the manner of SpeechBrain's ``EncoderDecoderASR``. Candidate labels are
    words: those of training by default, any others on request (zero-shot).

    Needs the modules "encoder", "connector" and "llm", and the
    hyperparameter ``label_words``; training leaves a folder with all of it.

    Example
    -------
    >>> recognizer = EmotionRecognizer.from_hparams("open")  # doctest: +SKIP
    >>> recognizer.recognize_file("speech.wav")  # doctest: +SKIP
    (['happy'], tensor([[-1.9, -0.3, -2.2, ...]]))
    >>> recognizer.recognize_file(
    ...     "speech.wav", labels=["bored", "excited"]
    ... )  # doctest: +SKIP
    (['excited'], tensor([[-1.2, -0.4]]))
    """

    MODULES_NEEDED = ["encoder", "connector", "llm"]
    HPARAMS_NEEDED = ["label_words"]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.source = self.folder = None
        self._calibration = None
        self._learned = _learned(
            {
                **vars(self.hparams),
                "emotion_words": self.mods.llm.emotion_words,
            }
        )
        self.forget()
        self.mods.connector.bind(
            {
                "encoder": self.mods.encoder.describe(),
                "llm": self.mods.llm.describe(),
            },
            # Absent in the folders of earlier versions
            getattr(self.hparams, "frozen_models", "strict"),
        )

    @classmethod
    def from_hparams(
        cls,
        source=RELEASED,
        hparams_file=SETTINGS_FILE,
        trusted=False,
        overrides=None,
        savedir=None,
        revision=None,
        fetch_config=None,
        download_only=False,
        overrides_must_match=True,
        local_strategy=None,
        **kwargs,
    ):
        """Load the released recogniser, or one that training left.

        What is loaded is the source's: its settings are read once, by a plain
        loader, and nothing that lies in ``savedir`` takes their place.

        Arguments
        ---------
        source : str or path-like
            "open", the released recogniser; a folder that training left, or
            its copy's name on the hub. A folder called open is ``./open``.
        hparams_file : str
            The file in it that says what the system is made of.
        trusted : bool
            Load HyperPyYAML, which may name code outside this package and can
            run anything: only for files that you wrote yourself.
        overrides : dict or str, optional
            Settings in place of the folder's, as a dict or as YAML:
            ``{"whisper_hub": ..., "llama_hub": ...}`` says where the frozen
            models are on this machine, ``pretrained_folder`` where their
            files from the hub are kept. The models must hold the weights of
            training; ``"frozen_models": "warn"`` goes on with others, such as
            another quantisation of the same LLM.
        savedir : str or path-like, optional
            Where files from the hub are kept; by default the hub's own cache.
        revision : str, optional
            The hub's branch, tag or commit.
        fetch_config : speechbrain.utils.fetching.FetchConfig, optional
            SpeechBrain's: revision, token, cache and network.
        download_only : bool
            Fetch and check, build nothing, and return None.
        overrides_must_match : bool
            As SpeechBrain's, where HyperPyYAML is trusted.
        local_strategy : speechbrain.utils.fetching.LocalStrategy, optional
            SpeechBrain's; nothing is linked or copied here.
        **kwargs : dict
            As for `speechbrain.inference.interfaces.Pretrained`: ``run_opts``
            and ``freeze_params``.

        Returns
        -------
        EmotionRecognizer
            Ready to recognise.

        Raises
        ------
        InputError
            A file is missing or damaged, a setting is none, the parameters
            belong to other frozen models, or HyperPyYAML is not trusted.
        """
        del local_strategy
        kwargs["run_opts"] = with_device(kwargs.get("run_opts"))
        fetch_config = fetch_config or FetchConfig()
        folder = find_folder(
            source,
            hparams_file,
            revision or fetch_config.revision,
            savedir or fetch_config.huggingface_cache_dir,
            fetch_config.token or None,
            not fetch_config.allow_network,
            everything=trusted,
        )
        path = folder / hparams_file
        if trusted and needs_trust(path):
            if download_only:
                return None
            learned = _learned_by_trusted(path)
            hparams = load_trusted(
                folder, hparams_file, overrides or {}, overrides_must_match
            )
        else:
            trained = read_settings(path)
            learned = _learned(trained)
            settings, own = override_settings(trained, overrides)
            if download_only:
                return None
            modules = build_recognizer(
                folder, settings, own["pretrained_folder"]
            )
            hparams = {**settings, **own, "modules": modules}
        recognizer = cls(hparams["modules"], hparams, **kwargs)
        recognizer.source, recognizer.folder = str(source), folder
        # What was trained is the folder's, whatever is asked for here.
        if learned is not None:
            recognizer._learned = learned
        return recognizer

    def encode_batch(self, wavs, wav_lens=None):
        """Embeddings of utterances: what the contrastive loss compares.

        Arguments
        ---------
        wavs : torch.Tensor
            ``[batch, time]``, 16 kHz mono.
        wav_lens : torch.Tensor, optional
            ``[batch]``, relative lengths.

        Returns
        -------
        torch.Tensor
            ``[batch, hidden]``.
        """
        return self._listen(wavs, wav_lens)[1]

    def recognize_batch(
        self, wavs, wav_lens=None, labels=None, calibration="none"
    ):
        """The most probable emotion of each utterance.

        Arguments
        ---------
        wavs : torch.Tensor
            ``[batch, time]``, 16 kHz mono.
        wav_lens : torch.Tensor, optional
            ``[batch]``, relative lengths.
        labels : str or list of str, optional
            The candidates: words, or the name of a set in
            `speechbrain_mser.emotions.LABEL_SETS`; by default the words of
            training.
        calibration : str
            What to take back of the probabilities, as measured on validation
            data: "none"; "temperature", which makes them as sure as they are
            right; "temperature+prior", also the model's liking for some
            words. See `load_calibration`.

        Returns
        -------
        words : list of str
            ``[batch]``.
        log_probs : torch.Tensor
            ``[batch, n_labels]``, in the order of ``labels``, normalised over
            them.

        Raises
        ------
        InputError
            No labels, repeated ones, or one without a token in the LLM; a
            calibration that there is not.
        """
        words = self.labels(labels)
        self._check_calibration(calibration)  # before anything is encoded
        features, lens = self._encode(wavs, wav_lens)
        return self.recognize_features(features, lens, words, calibration)

    @torch.no_grad()
    def recognize_features(
        self, features, lens, labels=None, calibration="none", adaptation=None
    ):
        """The most probable emotion, from the encoder's features.

        Arguments
        ---------
        features : torch.Tensor
            ``[batch, frames, dim]`` or ``[batch, layers, frames, dim]``, as
            the module "encoder" or a `FeatureStore` gives them.
        lens : torch.Tensor
            ``[batch]``, relative lengths.
        labels : str or list of str, optional
            The candidates, as for `recognize_batch`.
        calibration : str
            As for `recognize_batch`.
        adaptation : callable, optional
            What moves the features, in place of what was listened to.

        Returns
        -------
        words : list of str
            ``[batch]``.
        log_probs : torch.Tensor
            ``[batch, n_labels]``.
        """
        words = self.labels(labels)
        self._check_calibration(calibration)
        check_rows(finite_rows(features), NOT_FINITE)
        log_probs = self.score_features(features, lens, words, adaptation)
        check_rows((~log_probs.isnan().any(-1)).tolist(), NO_SCORE)
        if calibration != "none":
            fitted, said = self.load_calibration(), self.as_said(words)
            log_probs = fitted.apply(
                log_probs, said, calibration, self.meant_words(said)
            )
        return [words[i] for i in log_probs.argmax(-1).tolist()], log_probs

    @torch.no_grad()
    def score_features(self, features, lens, labels=None, adaptation=None):
        """How probable each emotion is, from the encoder's features.

        Arguments
        ---------
        features, lens, labels, adaptation
            As for `recognize_features`.

        Returns
        -------
        torch.Tensor
            ``[batch, n_labels]``, log-probabilities normalised over the
            labels. NaN for an utterance of which the model's numbers are not
            finite: it has no most probable emotion.
        """
        said = self.as_said(self.labels(labels))
        heard = self._connect(features, lens, adaptation)
        trained = self.trained_words()
        scores = self.mods.llm.score(heard.tokens, said, heard.meaning, trained)
        return scores.log_softmax(-1)

    @torch.no_grad()
    def guess_features(self, features, lens, labels=None):
        """As `score_features`, from what is known before the LLM has read.

        Where the LLM reads mixtures of words, their weights are that: seldom
        another word, at next to no cost. Else it is asked.

        Arguments
        ---------
        features, lens, labels
            As for `score_features`.

        Returns
        -------
        torch.Tensor
            ``[batch, n_labels]``, log-probabilities.
        """
        if not self.mods.llm.token_mixture:
            return self.score_features(features, lens, labels)
        said = self.as_said(self.labels(labels))
        heard = self._connect(features, lens)
        trained = self.trained_words()
        return self.mods.llm.nearness(
            heard.tokens, said, heard.meaning, trained
        )

    def recognize_file(self, path, labels=None, calibration="none"):
        """The most probable emotion of a recording.

        Any rate and number of channels. Audio longer than encoder_window is
        encoded in windows and recognised as a whole; beyond an hour it is
        refused.

        Arguments
        ---------
        path : str or path-like
            The audio file.
        labels : str or list of str, optional
            The candidates, as for `recognize_batch`.
        calibration : str
            As for `recognize_batch`.

        Returns
        -------
        words : list of str
            One word.
        log_probs : torch.Tensor
            ``[1, n_labels]``.

        Raises
        ------
        InputError
            The file cannot be used, or the labels cannot, or the calibration.
        """
        check_path(path, "recognize_batch takes signals")
        labels = self.labels(labels)  # before a long file is read in vain
        self._check_calibration(calibration)
        return self.recognize_batch(
            self.load_audio(path)[None], labels=labels, calibration=calibration
        )

    def timeline(self, source, labels=None, **settings):
        """Who felt what and when in a recording of any length.

        Arguments
        ---------
        source : path-like, array, tensor, bytes, open file or iterable
            The recording, as for
            `speechbrain_mser.timeline.whole.make_timeline`.
        labels : str or list of str, optional
            The candidates, as for `recognize_batch`.
        **settings : dict
            More of `make_timeline`'s: ``speakers``, ``window``, ``listen``.

        Returns
        -------
        speechbrain_mser.timeline.segments.Timeline
            Segments with start, end, speaker and probabilities.
        """
        # A way in, for users; all else here knows nothing of timelines.
        from speechbrain_mser.timeline.whole import make_timeline

        return make_timeline(self, source, labels, **settings)

    def push_to_hub(self, repo_id, **settings):
        """Publish it: from now on `from_hparams` finds it by its name there.

        What is pushed is its folder, with frozen models by the names that
        others have them by, and a card: its own README.md, or one that is
        written of what the training has noted. It is one commit.

        Arguments
        ---------
        repo_id : str
            The name on the hub, ``user/name``; made when missing.
        **settings : dict
            ``private`` (bool), whether nobody else sees it; ``token`` (str),
            by default the one of ``hf auth login``; ``revision`` (str), a
            branch other than main; ``commit_message`` (str); ``license``
            (str), an identifier of the hub's, such as "cc-by-nc-4.0";
            ``evaluation`` (path-like), the folder that evaluate.py wrote,
            whose figures go into the card.

        Returns
        -------
        str
            The commit's address.

        Raises
        ------
        InputError
            The hub does not take it, a frozen model is a folder of this
            machine, or the evaluation is another recogniser's.

        Example
        -------
        >>> recognizer.push_to_hub(
        ...     "me/emotions", evaluation="results/evaluate"
        ... )  # doctest: +SKIP
        'https://huggingface.co/me/emotions/commit/...'
        """
        return publish(self, repo_id, **settings)

    def export_onnx(self, folder):
        """Write all up to the LLM as ONNX, for those without torch.

        ``encoder.onnx`` makes features of signals, its front end and windows
        included; ``connector.onnx`` makes of features what the LLM reads. What
        was listened to is what they standardise with, unless another mean and
        deviation are given. ``recognizer.json`` says their inputs and outputs,
        and what the LLM needs. Where the LLM reads mixtures of words, their
        weights come out too: seldom another answer than the LLM's.

        Arguments
        ---------
        folder : str or path-like
            Where to; an export that is there is replaced, and its encoder
            kept if it is this one.

        Raises
        ------
        InputError
            The encoder is no Whisper, computes in half precision, or is not
            on the CPU; the exporter is not installed.

        Example
        -------
        >>> recognizer.export_onnx("onnx")  # doctest: +SKIP
        """
        # A way out, for users; all else here knows nothing of ONNX.
        from speechbrain_mser.inference.onnx_export import export_onnx

        export_onnx(self, folder)

    def generate_batch(self, wavs, wav_lens=None, max_new_tokens=8):
        """What the LLM says when it is free to say anything.

        Arguments
        ---------
        wavs : torch.Tensor
            ``[batch, time]``, 16 kHz mono.
        wav_lens : torch.Tensor, optional
            ``[batch]``, relative lengths.
        max_new_tokens : int
            Where to stop if it does not.

        Returns
        -------
        list of str
            ``[batch]``.
        """
        if not max_new_tokens >= 1:
            raise InputError(
                f"max_new_tokens is {max_new_tokens!r}, expected 1 or more"
            )
        tokens, _ = self._listen(wavs, wav_lens)
        return self.mods.llm.generate(tokens, max_new_tokens, self.labels())

    def forward(self, wavs, wav_lens=None):
        """The same as `recognize_batch`."""
        return self.recognize_batch(wavs, wav_lens)

    def labels(self, labels=None):
        """The candidates, checked; the words of training by default."""
        if labels is None:
            labels = self.hparams.label_words
        return list(candidate_labels(labels))

    def as_said(self, words):
        """Candidates by the names of training.

        Arguments
        ---------
        words : list of str
            As they are asked for.

        Returns
        -------
        list of str
            "Angry" is "angry", and so is "wütend" where that is said for it.

        Raises
        ------
        InputError
            Two of them are said alike.
        """
        by_word = {w: label for label, w in self.mods.llm.emotion_words.items()}
        known = [*self._learned, *by_word.values()]
        known += in_known_spelling(self.labels(), [*known, *by_word])
        words = in_known_spelling(words, [*known, *by_word])
        check_emotion_words(self.mods.llm.emotion_words, words)
        return [
            word if word in known else by_word.get(word, word) for word in words
        ]

    def trained_words(self):
        """The words of which there were training utterances.

        Returns
        -------
        set of str
            Words that training had the LLM say, and labels for which it says
            one of them; all others are zero-shot.
        """
        says, said = self.mods.llm.emotion_words, {*self._learned.values()}
        return {
            label
            for label in (*self._learned, *said, *says, *self.labels())
            if not without_trained([says.get(label, label)], said)
        }

    def meant_words(self, labels=None):
        """Candidates whose probability is their meaning's, not the LLM's.

        Arguments
        ---------
        labels : str or list of str, optional
            The candidates, as for `recognize_batch`.

        Returns
        -------
        set of str
            Those that were never trained, where the connector hears meaning.
        """
        if getattr(self.mods.connector, "meaning", None) is None:
            return set()
        words = self.labels(labels)
        said = self.as_said(words)
        new = {*without_trained(said, self.trained_words())}
        return {w for w, s in zip(words, said, strict=True) if s in new}

    def load_calibration(self):
        """What was measured on validation data, beside the connector.

        Returns
        -------
        speechbrain_mser.evaluation.calibration.Calibration
            Read once.

        Raises
        ------
        InputError
            There is none, or it was fitted with another connector or prompt,
            whose probabilities were others.
        """
        if self._calibration is None:
            path = self.folder and find_beside(self.folder, calibrations.FILE)
            self._calibration = calibrations.load_fitted(
                path, self.source, self.describe()
            )
        return self._calibration

    def usual_calibration(self, labels=None):
        """What to take back of probabilities where nobody says: a temperature.

        It makes them as sure as they are right, and changes no answer.

        Arguments
        ---------
        labels : str or list of str, optional
            The candidates, as for `recognize_batch`.

        Returns
        -------
        str
            For ``recognize_batch`` and others: "temperature"; "none" where the
            recogniser was not calibrated, or a candidate is a word that was
            never trained, whose probability a temperature is not fitted to.
        """
        path = self.folder and find_beside(self.folder, calibrations.FILE)
        if not path or not path.is_file() or self.meant_words(labels):
            return "none"
        try:
            self.load_calibration()
        except InputError as error:
            logger.warning("probabilities are not calibrated: %s", error)
            return "none"
        return "temperature"

    def listen(self, recordings):
        """Get to know a microphone, a room or a speaker; no label is needed.

        From now on utterances are moved to the mean and deviation of the
        training as if all came from there: a few utterances are most of what
        that needs. Listening again adds to what was heard, and the training's
        statistics go on to count for what `adapt` was told, if it was.

        Arguments
        ---------
        recordings : path-like, torch.Tensor, numpy.ndarray, or list of them
            Files of any rate and number of channels, or signals ``[time]`` at
            16 kHz, mono; an utterance each. Bad ones are logged by name and
            left out.

        Returns
        -------
        HeardSpeech
            All that was heard; save it, and load and `adapt` to it again.

        Raises
        ------
        InputError
            None of them can be heard, or the recogniser was trained without
            standardisation. It goes on as before.

        Example
        -------
        >>> heard = recognizer.listen(["a.wav", "b.wav"])  # doctest: +SKIP
        >>> recognizer.recognize_file("c.wav")  # doctest: +SKIP
        (['sad'], tensor([[-2.1, -1.9, -0.4, ...]]))
        >>> heard.save("room.safetensors")  # doctest: +SKIP
        """
        heard = hear(recordings, self._encode, self.listener)
        if self.heard is not None:
            heard = self.heard + heard
        self.adapt(heard, *self.kappas)
        return self.heard

    def adapt(
        self, heard, kappa_mean=KAPPA_MEAN, kappa_variance=KAPPA_VARIANCE
    ):
        """Recognise as after listening to this, and nothing else.

        Arguments
        ---------
        heard : HeardSpeech or path-like
            What `listen` returned, or the file that it was saved to.
        kappa_mean, kappa_variance : float
            How many utterances the training's statistics count for beside
            them, see `speechbrain_mser.inference.adaptation`.

        Raises
        ------
        InputError
            Another recogniser heard it, or this one was trained without
            standardisation. It goes on as before.
        """
        if not isinstance(heard, HeardSpeech):
            check_path(heard, "listen takes recordings")
            heard = HeardSpeech.load(heard)
        heard.check_listener(self.listener)
        adaptation = Adaptation(
            self.mods.connector.standardizer, heard, kappa_mean, kappa_variance
        )
        self.heard, self.kappas = heard, (kappa_mean, kappa_variance)
        # Nothing heard is nothing moved, to the last bit.
        self.adaptation = adaptation if heard.utterances else None

    def forget(self):
        """Take utterances as they come, as before any `listen`."""
        self.heard = self.adaptation = None
        self.kappas = KAPPA_MEAN, KAPPA_VARIANCE

    @cached_property
    def listener(self):
        """Whose features are heard here; see `heard_speech.listener_of`."""
        return listener_of(self.mods.encoder, self.mods.connector)

    def describe(self):
        """What log-probabilities depend on, as a calibration notes it.

        Returns
        -------
        dict
            "connector", the digest of its weights, "prompt", and those of
            "prompt_before", "chat_template", "token_mixture" and
            "emotion_words" that are not as by default.
        """
        described = {
            "connector": weights_digest(self.mods.connector),
            "prompt": self.mods.llm.prompt,
        }
        for name in (
            "prompt_before",
            "chat_template",
            "token_mixture",
            "emotion_words",
        ):
            if value := getattr(self.mods.llm, name):
                described[name] = value
        return described

    def _check_calibration(self, calibration):
        calibrations.check_mode(calibration)
        if calibration != "none":
            self.load_calibration()

    def load_audio(self, path, savedir=None):
        """Read a file as 16 kHz mono; see `speechbrain_mser.dataio.audio`."""
        del savedir  # the parent's, for audio from the network
        return load_audio(path).to(self.device)

    @torch.no_grad()
    def _connect(self, features, lens, adaptation=None):
        """What the connector makes of a batch's features: `Connected`."""
        features = features.to(self.device)
        adaptation = adaptation or self.adaptation
        if adaptation is not None:
            features = adaptation(features)
        with self.inference_ctx:
            return Connected(
                *self.mods.connector(features, lens.to(self.device))
            )

    def _listen(self, wavs, wav_lens):
        """Those of a batch's signals, checked."""
        tokens, embeddings, _ = self._connect(*self._encode(wavs, wav_lens))
        check_rows(finite_rows(tokens), NO_SCORE)
        check_rows(finite_rows(embeddings), NO_SCORE)
        return tokens, embeddings

    @torch.no_grad()
    def _encode(self, wavs, wav_lens=None):
        """The encoder's features of a batch, checked."""
        if wav_lens is None:
            wav_lens = torch.ones(len(wavs))
        check_batch(wavs, wav_lens)
        wavs = wavs.to(self.device).float()
        wav_lens = wav_lens.to(self.device).float()
        features, lens = self.mods.encoder(wavs, wav_lens)
        check_rows(finite_rows(features), NOT_FINITE)
        return features, lens


def _learned_by_trusted(path):
    """The same of HyperPyYAML; None where it does not say by itself."""
    try:
        with open(path, encoding="utf-8") as file:
            return _learned(YAML().load(resolve_references(file)))
    except (ValueError, KeyError):
        return None


def _learned(settings):
    """Label to the word that training had the LLM say for it."""
    said = settings.get("emotion_words") or {}
    untrained = settings.get("untrained_words") or ()
    labels = candidate_labels(settings["label_words"])
    return {
        str(label): str(said.get(label, label))
        for label in labels
        if label not in untrained
    }
