"""What a step and an epoch of training are: in one process and in several."""

from pathlib import Path

import pytest
import torch
from recorded_training import WORDS, build_modules, read_words, train
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)
from torch.nn.functional import pad

from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.errors import InputError
from speechbrain_mser.losses import EmotionContrastiveLoss
from speechbrain_mser.training.checkpoints import AtomicCheckpointer
from speechbrain_mser.training.curves import Curves

CE_WEIGHT = 1.5
# Utterance i says WORDS[i % 4]: 3 is the longest word. For each case how many
# batches make a step, and of each batch the utterances of each process.
EVEN = [[0, 1, 4, 5], [8, 9, 12, 13]]
LONG_WORDS_ON_ONE = [[0, 1, 4, 5], [3, 7, 11, 15]]
EIGHT_AND_ONE = [[0, 1, 2, 3, 4, 5, 6, 7], [11]]
FOUR_AND_TWO = [[0, 4, 8, 12], [1, 5]]
CASES = {
    1: {
        "one batch": (1, [[[0, 1, 2, 3, 4]]]),
        "accumulated": (3, [[[0, 4, 1]], [[3, 7, 11, 15]], [[2]]]),
        "a rest": (2, [[[0, 1]], [[3, 7, 2]], [[5, 3, 11]]]),
    },
    2: {
        "even": (1, [EVEN]),
        "long words on one process": (1, [LONG_WORDS_ON_ONE]),
        "one utterance alone": (1, [EIGHT_AND_ONE]),
        "accumulated": (2, [FOUR_AND_TWO, LONG_WORDS_ON_ONE]),
        "a rest": (2, [EIGHT_AND_ONE, LONG_WORDS_ON_ONE, FOUR_AND_TWO]),
    },
    3: {
        "uneven": (1, [[[0, 1, 2, 3, 7], [4, 8, 5], [11]]]),
        "accumulated": (
            2,
            [[[0], [3, 7, 11], [1, 2]], [[4, 5, 6, 7], [8], [9, 15]]],
        ),
    },
}
SCRIPT = """
import sys
sys.path.insert(0, data["here"])
from recorded_training import train
found = {}
for name, (accumulate, batches) in data["cases"].items():
    for reduction in ("sum", "balanced"):
        settings = {"accumulate": accumulate, "reduction": reduction}
        brain = train(data["folders"], rank, batches, settings)
        found[name, reduction] = brain.steps, brain.logged[0]["train"]
table = data["table"]
brain = train(data["folders"], rank, data["with_bad"], {"table": table})
found["bad"] = brain.logged[0]["meta"]["bad_utterances"]
save(found)
"""


@pytest.fixture(scope="module")
def folders(tiny_whisper, tiny_bert, tiny_llama, tiny_corpus):
    """Where models and corpus are."""
    return {
        "whisper": str(tiny_whisper),
        "bert": str(tiny_bert),
        "llama": str(tiny_llama),
        "manifest": str(tiny_corpus / "manifests" / "tiny.csv"),
        "data_root": str(tiny_corpus / "corpora" / "tiny"),
    }


@pytest.fixture(scope="module")
def trained(folders, in_processes):
    """What each process found, by their number, case and reduction."""
    found = {1: {}}
    for name, (accumulate, batches) in CASES[1].items():
        for reduction in ("sum", "balanced"):
            settings = {"accumulate": accumulate, "reduction": reduction}
            brain = train(folders, 0, batches, settings)
            result = brain.steps, brain.logged[0]["train"]
            found[1][name, reduction] = [result]
    here = str(Path(__file__).parent)
    for world in (2, 3):
        # The first utterance of the first two processes cannot be read.
        table = read_words(folders)
        table.loc[:1, "wav"] = "no/such.wav"
        data = {
            "here": here,
            "folders": folders,
            "cases": CASES[world],
            "table": table,
            "with_bad": [[[i, i + 4] for i in range(world)]],
        }
        results = in_processes(world, SCRIPT, data)
        found[world] = {
            key: [result[key] for result in results] for key in results[0]
        }
    return found


