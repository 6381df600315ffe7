"""A recogniser up to the LLM as ONNX, for those without torch."""

import json
import logging
import os
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import PARTIAL, to_disk, write_text
from speechbrain_mser.files.fingerprints import file_digest
from speechbrain_mser.files.tables import read_json
from speechbrain_mser.inference.onnx_graphs import ConnectorGraph
from speechbrain_mser.lobes.whisper import WhisperEncoder
from speechbrain_mser.lobes.whisper_graph import WhisperGraph

# What says that an export is whole, and what it is.
DESCRIPTION = "recognizer.json"
ENCODER, CONNECTOR = "encoder.onnx", "connector.onnx"
# To be raised when a reader of the description has to be another one.
FORMAT = 1
# Its exporter is what was tried.
TRIED = "torch 2.13"


def export_onnx(recognizer, folder):
    """Export a recogniser; see `EmotionRecognizer.export_onnx`."""
    _check(recognizer)
    folder = Path(folder)
    partial = folder / f"{PARTIAL}onnx"
    words = recognizer.labels()
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}") from None
    try:
        fingerprint = json.loads(
            json.dumps(recognizer.mods.encoder.fingerprint())
        )
        encoder = _kept_encoder(folder, fingerprint)
        if encoder is None:
            encoder = _export_encoder(recognizer.mods.encoder, partial)
        description = {
            "format": FORMAT,
            "sampling_rate": SAMPLE_RATE,
            "labels": words,
            "encoder": {**encoder, "fingerprint": fingerprint},
            "connector": _export_connector(recognizer, words, partial),
            "llm": _describe_llm(recognizer.mods.llm, words),
            "recognizer": recognizer.describe(),
        }
        # A folder without its description holds no export: from here to the
        # end this one has none.
        (folder / DESCRIPTION).unlink(missing_ok=True)
        for path in sorted(partial.iterdir()):
            to_disk(path)
            os.replace(path, folder / path.name)
        text = json.dumps(description, indent=1)
        write_text(folder / DESCRIPTION, text + "\n")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(recognizer):
    """Refuse what has no such graph, before anything is computed."""
    encoder = recognizer.mods.encoder
    if type(encoder) is not WhisperEncoder:
        raise InputError(
            f"the encoder {encoder.source} is no Whisper: only Whisper's "
            "encoders are exported, others have other front ends"
        )
    if encoder.dtype_name != "float32":
        raise InputError(
            f"frozen_dtype is {encoder.dtype_name}, and what is exported "
            "computes in float32: load the recogniser with "
            'overrides={"frozen_dtype": "float32"}'
        )
    if torch.device(recognizer.device).type != "cpu":
        raise InputError(
            f"the recogniser is on {recognizer.device}: load it with "
            'run_opts={"device": "cpu"}, what is exported runs anywhere'
        )
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError(
            "exporting needs onnx and onnxscript: "
            "pip install 'speechbrain-mser[onnx]'"
        ) from None


def _kept_encoder(folder, fingerprint):
    """The description of an encoder that an earlier export left, or None.

    It is the largest part, and stays when a connector is trained anew.
    """
    try:
        kept = read_json(folder / DESCRIPTION)["encoder"]
        same = kept.pop("fingerprint") == fingerprint and all(
            file_digest(folder / name).hex() == digest
            for name, digest in kept["files"].items()
        )
    except (InputError, OSError, KeyError, AttributeError, TypeError):
        return None
    return kept if same else None


