"""WavLM, HuBERT, wav2vec 2.0 and their kin: frozen, at true length."""

import math

import torch
import torch.nn.functional as F
from transformers import MODEL_MAPPING

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.encoder import WHAT, FrozenEncoder, find_encoder
from speechbrain_mser.lobes.hub import load_model
from speechbrain_mser.lobes.weight_files import model_digest

# transformers' model types whose layers mask what is padded, exactly.
_MASKED = {
    *("hubert", "unispeech", "unispeech-sat"),
    *("wav2vec2", "wav2vec2-bert", "wavlm"),
}
# Those whose convolutions would hear it: only like lengths go together.
_UNMASKED = {"data2vec-audio", "wav2vec2-conformer"}
# Of a configuration, what decides features and is not in the weights' shapes.
_DECIDING = (
    *("conv_stride", "do_stable_layer_norm", "feat_extract_activation"),
    *(
        "feat_extract_norm",
        "hidden_act",
        "layer_norm_eps",
        "max_bucket_distance",
    ),
    *("model_type", "num_attention_heads", "position_embeddings_type"),
    *("left_max_position_embeddings", "right_max_position_embeddings"),
)
# wav2vec 2.0 BERT takes mel filters, two windows of 25 ms and 10 ms apart.
_MEL_HOP, _MEL_SAMPLES = 320, 560


