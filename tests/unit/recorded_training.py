"""A training whose steps are looked at: gradients, learning rates, logs."""

from functools import cache

import torch
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_mser.brain import EmotionBrain
from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.dataio.utterances import make_dataset
from speechbrain_mser.lobes.llama import EmotionLLaMA
from speechbrain_mser.lobes.qformer import EmotionQFormer
from speechbrain_mser.lobes.whisper import WhisperEncoder
from speechbrain_mser.losses import EmotionContrastiveLoss

# Of two to a dozen tokens in the tests' LLM.
WORDS = ["happy", "sad", "bored", "contemptuous"]


class RecordedBrain(EmotionBrain):
    """Notes what each step would do, and does nothing."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps, self.logged = [], []

    def optimizers_step(self):
        """Note gradients and learning rate; move no parameter."""
        gradients = {
            name: parameter.grad.clone()
            for name, parameter in self.raw("connector").named_parameters()
            if parameter.grad is not None
        }
        lr = self.optimizer.param_groups[0]["lr"]
        self.steps.append({"gradients": gradients, "lr": lr})
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1

    def _log(self, meta, valid_stats):
        self.logged.append({"meta": meta, "train": self.train_stats})


def build_modules(folders, hear_meaning=False):
    """Whisper, connector and LLM in miniature; nothing moves them."""
    return _build_modules(
        folders["whisper"], folders["bert"], folders["llama"], hear_meaning
    )


@cache
def _build_modules(whisper, bert, llama, hear_meaning):
    whisper = WhisperEncoder(whisper)
    llama = EmotionLLaMA(llama)
    torch.manual_seed(7)
    connector = EmotionQFormer(
        input_dim=whisper.hidden_size,
        output_dim=llama.hidden_size,
        n_queries=3,
        query_dim=16,
        bert_source=bert,
        dropout=0.0,
        standardize=False,
        output_rms=llama.embedding_rms,
        hear_meaning=hear_meaning,
    )
    return {"encoder": whisper, "connector": connector, "llm": llama}


def read_words(folders):
    """The tiny corpus, said with `WORDS`."""
    table = read_manifest(folders["manifest"], folders["data_root"])
    table = table.sort_values("ID").reset_index(drop=True)
    return table.assign(emotion=[WORDS[i % 4] for i in range(len(table))])


def train(folders, rank, batches, settings):
    """One epoch over given batches; what each step did and what was logged.

    Arguments
    ---------
    folders : dict
        Of the models and the corpus.
    rank : int
        Which process this is.
    batches : list of list of list of int
        For each batch, each process's utterances.
    settings : dict
        What differs from the hyperparameters below; ``accumulate``,
        ``hear_meaning``, ``reduction`` and ``table``, the utterances.

    Returns
    -------
    RecordedBrain
        Trained.
    """
    settings = dict(settings)
    run_opts = {
        "device": "cpu",
        "noprogressbar": True,
        "grad_accumulation_factor": settings.pop("accumulate", 1),
    }
    if torch.distributed.is_initialized():
        run_opts |= {"distributed_launch": True, "distributed_backend": "gloo"}
    hparams = {
        "contrastive_loss": EmotionContrastiveLoss(
            reduction=settings.pop("reduction", "sum")
        ),
        "ce_weight": 1.5,
        "label_words": WORDS,
        "lr": 0.1,
        "warmup": 0.0,
        "cooldown": 0.0,
        "on_bad_utterance": "skip",
    }
    table = settings.pop("table", None)
    if table is None:
        table = read_words(folders)
    counter = EpochCounter(limit=settings.pop("epochs", 1))
    brain = RecordedBrain(
        build_modules(folders, settings.pop("hear_meaning", False)),
        torch.optim.AdamW,
        {**hparams, **settings, "epoch_counter": counter},
        run_opts,
    )
    own = [batch[rank] for batch in batches]
    brain.fit(
        counter,
        make_dataset(table),
        train_loader_kwargs={"batch_sampler": own, "num_workers": 0},
    )
    return brain
