"""The training loop of both stages; the YAML makes the difference."""

import math

import torch
import torch.nn.functional as F
from speechbrain import Stage
from torch import nn

from speechbrain_mser.dataio.cached_encoding import encode_batch
from speechbrain_mser.distributed import gather_ranks, sum_over_ranks
from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.metrics import emotion_metrics
from speechbrain_mser.finite import NO_SCORE, finite_rows
from speechbrain_mser.lobes.alignment import exchange_rests, shift_features
from speechbrain_mser.lobes.connector import Connected
from speechbrain_mser.termination import Terminated
from speechbrain_mser.training.loop import TrainingLoop
from speechbrain_mser.training.statistics import (
    align_corpora,
    align_speakers,
    estimate_emotion_means,
    estimate_statistics,
)
from speechbrain_mser.training.terms import Term


class EmotionBrain(TrainingLoop):
    """Trains a connector between a frozen encoder and a frozen LLM.

    The loss is the paper's Eq. 2 and 3, ``L_lec + lambda * L_ce``. Stage 1
    and stage 2 differ in their data and in what the connector starts from. A
    class of one's own adds terms to it in `compute_terms`.

    Needs ``modules`` with "encoder", "connector" and "llm". Further ones are
    optimised and saved in checkpoints too; the exported recogniser does not
    have them. ``hparams`` has:

    contrastive_loss : callable
        ``(embeddings, labels) -> scalar``: `EmotionContrastiveLoss`, or any
        loss of pytorch-metric-learning. If it has parameters they are
        trained.
    ce_weight : float
        lambda.
    label_words : str or list of str
        The emotions of the data, and the candidates in validation: words, or
        the name of a set.
    lr, warmup, cooldown : float
        Learning rate, and the parts of the training over which it rises from
        zero and falls back to it.
    on_bad_utterance : str
        "skip" reports an utterance that cannot be read and goes on, "stop"
        ends the run.
    epoch_counter : speechbrain.utils.epoch_loop.EpochCounter
        With the number of epochs.

    and may have, beside `OPTIONAL`'s values:

    statistics_utterances : int
        On how many training utterances the features' mean and standard
        deviation are estimated.
    align_corpora : bool
        Whether each training corpus is moved to the mean and deviation of all
        together (`CorpusAlignment`).
    align_speakers : bool
        Whether what is each training speaker's own is taken out in training
        (`SpeakerAlignment`).
    rest_exchange : float
        How much of what another utterance of the batch has beside its emotion
        is added to each in training (`exchange_rests`); 0 for nothing.
    microphone_shift : float
        By how much, in standard deviations, each training utterance's
        features are moved at random (`shift_features`); 0 for not at all.
    start_at_words : bool
        Whether a connector that was never trained starts with tokens around
        the LLM's own embeddings of the labels.
    emotion_means : bool
        Whether the mean of each emotion's features goes with the connector:
        what was heard of a speaker is told from what was said by it.
    word_weight : float
        What the nearness of the tokens to the right label word counts
        (`EmotionLLaMA.nearness`); 0 for not at all.
    epochs_before_llm : int
        In how many epochs, the first, the LLM's loss is left out.
    frozen_models : str
        What becomes of other frozen models than the connector was trained
        with: "strict" refuses them, "warn" goes on.
    terminate_within : float
        Seconds after SIGTERM in which the step is to be finished and saved.
    feature_store : FeatureStore
        The one that the datasets were made with.
    untrained_words : list of str
        Of the label words, those that no training utterance has.
    train_logger, tensorboard_logger : EpochLog, Curves
        Where terms and metrics go.
    log_interval_steps : int
        Optimiser steps between two points of the curves within an epoch; 0
        for none.
    export : callable
        Called with ``(connector, llm)`` whenever validation UA is the best
        so far.
    """

    OPTIONAL = TrainingLoop.OPTIONAL | {
        "statistics_utterances": 1000,
        "align_corpora": False,
        "align_speakers": False,
        "rest_exchange": 0.0,
        "microphone_shift": 0.0,
        "start_at_words": False,
        "emotion_means": False,
        "word_weight": 0.0,
        "epochs_before_llm": 0,
        "frozen_models": "strict",
        "feature_store": None,
        "untrained_words": (),
    }

    def __init__(
        self,
        modules,
        opt_class=None,
        hparams=None,
        run_opts=None,
        checkpointer=None,
    ):
        loss = hparams["contrastive_loss"]
        if isinstance(loss, nn.Module) and list(loss.parameters()):
            modules = {**modules, "contrastive_loss": loss}
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        self.label_words = list(candidate_labels(self.hparams.label_words))
        never = {*self.hparams.untrained_words}
        self.trained = [w for w in self.label_words if w not in never]
        self.alignment, self.voices = None, None
        self._scores = None

    # What is computed

    def compute_forward(self, batch, stage):
        """Connect a batch that `is_encoded`.

        Returns
        -------
        Connected
            What the connector makes of it.
        """
        features, lens = batch.features
        if self.alignment is not None:
            features = self.alignment(features, batch.corpus)
        # Not in validation: what is exported does not know them.
        if stage == Stage.TRAIN and self.voices is not None:
            features = self.voices(features, batch.corpus, batch.speaker)
        if stage == Stage.TRAIN and self.hparams.rest_exchange > 0:
            features = exchange_rests(
                features, lens, batch.emotion, self.hparams.rest_exchange
            )
        if stage == Stage.TRAIN and self.hparams.microphone_shift > 0:
            deviation = self.raw("connector").standardizer.std
            features = shift_features(
                features, deviation, self.hparams.microphone_shift
            )
        return Connected(*self.modules.connector(features, lens))

    def encode(self, batch):
        """The frozen encoder's features, from the store where it has them."""
        # In the encoder's own dtype: features must not depend on whether it
        # is training or the statistics' estimation that asks for them.
        with torch.autocast(torch.device(self.device).type, enabled=False):
            return encode_batch(
                batch,
                self.modules.encoder,
                self.hparams.feature_store,
                on_bad=self.leave_out,
            )

    def compute_terms(self, predictions, batch, stage):
        """The terms of the loss; here Eq. 2 and 3.

        A class of one's own adds to what its parent returns; each term is
        logged by its name.

        Arguments
        ---------
        predictions : Connected
            Of `compute_forward`.
        batch : UtteranceBatch
            With the manifest's columns as attributes: ``batch.gender``.
        stage : speechbrain.Stage
            TRAIN or VALID.

        Returns
        -------
        dict
            Name to `Term`, the same names for every batch of an epoch.
        """
        words = batch.emotion
        labels = torch.tensor(
            [self.label_words.index(word) for word in words],
            device=predictions.tokens.device,
        )
        terms = {
            "contrastive": Term(
                self._contrast(predictions.pooled, labels, stage)
            )
        }
        llm, weight = self.raw("llm"), self.hparams.word_weight
        if weight > 0:
            nearness = llm.nearness(predictions.tokens, self.label_words)
            terms["word"] = Term(F.nll_loss(nearness, labels), weight)
        if predictions.meaning is not None:
            odds = llm.meaning_odds(predictions.meaning, self.label_words)
            if stage == Stage.TRAIN:
                # What is never said is not learned to be never meant.
                for number, word in enumerate(self.label_words):
                    if word not in self.trained:
                        odds[:, number] = -math.inf
            terms["meaning"] = Term(F.cross_entropy(odds, labels))
        if stage == Stage.TRAIN:
            epoch = self.hparams.epoch_counter.current
            if epoch <= self.hparams.epochs_before_llm:
                return terms
            cross_entropy = self.modules.llm(
                predictions.tokens, words, self.label_words
            )
        else:
            cross_entropy = self._predict(self._scores, labels, words)
        n_tokens = llm.count_tokens(words)
        terms["ce"] = Term(cross_entropy, self.hparams.ce_weight, n_tokens)
        return terms

    def _contrast(self, embeddings, labels, stage):
        """The contrastive loss, of all processes' utterances together."""
        name = "contrastive_loss"
        # Wrapped by DDP where it is trained.
        loss = getattr(self.modules, name, self.hparams.contrastive_loss)
        # In float32: half precision cannot tell apart what is nearly alike.
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            # In validation every process sees all utterances.
            if stage == Stage.TRAIN:
                embeddings, labels = gather_ranks(embeddings, labels)
            return loss(embeddings, labels)

    def _score(self, predictions, batch):
        """All candidates' scores; what is not finite is set aside by name.

        Returns what is left of the predictions, and their scores, ``[batch,
        labels]``.
        """
        tokens, pooled, meaning = predictions
        # As the recogniser will.
        scores = self.raw("llm").score(
            tokens, self.label_words, meaning, self.trained
        )
        good = finite_rows(torch.cat([scores, pooled.to(scores)], dim=-1))
        batch.set_aside(
            {row: NO_SCORE for row, ok in enumerate(good) if not ok}
        )
        self.leave_out.of_batch(batch)
        good = torch.tensor(good, device=scores.device)
        if meaning is not None:
            meaning = meaning[good]
        return Connected(tokens[good], pooled[good], meaning), scores[good]

    def _predict(self, scores, labels, words):
        """Note the predictions of a batch; its cross entropy comes with them.

        The scores of all candidates hold the right one's, so the LLM needs
        not be asked again for the loss.
        """
        self.references += words
        self.predictions += [
            self.label_words[i] for i in scores.argmax(-1).tolist()
        ]
        right = scores.gather(1, labels[:, None])
        return -right.sum() / self.raw("llm").count_tokens(words)

    def term_shares(self, batches):
        """Each batch's label tokens, where the mean batch's are 1."""
        if len(batches) == 1:
            return [{}]
        llm = self.raw("llm")
        counts = [llm.count_tokens(batch.emotion) for batch in batches]
        counts = torch.tensor(counts, dtype=torch.float32, device=self.device)
        counts = sum_over_ranks(counts)
        return [{"ce": share} for share in counts / counts.mean()]

    # Bad input

    def is_encoded(self, batch):
        """Encode what could be read of a batch; is there anything left?

        Arguments
        ---------
        batch : UtteranceBatch
            Any batch; gets ``features``, the encoder's and their lengths.

        Returns
        -------
        bool
            Whether the batch holds an utterance.

        Raises
        ------
        InputError
            An utterance is bad and ``on_bad_utterance`` is "stop".
        """
        if not self.leave_out.of_batch(batch):
            return False
        batch.features = self.encode(batch.to(self.device))
        return len(batch) > 0

    def evaluate_batch(self, batch, stage):
        """Evaluate what could be read and scored of a batch."""
        self._end_if_asked()
        if not self.is_encoded(batch):
            self.refuse_where_distributed(batch)
            return torch.zeros(())
        with self.evaluation_ctx:
            predictions = self.compute_forward(batch, stage)
            predictions, self._scores = self._score(predictions, batch)
            if not len(batch):
                return torch.zeros(())
            return self.compute_objectives(predictions, batch, stage).cpu()

    # Before and after

    def on_fit_start(self):
        """Recover a checkpoint, else estimate the features' statistics."""
        connector = self.raw("connector")
        for name in (
            "align_speakers",
            "microphone_shift",
            "start_at_words",
            "emotion_means",
        ):
            if getattr(self.hparams, name) and connector.standardizer is None:
                raise InputError(
                    f"{name} needs the training features' statistics, and "
                    "this connector does not know them (standardize: False)"
                )
        frozen = {
            "encoder": self.raw("encoder").describe(),
            "llm": self.raw("llm").describe(),
        }
        on_mismatch = self.hparams.frozen_models
        connector.bind(frozen, on_mismatch)
        super().on_fit_start()
        connector.bind(frozen, on_mismatch)
        standardizer = connector.standardizer
        heard = self._train_set, self._encode_unless_asked
        most, show = self.hparams.statistics_utterances, not self.noprogressbar
        how = *heard, most, show
        if standardizer is not None and not standardizer.fitted:
            estimate_statistics(standardizer, *how)
            if self.hparams.start_at_words:
                words = self.raw("llm").word_embeddings(self.label_words)
                connector.start_at(words.mean(0))
        if self.hparams.align_corpora:
            self.alignment = align_corpora(standardizer, *how)
        if self.hparams.align_speakers:
            self.voices = align_speakers(
                standardizer, self.alignment, *heard, show
            )
        if self.hparams.emotion_means and not connector.emotion_means:
            connector.emotion_means = estimate_emotion_means(
                standardizer, self.alignment, *how
            )

    def _encode_unless_asked(self, batch):
        """For statistics, before which there is nothing to save."""
        if self._deferral is not None and self._deferral.asked:
            raise Terminated
        return self.is_encoded(batch)

    def on_stage_start(self, stage, epoch=None):
        """Forget the last stage's answers, too."""
        super().on_stage_start(stage, epoch)
        self.references, self.predictions = [], []

    def validation_metrics(self):
        """How good the answers were: WA, UA and WF1, by name.

        Raises
        ------
        InputError
            There was none.
        """
        if not self.references:
            first = next(iter(self.leave_out.reasons.items()))
            raise InputError(
                "no utterance of the validation set can be read and "
                f"recognised (first: {': '.join(first)})"
            )
        metrics = emotion_metrics(
            self.references, self.predictions, self.label_words
        )
        return {name: metrics[name] for name in ("WA", "UA", "WF1")}
