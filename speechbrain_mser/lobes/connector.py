"""What every connector between the encoder and the LLM shares.

A connector takes the frozen encoder's features and returns the tokens that
the LLM reads and the embedding that the contrastive loss compares. It is all
that is trained, hence all that a checkpoint holds.
"""

import json
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    mark_as_transfer,
    register_checkpoint_hooks,
)
from speechbrain.utils.logger import get_logger
from torch import nn

from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import atomic_path
from speechbrain_mser.finite import refuse_not_finite
from speechbrain_mser.lobes.layer_mix import mix_layers
from speechbrain_mser.lobes.standardize import FeatureStandardizer
from speechbrain_mser.lobes.word_meanings import AXES

logger = get_logger(__name__)

# In a file, before what reads meaning.
MEANING = "meaning."
# In a file, before an emotion: the mean of its features.
MEANS = "emotion_means."
# What becomes of several encoder layers.
LAYER_JOINS = ("mix", "concat")
# What becomes of other frozen models than a checkpoint was trained with.
ON_MISMATCH = ("strict", "warn")


class Connected(NamedTuple):
    """What a connector makes of a batch.

    Arguments
    ---------
    tokens : torch.Tensor
        ``[batch, tokens, LLM width]``, what the LLM reads.
    pooled : torch.Tensor
        ``[batch, hidden]``, the utterances' embeddings.
    meaning : torch.Tensor, optional
        ``[batch, 3]``, pleasure, arousal and dominance; of one that hears it.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor
    meaning: torch.Tensor | None = None


@register_checkpoint_hooks
class Connector(nn.Module):
    """Base of the connectors: input side, output scale, checkpoints.

    Checkpoints are safetensors files: tensors and a description of the frozen
    models that the connector was trained between, never pickled code.

    Arguments
    ---------
    input_dim : int
        Width of the encoder's features.
    output_dim : int
        Width of the LLM's embeddings.
    hidden_size : int, optional
        Width of the tokens before they are projected to the LLM's; by default
        that of the features once their layers are joined.
    n_input_layers : int
        Number of encoder layers that come in.
    layer_join : str
        What becomes of several layers: "mix" adds them with learned weights,
        "concat" lays them side by side.
    standardize : bool
        Whether features are standardised with the training data's statistics.
    output_rms : float, optional
        Root mean square that the tokens for the LLM start with; the LLM's
        own embeddings have one (`EmotionLLaMA.embedding_rms`), and tokens of
        another scale are hard for it to read. None leaves them as they are.
    hear_meaning : bool
        Whether pleasure, arousal and dominance are read from the tokens'
        mean, too, before they are projected.
    """

    def __init__(
        self,
        input_dim,
        output_dim,
        hidden_size=None,
        n_input_layers=1,
        layer_join="mix",
        standardize=True,
        output_rms=None,
        hear_meaning=False,
    ):
        super().__init__()
        if layer_join not in LAYER_JOINS:
            raise InputError(
                f"layer_join is {layer_join!r}, expected "
                f"{' or '.join(LAYER_JOINS)}"
            )
        # Learned weights change nothing where there is but one layer.
        mixed = layer_join == "mix" or n_input_layers == 1
        self.joined_dim = input_dim if mixed else n_input_layers * input_dim
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.n_input_layers = n_input_layers
        self.frozen_models = {}
        # Emotion to the mean of its features, [layers, dim], standardised
        self.emotion_means = {}
        self.standardizer = (
            FeatureStandardizer(input_dim, n_input_layers)
            if standardize
            else None
        )
        self.layer_weights = (
            nn.Parameter(torch.zeros(n_input_layers))
            if mixed and n_input_layers > 1
            else None
        )
        self.input_norm = nn.LayerNorm(self.joined_dim)
        # Of the embedding that the loss compares.
        self.embedding_dim = hidden_size or self.joined_dim
        self.output = nn.Linear(self.embedding_dim, output_dim)
        self.output_scale = (
            nn.Parameter(torch.tensor(float(output_rms)))
            if output_rms is not None
            else None
        )
        self.meaning = None
        if hear_meaning:
            # From zero: what it says of nothing is in the middle. No random
            # number is drawn: all else starts as without it.
            self.meaning = nn.utils.skip_init(
                nn.Linear, self.embedding_dim, len(AXES)
            )
            nn.init.zeros_(self.meaning.weight)
            nn.init.zeros_(self.meaning.bias)

    def read_features(self, features, lens):
        """Standardise, join layers, normalise; the input side.

        Arguments
        ---------
        features : torch.Tensor
            ``[batch, frames, dim]``, or ``[batch, layers, frames, dim]``.
        lens : torch.Tensor
            ``[batch]``, relative lengths.

        Returns
        -------
        features : torch.Tensor
            ``[batch, frames, joined dim]``, float32.
        mask : torch.Tensor
            ``[batch, frames]``, True where there is speech, not padding.
        """
        layers = 1 if features.ndim == 3 else features.shape[1]
        if (
            layers != self.n_input_layers
            or features.shape[-1] != self.input_dim
        ):
            raise InputError(
                f"the encoder gives {layers} layers of width "
                f"{features.shape[-1]}; this connector was built for "
                f"{self.n_input_layers} of width {self.input_dim}"
            )
        if self.joined_dim == self.input_dim:
            features = self._mix(features)
        else:
            features = self._concatenate(features)
        frames = features.shape[1]
        frame = torch.arange(frames, device=lens.device)
        mask = frame < (lens * frames).round()[:, None]
        return self.input_norm(features), mask

    def _mix(self, features):
        weights = (
            self.layer_weights.softmax(0)
            if self.layer_weights is not None
            else self.input_norm.weight.new_ones(1)
        )
        if self.standardizer is not None:
            return self.standardizer(features, weights)
        neutral = weights.new_ones(self.n_input_layers, self.input_dim)
        return mix_layers(features, weights, 0 * neutral, neutral)

    def _concatenate(self, features):
        features = features.to(self.input_norm.weight.dtype)
        if self.standardizer is not None:
            features = self.standardizer(features)
        return features.transpose(1, 2).flatten(2)

    def write_tokens(self, hidden):
        """Project to the LLM's width and scale; the output side.

        Arguments
        ---------
        hidden : torch.Tensor
            ``[batch, tokens, hidden_size]``.

        Returns
        -------
        torch.Tensor
            ``[batch, tokens, output_dim]``.
        """
        tokens = self.output(hidden)
        if self.output_scale is None:
            return tokens
        rms = tokens.float().square().mean(-1, keepdim=True).sqrt()
        return self.output_scale * tokens / rms.clamp(min=1e-6)

    def read_meaning(self, hidden):
        """What was heard of pleasure, arousal and dominance.

        Arguments
        ---------
        hidden : torch.Tensor
            ``[batch, tokens, hidden_size]``, as `write_tokens` takes it.

        Returns
        -------
        torch.Tensor or None
            ``[batch, 3]``, if ``hear_meaning``.
        """
        if self.meaning is None:
            return None
        # What it learns is no reason for anything else to change.
        return self.meaning(hidden.mean(1).detach())

    @torch.no_grad()
    def start_at(self, embedding, spread=0.5):
        """Have all tokens start around one of the LLM's embeddings.

        Random tokens mean nothing to an LLM, which then first has to be made
        to answer at all. Tokens around the words that it is to say mean about
        those, and training only says which.

        Arguments
        ---------
        embedding : torch.Tensor
            ``[output_dim]``, of any norm but zero.
        spread : float
            Root mean square of what the audio adds, where the embedding's is
            1 and the audio's hidden states have a variance of 1.
        """
        weight = self.output.weight
        weight.mul_(spread / weight.square().sum(1).mean().sqrt())
        embedding = embedding.to(self.output.bias)
        self.output.bias.copy_(embedding / embedding.square().mean().sqrt())

    def initialised(self):
        """Arguments that build this connector without its initialisation.

        Returns
        -------
        dict
            To replace those of the constructor when all parameters will come
            from a checkpoint.
        """
        return {}

    def bind(self, frozen_models, on_mismatch="strict"):
        """Say between which frozen models this connector stands.

        A connector means nothing between other models than its own, so one
        that was loaded from a checkpoint refuses them. The models' weights
        say which they are, not their names: a hub's name, its cache's folder
        and any other folder may hold the same. A checkpoint of the time before
        weights were noted is believed where the widths agree, with a warning.

        Arguments
        ---------
        frozen_models : dict
            Role ("encoder", "llm") to a dict with "name", "width" and
            "digest", that of the weights.
        on_mismatch : str
            What becomes of other weights of the same width: "strict" refuses
            them, "warn" goes on, for another quantisation of the same model.

        Raises
        ------
        InputError
            A checkpoint was loaded that was trained with others.

        Example
        -------
        >>> connector = Connector(4, 4, 4)
        >>> model = {"name": "meta-llama/A", "width": 4, "digest": "6b86"}
        >>> connector.bind({"llm": model})
        >>> connector.bind({"llm": {**model, "name": "/disk/A"}})
        >>> connector.bind({"llm": {**model, "digest": "d473"}})
        Traceback (most recent call last):
        ...
        speechbrain_mser.errors.InputError: the checkpoint belongs to ...
        """
        if on_mismatch not in ON_MISMATCH:
            raise InputError(
                f"frozen_models is {on_mismatch!r}, expected "
                f"{' or '.join(ON_MISMATCH)}"
            )
        for role, trained in self.frozen_models.items():
            _compare(role, trained, frozen_models.get(role, {}), on_mismatch)
        self.frozen_models = frozen_models

    # In a checkpoint, SpeechBrain calls this on the main process only.
    @mark_as_saver
    def save(self, path, half=False):
        """Write parameters, statistics and which the frozen models were.

        Arguments
        ---------
        path : str or path-like
            A safetensors file, replaced atomically.
        half : bool
            Parameters as float16, in half the space; they are computed with
            in float32 all the same. Statistics, whose range is the frozen
            encoder's, stay as they are.
        """
        tensors = {
            name: value.detach().cpu().contiguous()
            for name, value in self.state_dict().items()
        }
        if half:
            tensors |= {
                name: tensors[name].half()
                for name, _ in self.named_parameters()
            }
        tensors |= {
            MEANS + emotion: mean.half() if half else mean
            for emotion, mean in self.emotion_means.items()
        }
        described = {"frozen_models": json.dumps(self.frozen_models)}
        with atomic_path(path) as partial:
            save_file(tensors, partial, described)

    @mark_as_loader
    def _load_checkpoint(self, path, end_of_epoch):
        del end_of_epoch  # the connector has no position in an epoch
        self.load(path)

    @mark_as_transfer
    def load(self, path, go_on=False):
        """Read what `save` wrote.

        Arguments
        ---------
        path : str or path-like
            A safetensors file.
        go_on : bool
            Whether training goes on from it: then what it knows of meaning may
            be left behind, or be learned from the beginning.

        Raises
        ------
        InputError
            No such file, not a safetensors file, another connector's, or
            values that are not finite.
        """
        tensors, frozen_models = _read(path)
        if go_on:
            self._match_meaning(path, tensors)
        means = {
            name.removeprefix(MEANS): tensors.pop(name)
            for name in [*tensors]
            if name.startswith(MEANS)
        }
        _check_shapes(path, tensors, self.state_dict(), frozen_models)
        _check_means(path, means, (self.n_input_layers, self.input_dim))
        refuse_not_finite(path, {**tensors, **means})
        self.load_state_dict(tensors)
        self.emotion_means = {
            name: mean.float() for name, mean in means.items()
        }
        self.frozen_models = frozen_models

    def _match_meaning(self, path, tensors):
        """Have a file's tensors hold meaning as this connector does."""
        own = {
            n: v for n, v in self.state_dict().items() if n.startswith(MEANING)
        }
        found = {name for name in tensors if name.startswith(MEANING)}
        if found == own.keys():
            return
        logger.warning(
            "%s %s (hear_meaning is %s here)",
            path,
            "knows meaning, which is left behind"
            if found
            else "knows no meaning, which is learned from the beginning",
            bool(own),
        )
        for name in found:
            del tensors[name]
        tensors.update(own)