def connect(modules, table, numbers):
    """Tokens and embeddings of utterances, in one process and no brain."""
    wavs = [load_audio(table.wav[i]) for i in numbers]
    longest = max(map(len, wavs))
    lens = torch.tensor([len(wav) / longest for wav in wavs])
    wavs = torch.stack([pad(wav, (0, longest - len(wav))) for wav in wavs])
    with torch.no_grad():
        features, lens = modules["encoder"](wavs, lens)
    return modules["connector"](features, lens)


def one_step(modules, table, batches, reduction):
    """A step's gradients, written down without a brain.

    Eq. 1 within each batch, and the mean over them; the cross entropy of all
    batches' words as one batch.
    """
    contrastive, tokens, words = 0.0, [], []
    loss = EmotionContrastiveLoss(reduction=reduction)
    for batch in batches:
        numbers = [i for part in batch for i in part]
        own, pooled, _ = connect(modules, table, numbers)
        emotions = torch.tensor([i % 4 for i in numbers])
        contrastive += loss(pooled, emotions) / len(batches)
        tokens.append(own)
        words += [WORDS[i % 4] for i in numbers]
    cross_entropy = modules["llm"].loss(torch.cat(tokens), words)
    modules["connector"].zero_grad()
    (contrastive + CE_WEIGHT * cross_entropy).backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in modules["connector"].named_parameters()
        if parameter.grad is not None
    }


def one_epoch(modules, table, batches, reduction):
    """An epoch's logged terms, written down without a brain."""
    loss, terms, count = EmotionContrastiveLoss(reduction=reduction), 0.0, 0
    tokens, words = [], []
    for batch in batches:
        numbers = [i for part in batch for i in part]
        own, pooled, _ = connect(modules, table, numbers)
        emotions = torch.tensor([i % 4 for i in numbers])
        terms += loss(pooled, emotions).item() * len(numbers)
        count += len(numbers)
        tokens.append(own)
        words += [WORDS[i % 4] for i in numbers]
    cross_entropy = modules["llm"].loss(torch.cat(tokens), words).item()
    contrastive = terms / count
    return {
        "contrastive": contrastive,
        "ce": cross_entropy,
        "loss": contrastive + CE_WEIGHT * cross_entropy,
    }


EACH = pytest.mark.parametrize(
    ("world", "case", "reduction"),
    [
        (world, case, reduction)
        for world, cases in CASES.items()
        for case in cases
        for reduction in ("sum", "balanced")
    ],
)


@EACH
def test_a_step_is_that_of_one_process_and_one_batch(
    trained, folders, world, case, reduction
):
    modules, table = build_modules(folders), read_words(folders)
    # or this would show little
    counts = [modules["llm"].count_tokens([word]) for word in WORDS]
    assert max(counts) > 2 * min(counts)
    accumulate, batches = CASES[world][case]
    groups = [
        batches[start : start + accumulate]
        for start in range(0, len(batches), accumulate)
    ]
    expected = [one_step(modules, table, group, reduction) for group in groups]
    for steps, _ in trained[world][case, reduction]:
        assert len(steps) == len(expected)
        for step, gradients in zip(steps, expected, strict=True):
            assert step["gradients"].keys() == gradients.keys()
            largest = max(g.abs().max() for g in gradients.values())
            for name, gradient in gradients.items():
                off = (step["gradients"][name] - gradient).abs().max()
                # Embeddings are nearly alike here, and the sum of Eq. 1 over
                # all pairs is a small difference of large numbers.
                assert off < 5e-4 * largest, name


@EACH
def test_logged_terms_are_means_over_all_processes_and_batches(
    trained, folders, world, case, reduction
):
    modules, table = build_modules(folders), read_words(folders)
    _, batches = CASES[world][case]
    expected = one_epoch(modules, table, batches, reduction)
    for _, logged in trained[world][case, reduction]:
        assert logged == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("world", [2, 3])