def _export_encoder(encoder, folder):
    # Of several windows: what is one in an example is one in the graph.
    time = encoder.max_frames * encoder.samples_per_frame * 5 // 2
    wavs, lengths = torch.zeros(2, time), torch.tensor([time, time // 2])
    return _export(
        WhisperGraph(encoder),
        folder / ENCODER,
        {"wavs": wavs, "lengths": lengths},
        {"wavs": ["batch", "time"], "lengths": ["batch"]},
        ["features", "frames"],
    )


def _export_connector(recognizer, words, folder):
    encoder, llm = recognizer.mods.encoder, recognizer.mods.llm
    connector = recognizer.mods.connector
    shape = (2, encoder.n_output_layers, 9, encoder.hidden_size)
    if encoder.mean_over_time:
        shape = (*shape[:2], 1, shape[3])
    axes = ["batch", None, None if encoder.mean_over_time else "frames", None]
    inputs = {
        "features": torch.zeros(shape),
        "frames": torch.ones(2, dtype=torch.long),
    }
    dynamic = {"features": axes, "frames": ["batch"]}
    outputs = ["tokens", "embedding"]
    if connector.meaning is not None:
        outputs.append("meaning")
    defaults = {}
    if connector.standardizer is not None:
        heard = connector.standardizer
        if recognizer.adaptation is not None:
            heard = recognizer.adaptation.own
        defaults = {"mean": heard.mean, "std": heard.std}
    if llm.token_mixture:
        defaults["words"] = llm.word_embeddings(words)
        dynamic["words"] = ["words", None]
        outputs += ["mixtures", "nearness"]
    rms = llm.embedding_rms if llm.token_mixture else None
    return _export(
        ConnectorGraph(connector, rms),
        folder / CONNECTOR,
        {**inputs, **defaults},
        dynamic,
        outputs,
        [*defaults],
    )


def _export(graph, path, inputs, dynamic, outputs, optional=()):
    """Write a graph, and describe it.

    Arguments
    ---------
    graph : torch.nn.Module
        Of tensors.
    path : pathlib.Path
        Where to; weights beyond 2 GB go into a file beside it.
    inputs : dict
        Name to an example, in the order that the graph takes them.
    dynamic : dict
        Name of an input to its axes: a name where it may have any length.
    outputs : list of str
        Names.
    optional : list of str
        Inputs whose examples are taken where none is given.

    Returns
    -------
    dict
        "files", name to digest; "inputs" and "outputs", name to type and
        shape, and which inputs are optional.
    """
    any_length = torch.export.Dim.DYNAMIC
    shapes = {
        name: {
            axis: any_length
            for axis, length in enumerate(dynamic.get(name, ()))
            if length is not None
        }
        for name in inputs
    }
    with _quiet(), torch.no_grad():
        try:
            program = torch.export.export(
                graph.eval(), (), inputs, dynamic_shapes=shapes
            )
            made = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[*inputs],
                output_names=outputs,
                verbose=False,
                # Whoever runs it does that, for his machine.
                optimize=False,
            )
        # Whatever an exporter of another version cannot do.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()
            raise InputError(
                f"torch {torch.__version__} could not export {path.stem} "
                f"({reason[0]}); {TRIED} can"
            ) from None
    described = {}
    for kind, values in (
        ("inputs", made.model.graph.inputs),
        ("outputs", made.model.graph.outputs),
    ):
        described[kind] = {
            value.name: {
                "type": value.dtype.name.lower(),
                "shape": _axes(value, dynamic.get(value.name)),
            }
            for value in values
        }
    for value in made.model.graph.inputs:
        if value.name in optional:
            _default(made.model.graph, value, inputs[value.name])
            described["inputs"][value.name]["optional"] = True
    made.save(path)
    described["files"] = {
        file.name: file_digest(file).hex()
        for file in sorted(path.parent.glob(f"{path.name}*"))
    }
    return described


def _axes(value, names):
    """A shape, with names for what may have any length."""
    axes = [d if isinstance(d, int) else None for d in value.shape]
    names = names or ["batch", *[None] * len(axes[1:])]
    return [
        axis if axis is not None else name or "any"
        for axis, name in zip(axes, names, strict=True)
    ]


def _default(graph, value, tensor):
    """Have an input take a value where none is given."""
    import onnx_ir

    array = tensor.detach().float().numpy()
    value.const_value = onnx_ir.tensor(array, name=value.name)
    graph.register_initializer(value)


def _describe_llm(llm, words):
    """What an LLM elsewhere has to be given.

    Its `inputs_embeds` are the embeddings of ``before``, then the tokens (the
    mixtures, where ``token_mixture``), then the embeddings of ``after`` and of
    a word. A word's score is the sum of the log-probabilities of its ids.
    """
    around = llm._around()
    return {
        **llm.describe(),
        "lora_rank": llm.lora_rank,
        "token_mixture": llm.token_mixture,
        "before": around.before,
        "after": around.after,
        # With the end token, which is part of what is scored
        "words": {word: llm.word_tokens(word) for word in words},
    }


@contextmanager
def _quiet():
    """Without what the exporter notes of every operation, at some cost."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