def copy_checkpoint(source, target, names, here):
    """Copy what `Connector.save` wrote, its frozen models called otherwise.

    Arguments
    ---------
    source, target : str or path-like
        Safetensors files.
    names : dict
        Role to what the frozen model is called in the copy.
    here : dict
        The frozen models that are called so, as for `Connector.bind`.

    Returns
    -------
    dict
        The frozen models, as the copy describes them.

    Raises
    ------
    InputError
        One was trained with other weights than those that are called so.
    """
    tensors, frozen_models = _read(source)
    for role, trained in frozen_models.items():
        # Of the same width, or it would not have been bound to them.
        if trained.get("digest") not in (None, here[role].get("digest")):
            raise InputError(
                f"{source}: its {role} is {_described(trained)}, and what is "
                f"called {names[role]} is {_described(here[role])}: load the "
                "recogniser with the models that it was trained with"
            )
        frozen_models[role] = {**trained, "name": names[role]}
    described = {"frozen_models": json.dumps(frozen_models)}
    with atomic_path(target) as partial:
        save_file(tensors, partial, described)
    return frozen_models


def _read(path):
    """A file's tensors, and the frozen models that it was trained with."""
    try:
        with safe_open(path, framework="pt") as file:
            described = (file.metadata() or {}).get("frozen_models", "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not a connector checkpoint ({error})"
        ) from None
    return tensors, _read_described(path, described)


