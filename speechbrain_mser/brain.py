"""The training loop of both stages; the YAML makes the difference."""

import math

import torch
from speechbrain import Brain, Stage
from speechbrain.nnet.schedulers import WarmCoolDecayLRSchedule
from speechbrain.utils.distributed import get_rank, if_main_process
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_mser.dataio.bad_utterances import BadUtterances
from speechbrain_mser.dataio.batching import UtteranceBatch, collate
from speechbrain_mser.dataio.cached_encoding import NO_SCORE, encode_batch
from speechbrain_mser.dataio.loader_workers import (
    named_failures,
    outlive_termination,
)
from speechbrain_mser.distributed import (
    sum_over_ranks,
    union_over_ranks,
    world_size,
)
from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError
from speechbrain_mser.evaluation.metrics import emotion_metrics
from speechbrain_mser.finite import finite_rows
from speechbrain_mser.lobes.alignment import CorpusAlignment
from speechbrain_mser.termination import Terminated, deferred
from speechbrain_mser.training.checkpoints import RandomState
from speechbrain_mser.training.epoch_sums import TrainingSums

logger = get_logger(__name__)


class EmotionBrain(Brain):
    """Trains a connector between a frozen encoder and a frozen LLM.

    The loss is the paper's Eq. 2 and 3, ``L_lec + lambda * L_ce``. Stage 1
    and stage 2 differ in their data and in what the connector starts from.

    Needs ``modules`` with "encoder", "connector" and "llm", and ``hparams``
    with:

    contrastive_loss : EmotionContrastiveLoss
    ce_weight : float
        lambda.
    label_words : str or list of str
        The emotions of the data, and the candidates in validation: words, or
        the name of a set.
    lr, warmup, cooldown : float
        Learning rate, and the parts of the training over which it rises from
        zero and falls back to it.
    statistics_utterances : int
        On how many training utterances the features' mean and standard
        deviation are estimated.
    align_corpora : bool, optional
        Whether each training corpus is moved to the mean and deviation of all
        together (`CorpusAlignment`).
    on_bad_utterance : str
        "skip" reports an utterance that cannot be read and goes on, "stop"
        ends the run.
    frozen_models : str, optional
        What becomes of other frozen models than the connector was trained
        with: "strict" refuses them, "warn" goes on.
    terminate_within : float, optional
        Seconds after SIGTERM in which the step is to be finished and saved; 25
        by default.
    feature_store : FeatureStore, optional
        The one that the datasets were made with.
    epoch_counter, train_logger : speechbrain objects
    tensorboard_logger : Curves, optional
    log_interval_steps : int, optional
        Optimiser steps between two points of the curves within an epoch; 0,
        the default, for none.
    export : callable, optional
        Called with ``(connector, llm)`` whenever validation UA is the best
        so far.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        _check_precision(self.precision, self.modules)
        self.label_words = list(candidate_labels(self.hparams.label_words))
        self.sums = TrainingSums()
        self.leave_out = BadUtterances(
            self.hparams.on_bad_utterance, self.sums.bad
        )
        self._deferral = None
        self._train_set = None
        self._validates = True
        self._schedule = None
        self.alignment = None
        self.terms, self.recent = {}, {}
        self._epoch_length = None
        self._waiting, self._loss, self._ce_share = [], torch.zeros(()), 1.0
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable(
                "random_state", RandomState(), optional_load=True
            )
            self.checkpointer.add_recoverable(
                "sums", self.sums, optional_load=True
            )

    def raw(self, name):
        """A module without DDP's wrapping, for methods other than forward."""
        module = self.modules[name]
        return getattr(module, "module", module)

    # What is computed

    def compute_forward(self, batch, stage):
        """Connect a batch that `is_encoded`.

        Returns
        -------
        tokens : torch.Tensor
            ``[batch, n_queries, LLM width]``.
        pooled : torch.Tensor
            ``[batch, hidden]``.
        """
        del stage
        features, lens = batch.features
        if self.alignment is not None:
            features = self.alignment(features, batch.corpus)
        return self.modules.connector(features, lens)

    def encode(self, batch):
        """The frozen encoder's features, from the store where it has them."""
        store = getattr(self.hparams, "feature_store", None)
        # In the encoder's own dtype: features must not depend on whether it
        # is training or the statistics' estimation that asks for them.
        with torch.autocast(torch.device(self.device).type, enabled=False):
            return encode_batch(
                batch, self.modules.encoder, store, on_bad=self.leave_out
            )

    def compute_objectives(self, predictions, batch, stage):
        """Eq. 2 and 3: the contrastive loss plus lambda times the LLM's."""
        tokens, pooled = predictions
        scores = None
        if stage != Stage.TRAIN:
            scores, pooled = self._score(tokens, pooled, batch)
            if not len(batch):
                return torch.zeros(())
        emotions = torch.tensor(
            [self.label_words.index(word) for word in batch.emotion],
            device=tokens.device,
        )
        contrastive = self.hparams.contrastive_loss(
            pooled, emotions, across_ranks=stage == Stage.TRAIN
        )
        if stage == Stage.TRAIN:
            cross_entropy = self.modules.llm(tokens, batch.emotion)
        else:
            cross_entropy = self._predict(scores, emotions, batch.emotion)
        # In a mean each counts with what it is itself a mean over.
        n_tokens = self.raw("llm").count_tokens(batch.emotion)
        self._remember("contrastive", contrastive, len(batch))
        self._remember("ce", cross_entropy, n_tokens)
        share = self._ce_share if stage == Stage.TRAIN else 1.0
        return contrastive + self.hparams.ce_weight * share * cross_entropy

    def _score(self, tokens, pooled, batch):
        """All candidates' scores; what is not finite is set aside by name."""
        scores = self.raw("llm").score(tokens, self.label_words)
        good = finite_rows(torch.cat([scores, pooled.to(scores)], dim=-1))
        batch.set_aside(
            {row: NO_SCORE for row, ok in enumerate(good) if not ok}
        )
        self.leave_out.of_batch(batch)
        good = torch.tensor(good, device=scores.device)
        return scores[good], pooled[good]

    def _predict(self, scores, emotions, words):
        """Note the predictions of a batch; its cross entropy comes with them.

        The scores of all candidates hold the right one's, so the LLM needs
        not be asked again for the loss.
        """
        self.references += words
        self.predictions += [
            self.label_words[i] for i in scores.argmax(-1).tolist()
        ]
        right = scores.gather(1, emotions[:, None])
        return -right.sum() / self.raw("llm").count_tokens(words)

    def _remember(self, name, value, weight):
        """Add to a stage's mean; on the device, without waiting for it."""
        for terms in (self.terms, self.recent):
            total, count = terms.get(name, (0.0, 0))
            terms[name] = (total + value.detach() * weight, count + weight)

    def _means(self, terms):
        """The means over the batches of all processes, and their loss."""
        means = {}
        for name, (total, count) in terms.items():
            part = total.new_tensor([float(total), count], dtype=torch.float64)
            total, count = sum_over_ranks(part).tolist()
            means[name] = total / count
        if means:
            weight = self.hparams.ce_weight
            means["loss"] = means["contrastive"] + weight * means["ce"]
        return means

    # A step

    def fit_batch(self, batch):
        """Train on what could be read, as soon as a step's batches are there.

        They wait for each other: the LLM's loss is the mean over the label
        tokens of all of them, which have to be counted first. An epoch's last
        step may have fewer.
        """
        if self.is_encoded(batch):
            self._waiting.append(batch)
        else:
            self._refuse_where_distributed(batch)
        is_due = self.step % self.grad_accumulation_factor == 0
        if self._waiting and (is_due or self.step == self._epoch_length):
            batches, self._waiting = self._waiting, []
            self._train_on(batches)
        return self._loss

    def _train_on(self, batches):
        """One optimiser step, as on one batch but for the pairs of Eq. 1."""
        shares, n = self._ce_shares(batches), len(batches)
        loss = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, 1):
            self.on_fit_batch_start(batch, number == n)
            self._ce_share = shares[number - 1]
            with self.no_sync(number < n):
                with self.training_ctx:
                    outputs = self.compute_forward(batch, Stage.TRAIN)
                    part = self.compute_objectives(outputs, batch, Stage.TRAIN)
                scaled = self.scaler.scale(part / n)
                self.check_loss_isfinite(scaled)
                scaled.backward()
            loss += part.detach() / n
            if number == n:
                self.optimizers_step()
                self._draw_step()
            self.on_fit_batch_end(batch, outputs, part, number == n)
        self._loss = loss.cpu()

    def _draw_step(self):
        """Now and then, what the steps since the last time were."""
        interval = getattr(self.hparams, "log_interval_steps", 0)
        curves = getattr(self.hparams, "tensorboard_logger", None)
        if curves is None or not interval or self.optimizer_step % interval:
            return
        means = self._means(self.recent)
        means["lr"] = self.optimizer.param_groups[0]["lr"]
        curves.log_step(self.optimizer_step, means)
        self.recent = {}

    def _ce_shares(self, batches):
        """Each batch's label tokens, where the mean batch's are 1."""
        if len(batches) == 1:
            return [1.0]
        llm = self.raw("llm")
        counts = [llm.count_tokens(batch.emotion) for batch in batches]
        counts = torch.tensor(counts, dtype=torch.float32, device=self.device)
        counts = sum_over_ranks(counts)
        return counts / counts.mean()

    def check_loss_isfinite(self, loss):
        """Stop at a loss that is no number.

        SpeechBrain's warns three times, and by then has stepped: all weights
        are NaN.

        Raises
        ------
        InputError
            It is NaN or infinite, though no utterance's features are.
        """
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss is {loss.item()} in step {self.optimizer_step + 1}, "
                "of features that are all finite: the training diverges; lower "
                "lr, or set precision to fp32 or bf16; it can go on from its "
                "last checkpoint"
            )

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
        """Evaluate what could be read of a batch."""
        if stage == Stage.VALID:
            self._end_if_asked()
        if self.is_encoded(batch):
            return super().evaluate_batch(batch, stage)
        self._refuse_where_distributed(batch)
        return torch.zeros(())

    def _refuse_where_distributed(self, batch):
        """Of a batch that could not be read at all."""
        if self.distributed_launch:
            # The other processes would wait for this one's gradients.
            raise InputError(
                "no utterance of a batch could be read (first: "
                f"{batch.bad[0].utterance}, {batch.bad[0].reason})"
            )

    # The course of training

    def fit(self, epoch_counter, train_set, valid_set=None, **kwargs):
        """Train, as `speechbrain.Brain.fit` does.

        Without a validation set the last epoch is what is kept, not the best.

        Raises
        ------
        Terminated
            SIGTERM came; the step was finished, and all is saved.
        """
        self._train_set, self._validates = train_set, valid_set is not None
        within = getattr(self.hparams, "terminate_within", 25)
        with named_failures(), deferred(within) as self._deferral:
            return super().fit(epoch_counter, train_set, valid_set, **kwargs)

    def _end_if_asked(self):
        """Save and end, if SIGTERM came to any of the processes."""
        asked = self._deferral is not None and self._deferral.asked
        if self.distributed_launch:
            any_of_them = torch.tensor(int(asked), device=self.device)
            torch.distributed.all_reduce(
                any_of_them, torch.distributed.ReduceOp.MAX
            )
            asked = bool(any_of_them)
        if asked:
            if self.checkpointer is not None:
                self._save_intra_epoch_ckpt()
            raise Terminated

    def make_dataloader(self, dataset, stage, *args, **kwargs):
        """A loader of `UtteranceBatch`, and the length of the schedule."""
        kwargs.setdefault("collate_fn", collate)
        kwargs.setdefault("worker_init_fn", outlive_termination)
        # Without its own generator the loader draws a seed from torch's, and
        # a resumed epoch would go on with other random numbers.
        kwargs.setdefault("generator", torch.Generator())
        loader = super().make_dataloader(dataset, stage, *args, **kwargs)
        if stage == Stage.TRAIN:
            self._epoch_length = len(loader)
            steps = math.ceil(len(loader) / self.grad_accumulation_factor)
            total = steps * self.hparams.epoch_counter.limit
            self._schedule = WarmCoolDecayLRSchedule(
                lr=self.hparams.lr,
                warmup=round(self.hparams.warmup * total),
                cooldown=max(1, round(self.hparams.cooldown * total)),
                total_steps=total + 1,
                decay_factor=1.0,
            )
        return loader

    def _train_loader_specifics(self, dataset, loader_kwargs):
        sampler = loader_kwargs.get("batch_sampler")
        if sampler is None:
            return super()._train_loader_specifics(dataset, loader_kwargs)
        # Ours deals to the processes itself: the parent would shuffle and
        # split its batches once more, and, in one process, never tell it
        # the epoch.
        self.train_sampler = sampler
        return loader_kwargs

    def init_optimizers(self):
        """Optimise what is trained: the connector, and adapters if any."""
        trained = [p for p in self.modules.parameters() if p.requires_grad]
        self.optimizer = self.opt_class(trained)
        self.optimizers_dict = {"opt_class": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def on_fit_start(self):
        """Recover a checkpoint, else estimate the features' statistics."""
        connector = self.raw("connector")
        frozen = {
            "encoder": self.raw("encoder").describe(),
            "llm": self.raw("llm").describe(),
        }
        on_mismatch = getattr(self.hparams, "frozen_models", "strict")
        connector.bind(frozen, on_mismatch)
        super().on_fit_start()
        connector.bind(frozen, on_mismatch)
        standardizer = connector.standardizer
        if standardizer is not None and not standardizer.fitted:
            self.estimate_statistics(self._train_set, standardizer)
        if getattr(self.hparams, "align_corpora", False):
            self.align_corpora(standardizer)

    def align_corpora(self, standardizer):
        """Estimate each training corpus's own mean and deviation.

        Not part of a checkpoint: the same utterances give the same ones when
        a training goes on.

        Arguments
        ---------
        standardizer : FeatureStandardizer
            With those of all corpora together.

        Raises
        ------
        InputError
            The connector does not standardise.
        """
        if standardizer is None:
            raise InputError("align_corpora needs standardize: True")
        self.alignment = CorpusAlignment(standardizer)
        with self._train_set.output_keys_as(["corpus"]):
            corpora = sorted({item["corpus"] for item in self._train_set})
        for corpus in corpora:
            own = standardizer.anew()
            part = self._train_set.filtered_sorted(
                key_test={"corpus": corpus.__eq__}
            )
            self.estimate_statistics(part, own)
            self.alignment.add(corpus, own)

    @torch.no_grad()
    def estimate_statistics(self, dataset, standardizer):
        """Mean and standard deviation of the features, on training data.

        Arguments
        ---------
        dataset : speechbrain.dataio.dataset.DynamicItemDataset
            The training set; evenly spaced utterances of it are encoded.
        standardizer : FeatureStandardizer
            What receives the statistics.
        """
        wanted = min(self.hparams.statistics_utterances, len(dataset))
        chosen = [i * len(dataset) // wanted for i in range(wanted)]
        if self.distributed_launch:
            chosen = chosen[get_rank() :: world_size()]
        progress = tqdm(
            chosen,
            "feature statistics",
            disable=self.noprogressbar or not if_main_process(),
        )
        for index in progress:
            if self._deferral is not None and self._deferral.asked:
                raise Terminated
            batch = UtteranceBatch([dataset[index]])
            if self.is_encoded(batch):
                standardizer.update(*batch.features)
        standardizer.finish()

    def on_stage_start(self, stage, epoch=None):
        """Forget the last stage's sums."""
        del epoch
        is_training = stage == Stage.TRAIN
        self._waiting = []
        self.terms = self.sums.begin_epoch(self.device) if is_training else {}
        self.references, self.predictions, self.recent = [], [], {}

    def on_fit_batch_start(self, batch, should_step):
        """Set the learning rate of this step."""
        del batch
        if not should_step:
            return
        # Counted from 1: a warm-up's first step should not be for nothing.
        self._schedule(self.optimizer, self.optimizer_step + 1)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log a stage; after validation, save and export."""
        del stage_loss
        stats = self._means(self.terms)
        if stage == Stage.TRAIN:
            self.train_stats = stats
            if self._validates:
                return
            stats = {}
        else:
            if not self.references:
                first = next(iter(self.leave_out.reasons.items()))
                raise InputError(
                    "no utterance of the validation set can be read and "
                    f"recognised (first: {': '.join(first)})"
                )
            metrics = emotion_metrics(
                self.references, self.predictions, self.label_words
            )
            stats |= {name: metrics[name] for name in ("WA", "UA", "WF1")}
        meta = {
            "epoch": epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "steps": self.optimizer_step,
            "bad_utterances": len(union_over_ranks(self.leave_out.reasons)),
        }
        self._log(meta, stats)
        if self.checkpointer is not None:
            # Without validation a later epoch counts as a better one.
            self._save_and_export(stats.get("UA", float(epoch)), epoch)

    def _log(self, meta, valid_stats):
        for name in ("train_logger", "tensorboard_logger"):
            destination = getattr(self.hparams, name, None)
            if destination is not None:
                destination.log_stats(
                    stats_meta=meta,
                    train_stats=self.train_stats,
                    valid_stats=valid_stats or None,
                )

    def _save_and_export(self, ua, epoch):
        """Keep the last and the best checkpoint; export a new best one."""
        # In each checkpoint: the best one may be damaged, its export is not.
        known = [
            checkpoint.meta.get("best_UA", checkpoint.meta["UA"])
            for checkpoint in self.checkpointer.list_checkpoints()
            if "UA" in checkpoint.meta
        ]
        best = max([ua, *known])
        export = getattr(self.hparams, "export", None)
        # Of equals the checkpointer keeps the later one, so that is exported.
        is_best = ua >= best
        # Exported first: a kill in between repeats the epoch, and exports it
        # again; the other way round the best one would never be exported.
        if export is not None and is_best and if_main_process():
            llm = self.raw("llm")
            export(self.raw("connector"), llm if llm.lora_rank else None)
        self.checkpointer.save_and_keep_only(
            meta={"UA": ua, "best_UA": best, "epoch": epoch},
            max_keys=["UA"],
            importance_keys=[],
        )

    def _should_save_intra_epoch_ckpt(self, *args):
        # Gradients that wait for their step are not part of a checkpoint.
        if self.step % self.grad_accumulation_factor != 0:
            return False
        self._end_if_asked()
        return super()._should_save_intra_epoch_ckpt(*args)


def _check_precision(precision, modules):
    """Refuse fp16 over bfloat16 weights, which autocast cannot mix."""
    dtypes = {parameter.dtype for parameter in modules.parameters()}
    if precision == "fp16" and torch.bfloat16 in dtypes:
        raise InputError(
            "precision fp16 does not go with frozen models in bfloat16: set "
            "frozen_dtype to float16, or precision to bf16"
        )