def test_utterances_are_counted_that_any_process_could_not_read(trained, world):
    assert trained[world]["bad"] == [2] * world


def test_a_warm_up_rises_from_the_first_step_on(folders):
    settings = {"warmup": 0.5, "epochs": 2}
    brain = train(folders, 0, [[[0, 1]], [[2, 3]], [[4, 5]]], settings)
    # Six steps, three of them warm-up: a third, two thirds, all of 0.1.
    rates = [step["lr"] for step in brain.steps]
    expected = [0.1 / 3, 0.2 / 3, 0.1, 0.1, 0.1, 0.1]
    assert rates == pytest.approx(expected)


class Proxies(torch.nn.Module):
    """A loss with parameters, as proxy losses have them."""

    def __init__(self):
        super().__init__()
        self.proxies = torch.nn.Parameter(torch.zeros(4, 32))

    def forward(self, embeddings, labels):
        """Squared distances."""
        return (embeddings - self.proxies[labels]).square().sum(1).mean()


def test_a_losss_own_parameters_are_trained(folders):
    loss = Proxies()
    brain = train(folders, 0, [[[0, 1]]], {"contrastive_loss": loss})
    (group,) = brain.optimizer.param_groups
    assert any(p is loss.proxies for p in group["params"])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda x, y: x[:, 0], r"term contrastive is a tensor of shape \[2\]"),
        (lambda x, y: 1.0, "term contrastive is a float, expected a scalar"),
        (
            lambda x, y: x.sum() * float("nan"),
            r"the loss is nan \(contrastive nan, ce \d.*step 1",
        ),
    ],
)
def test_a_loss_that_is_no_finite_scalar_is_named(folders, loss, message):
    with pytest.raises(InputError, match=message):
        train(folders, 0, [[[0, 1]]], {"contrastive_loss": loss})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("align_speakers", True),
        ("microphone_shift", 3.0),
        ("start_at_words", True),
        ("emotion_means", True),
    ],
)
def test_what_needs_statistics_is_refused_without(folders, name, value):
    with pytest.raises(InputError, match=f"{name} .*standardize: False"):
        train(folders, 0, [[[0, 1]]], {name: value})