class SpeechEncoder(FrozenEncoder):
    """Any of transformers' encoders that take raw audio.

    WavLM, HuBERT, wav2vec 2.0 and XLS-R, UniSpeech, data2vec-audio, the
    Conformer and wav2vec 2.0 BERT. Audio is normalised as the model's own
    feature extractor does.

    transformers pads a batch's audio, and some of these models (those with
    ``feat_extract_norm: group``, such as WavLM-base and HuBERT-base) normalise
    over time, padding included: an utterance's features depend on its
    batch-mates. Here the convolutions hear one utterance at a time, and only
    the transformer a batch, which is masked.

    Arguments
    ---------
    source : str
        Hub name or folder.
    save_path : str
        Where files from the hub are kept.
    layers, window, mean_over_time, dtype
        As for `FrozenEncoder`. Layers above those asked for are not computed.

    Example
    -------
    >>> from transformers import WavLMConfig, WavLMModel
    >>> from transformers import Wav2Vec2FeatureExtractor
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> size = dict(hidden_size=16, num_hidden_layers=2, conv_dim=(8,) * 7,
    ...     num_attention_heads=2, intermediate_size=32,
    ...     num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2)
    >>> WavLMModel(WavLMConfig(**size)).save_pretrained(folder)
    >>> _ = Wav2Vec2FeatureExtractor().save_pretrained(folder)
    >>> encoder = SpeechEncoder(folder)
    >>> wavs, wav_lens = torch.randn(2, 32000), torch.tensor([1.0, 0.5])
    >>> features, lens = encoder(wavs, wav_lens)
    >>> features.shape, (lens * 99).tolist()  # 2 s at 50 Hz, but for its end
    (torch.Size([2, 99, 16]), [99.0, 49.0])
    """

    def __init__(
        self,
        source,
        save_path="pretrained_models",
        layers=-1,
        window=30,
        mean_over_time=False,
        dtype="float32",
    ):
        folder, config, extractor = find_encoder(source, save_path)
        if config.model_type not in _MASKED | _UNMASKED:
            raise InputError(
                f"{WHAT}: {source} is a {config.model_type}, expected whisper, "
                f"{', '.join(sorted(_MASKED | _UNMASKED))}"
            )
        # What would shorten the output for another task.
        config.add_adapter = False
        hop, samples = _MEL_HOP, _MEL_SAMPLES
        if config.model_type != "wav2vec2-bert":
            hop, samples = _geometry(config.conv_kernel, config.conv_stride)
        super().__init__(
            source,
            hidden_size=config.hidden_size,
            n_layers=config.num_hidden_layers,
            layers=layers,
            samples_per_frame=hop,
            samples_of_frame=samples,
            window=window,
            mean_over_time=mean_over_time,
            dtype=dtype,
        )
        self._extractor = extractor
        self._n_layers = config.num_hidden_layers
        self.freeze(*self._load_model(folder, config))
        # Nobody hears them.
        self.model.encoder.layers = self.model.encoder.layers[
            : max(1, *self.layers)
        ]

    def _load_model(self, folder, config):
        model, _ = load_model(
            MODEL_MAPPING[type(config)],
            folder,
            WHAT,
            # Replaces what is masked in pretraining, and not in every file.
            used=lambda name: "masked_spec_embed" not in name,
            config=config,
            dtype=self.dtype_name,
        )
        names = {*model.state_dict()} - {"masked_spec_embed"}

        def used_name(name):
            """As the model calls it today; None for other tasks' weights."""
            name = name.removeprefix(f"{model.base_model_prefix}.")
            for old, new in (("g", "0"), ("v", "1")):
                name = name.replace(
                    f".weight_{old}", f".parametrizations.weight.original{new}"
                )
            return name if name in names else None

        return model, model_digest(folder, used_name)

    def settings(self):
        config, extractor = self.model.config, self._extractor
        return {
            "max_frames": self.max_frames,
            "model": {n: getattr(config, n, None) for n in _DECIDING},
            "extractor": [
                type(extractor).__name__,
                getattr(extractor, "do_normalize", None),
            ],
        }

    def _frames_per_pass(self):
        # Of unlike length, none goes with another.
        if self.model.config.model_type in _UNMASKED:
            return 0
        return super()._frames_per_pass()

    def hidden_states(self, pieces, frames):
        longest = max(frames)
        inputs = torch.nn.utils.rnn.pad_sequence(
            [
                self._hear(piece)[:count]
                for piece, count in zip(pieces, frames, strict=True)
            ],
            batch_first=True,
        )
        mask = None
        if min(frames) < longest:
            lengths = torch.tensor(frames, device=inputs.device)
            mask = torch.arange(longest, device=inputs.device)
            mask = mask < lengths[:, None]
        projected = self.model.feature_projection(inputs)
        if isinstance(projected, tuple):
            projected = projected[0]
        yield from self._layer_outputs(projected, mask).items()

    def _layer_outputs(self, projected, mask):
        """Those asked for, by number: seen as they go by."""
        layers, states = self.model.encoder.layers, {}

        def keep(number, state):
            if number in self.layers:
                # A layer may return what it attended to as well.
                states[number] = state[0] if isinstance(state, tuple) else state

        hooks = [
            layers[0].register_forward_pre_hook(
                lambda _, args, kwargs: keep(
                    0, args[0] if args else kwargs["hidden_states"]
                ),
                with_kwargs=True,
            )
        ]
        for number, layer in enumerate(layers, 1):
            hooks.append(
                layer.register_forward_hook(
                    lambda *seen, number=number: keep(number, seen[-1])
                )
            )
        try:
            output = self.model.encoder(projected, attention_mask=mask)
        finally:
            for hook in hooks:
                hook.remove()
        # After the final norm.
        keep(self._n_layers, output.last_hidden_state)
        return states

    def _hear(self, samples):
        """``[time]`` to the frames that the first layer is made of."""
        missing = max(self.samples_of_frame - len(samples), 0)
        if self.model.config.model_type == "wav2vec2-bert":
            heard = self._extractor(
                F.pad(samples, (0, missing)).float().cpu().numpy(),
                sampling_rate=SAMPLE_RATE,
                return_tensors="pt",
            )
            return heard.input_features[0].to(self.like_weights)
        # Half precision cannot hold the power of a quiet sound.
        samples = samples.float()
        if self._extractor.do_normalize:
            variance, mean = torch.var_mean(samples, correction=0)
            samples = (samples - mean) / (variance + 1e-7).sqrt()
        samples = F.pad(samples, (0, missing))
        return self.model.feature_extractor(
            samples[None].to(self.like_weights)
        )[0].T


def _geometry(kernels, strides):
    """Hop and extent, in samples, of a frame after such convolutions."""
    extent = 1
    for number, kernel in enumerate(kernels):
        extent += (kernel - 1) * math.prod(strides[:number])
    return math.prod(strides), extent
