"""The course of a training: steps, stages, and every way in which it ends."""

import math

import torch
from speechbrain import Brain, Stage
from speechbrain.nnet.schedulers import WarmCoolDecayLRSchedule
from speechbrain.utils.distributed import if_main_process

from speechbrain_mser.dataio.bad_utterances import BadUtterances
from speechbrain_mser.dataio.batching import collate
from speechbrain_mser.dataio.loader_workers import (
    named_failures,
    worker_context,
)
from speechbrain_mser.distributed import union_over_ranks
from speechbrain_mser.errors import InputError
from speechbrain_mser.termination import Terminated, deferred
from speechbrain_mser.training.checkpoints import RandomState
from speechbrain_mser.training.epoch_sums import TrainingSums
from speechbrain_mser.training.terms import add_terms, check_term, mean_terms

# Modules in checkpoints, where their name is an older one.
NAMES = {"llm": "llama"}


class TrainingLoop(Brain):
    """A Brain whose training ends at any moment and goes on as if it had not.

    Takes the parent's arguments. A subclass has ``compute_forward``,
    ``compute_terms``, ``is_encoded`` and ``validation_metrics``. What of its
    modules has trainable parameters is optimised and saved. Of ``hparams`` it
    needs ``lr``, ``warmup``, ``cooldown``, ``epoch_counter`` and
    ``on_bad_utterance``, and takes those of `OPTIONAL`; `EmotionBrain` says
    what they are.
    """

    OPTIONAL = {
        "terminate_within": 25,
        "train_logger": None,
        "tensorboard_logger": None,
        "log_interval_steps": 0,
        "export": None,
    }

    def __init__(
        self,
        modules,
        opt_class=None,
        hparams=None,
        run_opts=None,
        checkpointer=None,
    ):
        hparams = {**self.OPTIONAL, **hparams}
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        _check_precision(self.precision, self.modules)
        self.sums = TrainingSums()
        self.leave_out = BadUtterances(
            self.hparams.on_bad_utterance, self.sums.bad
        )
        self._deferral = None
        self._train_set = None
        self._validates = True
        self._schedule = None
        self.terms, self.recent, self._last_terms = {}, {}, {}
        self._epoch_length = None
        self._waiting, self._loss, self._shares = [], torch.zeros(()), {}
        if self.checkpointer is not None:
            self._add_recoverables()

    def _add_recoverables(self):
        """All that is trained, and how far it is."""
        for name, module in self.modules.items():
            if any(p.requires_grad for p in module.parameters()):
                self.checkpointer.add_module(NAMES.get(name, name), module)
        for name, state in (
            ("random_state", RandomState()),
            ("sums", self.sums),
        ):
            self.checkpointer.add_recoverable(name, state, optional_load=True)

    def raw(self, name):
        """A module without DDP's wrapping, for methods other than forward."""
        module = self.modules[name]
        return getattr(module, "module", module)

    # A step

    def compute_objectives(self, predictions, batch, stage):
        """The loss: `compute_terms` weighted and added."""
        terms = {
            name: check_term(name, term)
            for name, term in self.compute_terms(
                predictions, batch, stage
            ).items()
        }
        for sums in (self.terms, self.recent):
            add_terms(sums, terms, len(batch))
        self._last_terms = terms
        shares = self._shares if stage == Stage.TRAIN else {}
        return sum(
            term.weight * shares.get(name, 1.0) * term.value
            for name, term in terms.items()
        )

    def term_shares(self, batches):
        """What each of a step's batches counts in a term, if not all alike.

        Arguments
        ---------
        batches : list of UtteranceBatch
            Of one step.

        Returns
        -------
        list of dict
            For each batch, a term's name to its factor; 1 in the mean.
        """
        return [{} for _ in batches]

    def fit_batch(self, batch):
        """Train on what could be read, as soon as a step's batches are there.

        They wait for each other: a loss may be the mean over what all of them
        have, which has to be counted first (`term_shares`). An epoch's last
        step may have fewer.
        """
        if self.is_encoded(batch):
            self._waiting.append(batch)
        else:
            self.refuse_where_distributed(batch)
        is_due = self.step % self.grad_accumulation_factor == 0
        if self._waiting and (is_due or self.step == self._epoch_length):
            batches, self._waiting = self._waiting, []
            self._train_on(batches)
        return self._loss

    def _train_on(self, batches):
        """One optimiser step, as on one batch but for terms about pairs."""
        shares, n = self.term_shares(batches), len(batches)
        loss = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, 1):
            self.on_fit_batch_start(batch, number == n)
            self._shares = shares[number - 1]
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
        interval = self.hparams.log_interval_steps
        curves = self.hparams.tensorboard_logger
        if curves is None or not interval or self.optimizer_step % interval:
            return
        means = mean_terms(self.recent)
        means["lr"] = self.optimizer.param_groups[0]["lr"]
        curves.log_step(self.optimizer_step, means)
        self.recent = {}

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
            terms = ", ".join(
                f"{name} {term.value.item()}"
                for name, term in self._last_terms.items()
            )
            raise InputError(
                f"the loss is {loss.item()} ({terms}) in step "
                f"{self.optimizer_step + 1}, of features that are all finite: "
                "the training diverges; lower lr, or set precision to fp32 or "
                "bf16; it can go on from its last checkpoint"
            )

    def refuse_where_distributed(self, batch):
        """Of a batch that could not be read at all."""
        if self.distributed_launch:
            # The other processes would wait for this one's gradients.
            raise InputError(
                "no utterance of a batch could be read (first: "
                f"{batch.bad[0].utterance}, {batch.bad[0].reason})"
            )

    # From beginning to end

    def fit(self, epoch_counter, train_set, valid_set=None, **kwargs):
        """Train, as `speechbrain.Brain.fit` does.

        Without a validation set the last epoch is what is kept, not the best.

        Raises
        ------
        Terminated
            SIGTERM came; the step was finished, and all is saved.
        """
        self._train_set, self._validates = train_set, valid_set is not None
        within = self.hparams.terminate_within
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
        context = worker_context(kwargs.get("num_workers", 0))
        kwargs.setdefault("multiprocessing_context", context)
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
        meaning = getattr(self.raw("connector"), "meaning", None)
        apart = [] if meaning is None else [*meaning.parameters()]
        own = {id(parameter) for parameter in apart}
        trained = [
            p
            for p in self.modules.parameters()
            if p.requires_grad and id(p) not in own
        ]
        groups = [{"params": trained}]
        if apart:
            # Gradients are clipped together in the first group alone: what is
            # learned of meaning does not change how far all else goes.
            groups.append({"params": apart})
        self.optimizer = self.opt_class(groups)
        self.optimizers_dict = {"opt_class": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def on_stage_start(self, stage, epoch=None):
        """Forget the last stage's sums."""
        del epoch
        is_training = stage == Stage.TRAIN
        self._waiting = []
        self.terms = self.sums.begin_epoch(self.device) if is_training else {}
        self.recent = {}

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
        stats = mean_terms(self.terms)
        if stage == Stage.TRAIN:
            self.train_stats = stats
            if self._validates:
                return
            stats = {}
        else:
            stats |= self.validation_metrics()
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
        for destination in (
            self.hparams.train_logger,
            self.hparams.tensorboard_logger,
        ):
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
        export = self.hparams.export
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