def _compare(role, trained, here, on_mismatch):
    """Refuse another frozen model than the one that was trained with."""
    same_width = trained["width"] == here.get("width")
    digests = trained.get("digest"), here.get("digest")
    if same_width and digests[0] == digests[1] is not None:
        return
    found = (
        f"its {role} is {_described(trained)}, here it is {_described(here)}"
    )
    if same_width and None in digests:
        logger.warning(
            "the checkpoint does not say which weights it was trained with: "
            "%s; whether they are the same is for you to know",
            found,
        )
    elif same_width and on_mismatch == "warn":
        logger.warning(
            "the checkpoint belongs to other frozen models: %s; its answers "
            "are not those that were measured (frozen_models is warn)",
            found,
        )
    else:
        hint = (
            " (frozen_models: warn goes on all the same, with another "
            "quantisation of the same model)"
        )
        raise InputError(
            f"the checkpoint belongs to other frozen models: {found}; use the "
            f"same {role}, or train anew{hint * same_width}"
        )


def _read_described(path, text):
    """The frozen models that a file says it was trained with."""
    try:
        found = json.loads(text)
        whole = all(
            isinstance(model["name"], str)
            and isinstance(model["width"], int)
            and isinstance(model.get("digest", ""), str)
            for model in found.values()
        )
    # Whatever else than such an object it is
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(
            f"{path}: not a connector checkpoint (its frozen models are not "
            "described by name, width and digest)"
        )
    return found


def _described(model):
    weights = f", weights {model['digest']}" if model.get("digest") else ""
    return f"{model.get('name')} (width {model.get('width')}{weights})"


def _check_means(path, means, shape):
    """Refuse emotions' means that are no means of this connector's features."""
    for emotion, mean in means.items():
        if mean.shape != shape or not mean.is_floating_point():
            raise InputError(
                f"{path}: the mean of {emotion!r} is {mean.dtype} of shape "
                f"{list(mean.shape)}, expected {list(shape)}"
            )


def _check_shapes(path, found, expected, frozen_models):
    """Refuse another connector's tensors with the first differences named."""
    faults = [
        f"{name}: {tuple(found[name].shape) if name in found else 'absent'} "
        f"in the file, {tuple(value.shape)} here"
        for name, value in expected.items()
        if name not in found or found[name].shape != value.shape
    ]
    faults += [f"{name}: only in the file" for name in found.keys() - expected]
    if faults:
        trained = ", ".join(
            f"{role} {model['name']} (width {model['width']})"
            for role, model in frozen_models.items()
        )
        raise InputError(
            f"{path}: this connector was trained with other models or "
            f"settings (for {trained or 'models not named'}); {len(faults)} "
            f"tensors differ, first {faults[0]}"
        )