def drawn(folder):
    """Curve to its points, (step, value)."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_curves_within_an_epoch_are_means_over_their_steps(folders, tmp_path):
    batches = [[[0, 4, 1]], [[3, 7, 11, 15]], [[2]], [[5, 3]], [[6, 8, 9]]]
    settings = {
        "tensorboard_logger": Curves(str(tmp_path)),
        "log_interval_steps": 2,
        "warmup": 0.8,
    }
    train(folders, 0, batches, settings)
    curves = drawn(tmp_path)
    modules, table = build_modules(folders), read_words(folders)
    parts = [batches[:2], batches[2:4]]
    expected = [one_epoch(modules, table, part, "sum") for part in parts]
    for name in ("contrastive", "ce", "loss"):
        assert curves[f"{name}/step"] == [
            (2, pytest.approx(expected[0][name], rel=1e-5)),
            (4, pytest.approx(expected[1][name], rel=1e-5)),
        ]
    # Four steps of warm-up to 0.1
    assert curves["lr/step"] == [
        (2, pytest.approx(0.05)),
        (4, pytest.approx(0.1)),
    ]


def test_an_epoch_is_drawn_where_it_belongs(tmp_path):
    for epoch in (1, 2):
        # as a training that goes on begins anew
        curves = Curves(str(tmp_path))
        curves.log_stats({"epoch": epoch}, {"loss": epoch / 2}, {"UA": 0.25})
        curves.writer.close()
    curves = drawn(tmp_path)
    assert curves["loss/train"] == [(1, 0.5), (2, 1.0)]
    assert curves["UA/valid"] == [(1, 0.25), (2, 0.25)]


def test_of_equally_good_epochs_the_later_is_kept_and_exported(
    folders, tmp_path
):
    exported = []
    brain = train(
        folders,
        0,
        [[[0, 1]]],
        {"export": lambda connector, llama: exported.append(epoch)},
    )
    brain.checkpointer = AtomicCheckpointer(
        tmp_path, {"connector": brain.raw("connector")}
    )
    for epoch, ua in ((1, 0.5), (2, 0.5), (3, 0.25)):
        brain._save_and_export(ua, epoch)
    best = brain.checkpointer.find_checkpoint(max_key="UA")
    assert best.meta["epoch"] == 2
    assert exported == [1, 2]


def test_nearness_to_the_right_word_is_a_term(folders):
    batches = [[[0, 1, 2, 3, 4]]]
    brain = train(folders, 0, batches, {"word_weight": 0.5})
    plain = train(folders, 0, batches, {})
    modules, table = build_modules(folders), read_words(folders)
    tokens, *_ = connect(modules, table, range(5))
    llm = modules["llm"]
    words = torch.stack([llm.word_embeddings([word])[0] for word in WORDS])
    # Log-odds by the definition: distances, token by token
    far = torch.cdist(tokens, words.expand(5, -1, -1)).square()
    scale = 0.25 * llm.hidden_size * llm.embedding_rms**2
    nearness = (-far / scale).mean(1).log_softmax(-1)
    expected = -nearness[range(5), [0, 1, 2, 3, 0]].mean().item()
    logged, without = brain.logged[0]["train"], plain.logged[0]["train"]
    assert logged["word"] == pytest.approx(expected, rel=1e-4)
    assert "word" not in without
    total = without["loss"] + 0.5 * expected
    assert logged["loss"] == pytest.approx(total, rel=1e-5)


def test_the_first_epochs_do_without_the_llm(folders):
    settings = {"epochs": 2, "epochs_before_llm": 1, "word_weight": 1.0}
    brain = train(folders, 0, [[[0, 4, 1]]], settings)
    first, second = (logged["train"] for logged in brain.logged)
    assert set(first) == {"contrastive", "word", "loss"}
    assert set(second) == {"contrastive", "word", "ce", "loss"}
    # Nothing moves here: what both have is the same.
    assert first["word"] == pytest.approx(second["word"])
    assert first["loss"] == pytest.approx(first["contrastive"] + first["word"])


@pytest.mark.parametrize("untrained", [(), ("bored",)])
def test_meaning_is_a_term_and_moves_nothing_else(folders, untrained):
    numbers = [0, 1, 3, 4]  # none of them bored
    settings = {"hear_meaning": True, "untrained_words": untrained}
    brain = train(folders, 0, [[numbers]], settings)
    plain = train(folders, 0, [[numbers]], {})
    (found,), (without,) = brain.steps, plain.steps
    own = {"meaning.weight", "meaning.bias"}
    assert found["gradients"].keys() - own == without["gradients"].keys()
    for name, gradient in without["gradients"].items():
        assert torch.equal(found["gradients"][name], gradient), name
    # Gradients are clipped in the first group.
    groups = [len(group["params"]) for group in brain.optimizer.param_groups]
    (before,) = plain.optimizer.param_groups
    assert groups == [len(before["params"]), 2]
    # Nothing was heard yet, so a word is as far as it lies from the middle.
    far = brain.raw("llm").word_meanings(WORDS).square().sum(1)
    if untrained:
        far[WORDS.index("bored")] = float("inf")
    right = (-far).log_softmax(0)[[i % 4 for i in numbers]]
    logged = brain.logged[0]["train"]
    assert logged["meaning"] == pytest.approx(-right.mean().item(), rel=1e-4)
    total = plain.logged[0]["train"]["loss"] + logged["meaning"]
    assert logged["loss"] == pytest.approx(total, rel=1e-5)
