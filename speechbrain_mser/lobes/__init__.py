"""The lobes: one frozen encoder, one trained connector, one frozen LLM."""

import pydoc

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.encoder import FrozenEncoder, find_encoder
from speechbrain_mser.lobes.front_end import FrontEnd
from speechbrain_mser.lobes.linear import LinearConnector
from speechbrain_mser.lobes.qformer import EmotionQFormer
from speechbrain_mser.lobes.speech_encoder import SpeechEncoder
from speechbrain_mser.lobes.whisper import WhisperEncoder


def build_encoder(
    source,
    save_path="pretrained_models",
    layers=-1,
    window=30,
    pad_to_30s=False,
    mean_over_time=False,
    dtype="float32",
    encoder_class=None,
    trim_silence=None,
    speech_level=None,
):
    """The encoder that a model's own configuration asks for.

    Arguments
    ---------
    source : str
        Hub name or folder: a Whisper, or another of transformers' encoders of
        raw audio.
    save_path : str
        Where files from the hub are kept.
    layers, window, mean_over_time, dtype
        As for `FrozenEncoder`.
    pad_to_30s : bool
        As for `WhisperEncoder`; no other encoder is padded.
    encoder_class : str, optional
        The dotted name of a `FrozenEncoder` of one's own, built with the
        other arguments.
    trim_silence, speech_level : float, optional
        As for `FrontEnd`, through which every utterance goes before the
        encoder; with neither, it hears the utterance as it is.

    Returns
    -------
    FrozenEncoder
        `WhisperEncoder`, `SpeechEncoder`, or one's own.

    Raises
    ------
    InputError
        It cannot be had, or is of no such kind.
    """
    shared = {
        "source": source,
        "save_path": save_path,
        "layers": layers,
        "window": window,
        "mean_over_time": mean_over_time,
        "dtype": dtype,
    }
    if encoder_class is None:
        kind, own = find_encoder(source, save_path)[1].model_type, SpeechEncoder
        if kind == "whisper":
            own = WhisperEncoder
            shared["pad_to_30s"] = pad_to_30s
    else:
        kind, own = encoder_class, pydoc.locate(encoder_class)
        if not isinstance(own, type) or not issubclass(own, FrozenEncoder):
            raise InputError(
                f"encoder_class is {encoder_class!r}, expected the dotted name "
                "of a FrozenEncoder (speechbrain_mser.lobes.encoder) in a "
                "module that Python finds"
            )
    if pad_to_30s and own is not WhisperEncoder:
        raise InputError(f"pad_to_30s is for a Whisper; {source} is a {kind}")
    encoder = own(**shared)
    if trim_silence is not None or speech_level is not None:
        encoder.front_end = FrontEnd(trim_silence, speech_level)
    return encoder


def build_connector(
    connector_type,
    input_dim,
    output_dim,
    n_queries,
    n_input_layers=1,
    layer_join="mix",
    standardize=True,
    output_rms=None,
    hear_meaning=False,
    **qformer,
):
    """The connector that a YAML's ``connector_type`` names.

    Arguments
    ---------
    connector_type : str
        "qformer" or "linear".
    input_dim : int
        Width of the encoder's features.
    output_dim : int
        Width of the LLM's embeddings.
    n_queries : int
        Number of tokens for the LLM.
    n_input_layers : int
        Number of encoder layers that come in.
    layer_join : str
        "mix" or "concat", as for `Connector`.
    standardize : bool
        Whether features are standardised with the training data's statistics.
    output_rms : float, optional
        Root mean square that the tokens for the LLM start with.
    hear_meaning : bool
        Whether it hears pleasure, arousal and dominance, too, as `Connector`.
    **qformer : dict
        Arguments that only `EmotionQFormer` has; a linear connector needs
        none of them.

    Returns
    -------
    Connector
        The connector.

    Example
    -------
    >>> type(build_connector("linear", 8, 8, n_queries=2)).__name__
    'LinearConnector'
    """
    shared = {
        "input_dim": input_dim,
        "output_dim": output_dim,
        "n_queries": n_queries,
        "n_input_layers": n_input_layers,
        "layer_join": layer_join,
        "standardize": standardize,
        "output_rms": output_rms,
        "hear_meaning": hear_meaning,
    }
    if connector_type == "linear":
        return LinearConnector(**shared)
    if connector_type == "qformer":
        return EmotionQFormer(**shared, **qformer)
    raise InputError(
        f"connector_type is {connector_type!r}, expected 'qformer' or 'linear'"
    )
