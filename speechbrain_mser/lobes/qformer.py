"""The Emotion Q-Former: learned queries that read emotion from speech."""

import torch
from speechbrain.utils.logger import get_logger
from torch import nn
from transformers import (
    AutoConfig,
    BertModel,
    Blip2QFormerConfig,
    Blip2QFormerModel,
)

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.connector import Connected, Connector
from speechbrain_mser.lobes.hub import find_model, load_model

logger = get_logger(__name__)

# BERT-base, for Q-Formers that start from nothing.
DEFAULT_SHAPE = {
    "n_layers": 12,
    "hidden_size": 768,
    "n_heads": 12,
    "intermediate_size": 3072,
}


class EmotionQFormer(Connector):
    """Queries that attend to the encoder's features and become LLM tokens.

    Section IV-A of the paper: learnable queries pass through transformer
    layers initialised from BERT, look at the speech by cross-attention, and
    are projected to the LLM's width. The layers are
    `transformers.Blip2QFormerModel`.

    Arguments
    ---------
    input_dim : int
        Width of the encoder's features.
    output_dim : int
        Width of the LLM's embeddings.
    n_queries : int
        Number of queries, hence of tokens for the LLM: the main speed knob.
    query_dim : int
        Width of the learned queries ("query embedding size", 256 in section
        V-B), lifted to the hidden size where that differs.
    bert_source : str, optional
        Hub name or folder of a BERT whose layers the Q-Former starts from;
        None starts at random.
    save_path : str
        Where files from the hub are kept.
    n_layers : int, optional
        Number of layers; by default those of the BERT, else 12.
    hidden_size : int, optional
        By default the BERT's, else 768.
    n_heads : int, optional
        By default the BERT's, else 12.
    intermediate_size : int, optional
        By default the BERT's, else 3072.
    cross_attention_every : int
        Cross-attention in layers 0, n, 2n ...
    dropout : float
        In the layers.
    n_input_layers : int
        Number of encoder layers that come in.
    layer_join : str
        "mix" or "concat", as for `Connector`.
    standardize : bool
        Whether features are standardised with the training data's statistics.
    output_rms : float, optional
        Root mean square that the tokens for the LLM start with.
    hear_meaning : bool
        As for `Connector`.

    Attributes
    ----------
    bert_report : dict
        Parameter of this Q-Former to the BERT parameter that it came from;
        None where BERT has no such parameter and it is new.

    Example
    -------
    >>> qformer = EmotionQFormer(
    ...     input_dim=16, output_dim=24, n_queries=4, query_dim=8, n_layers=2,
    ...     hidden_size=32, n_heads=2, intermediate_size=64,
    ... )
    >>> heard = qformer(torch.randn(2, 50, 16), torch.tensor([1.0, 0.5]))
    >>> heard.tokens.shape, heard.pooled.shape
    (torch.Size([2, 4, 24]), torch.Size([2, 32]))
    """

    def __init__(
        self,
        input_dim,
        output_dim,
        n_queries=32,
        query_dim=256,
        bert_source=None,
        save_path="pretrained_models",
        n_layers=None,
        hidden_size=None,
        n_heads=None,
        intermediate_size=None,
        cross_attention_every=2,
        dropout=0.1,
        n_input_layers=1,
        layer_join="mix",
        standardize=True,
        output_rms=None,
        hear_meaning=False,
    ):
        wanted = {
            "n_layers": n_layers,
            "hidden_size": hidden_size,
            "n_heads": n_heads,
            "intermediate_size": intermediate_size,
        }
        shape = _shape(bert_source, save_path, wanted)
        if shape["hidden_size"] % shape["n_heads"]:
            raise InputError(
                f"the Q-Former's width {shape['hidden_size']} is no multiple "
                f"of its {shape['n_heads']} heads (qformer_hidden, "
                "qformer_heads)"
            )
        super().__init__(
            input_dim=input_dim,
            output_dim=output_dim,
            hidden_size=shape["hidden_size"],
            n_input_layers=n_input_layers,
            layer_join=layer_join,
            standardize=standardize,
            output_rms=output_rms,
            hear_meaning=hear_meaning,
        )
        self.n_queries = n_queries
        self.shape = shape
        self.model = Blip2QFormerModel(
            Blip2QFormerConfig(
                num_hidden_layers=shape["n_layers"],
                hidden_size=shape["hidden_size"],
                num_attention_heads=shape["n_heads"],
                intermediate_size=shape["intermediate_size"],
                encoder_hidden_size=self.joined_dim,
                cross_attention_frequency=cross_attention_every,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
            )
        )
        self.queries = nn.Parameter(torch.empty(1, n_queries, query_dim))
        nn.init.normal_(self.queries, std=0.02)
        self.lift = (
            # Without a bias: it would outweigh the small queries, and all of
            # them would start nearly the same.
            nn.Linear(query_dim, shape["hidden_size"], bias=False)
            if query_dim != shape["hidden_size"]
            else nn.Identity()
        )
        self.bert_report = dict.fromkeys(self.model.state_dict())
        if bert_source is not None:
            self.bert_report = load_bert(self.model, bert_source, save_path)

    def forward(self, features, lens):
        """Connect a batch.

        Arguments
        ---------
        features : torch.Tensor
            ``[batch, frames, dim]``, or ``[batch, layers, frames, dim]``.
        lens : torch.Tensor
            ``[batch]``, relative lengths; frames beyond are never attended.

        Returns
        -------
        Connected
            Pooled is the mean over the queries, ``[batch, hidden_size]``.
        """
        features, mask = self.read_features(features, lens)
        queries = self.lift(self.queries).expand(features.shape[0], -1, -1)
        hidden = self.model(
            query_embeds=queries,
            encoder_hidden_states=features,
            encoder_attention_mask=mask,
        ).last_hidden_state  # [batch, n_queries, hidden_size]
        return Connected(
            self.write_tokens(hidden),
            hidden.mean(1),
            self.read_meaning(hidden),
        )

    def initialised(self):
        """The layers' shape in place of the BERT that it came from."""
        return {"bert_source": None, **self.shape}


def _shape(bert_source, save_path, wanted):
    """The layers' sizes: what is asked for, else BERT's, else BERT-base's."""
    if bert_source is None:
        return {
            name: value if value is not None else DEFAULT_SHAPE[name]
            for name, value in wanted.items()
        }
    config = AutoConfig.from_pretrained(
        _find_bert(bert_source, save_path), trust_remote_code=False
    )
    if config.model_type != "bert":
        raise InputError(
            f"the Q-Former starts from a BERT; {bert_source} is a "
            f"{config.model_type}"
        )
    bert = {
        "n_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "n_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
    }
    # Fewer layers are BERT's lowest; other widths cannot come from it.
    fixed = {k: v for k, v in wanted.items() if v is not None}
    differ = {
        name: value
        for name, value in fixed.items()
        if value != bert[name]
        and not (name == "n_layers" and value < bert[name])
    }
    if differ:
        raise InputError(
            f"the Q-Former cannot start from {bert_source}: asked for "
            f"{differ}, the BERT has {bert}; leave these unset, or set "
            "bert_hub to null to start at random"
        )
    return {**bert, **fixed}


def load_bert(qformer, bert_source, save_path="pretrained_models"):
    """Copy a BERT's layers into a Q-Former's.

    The trap: the Q-Former's feed-forward layers for queries
    (``intermediate_query``, ``output_query``) have no namesake in BERT. They
    are BERT's ``intermediate`` and ``output``; where that mapping is left
    out, half of the "BERT-initialised" parameters are random. Cross-attention
    has no source in BERT and stays new.

    Arguments
    ---------
    qformer : transformers.Blip2QFormerModel
        The layers to fill, of the BERT's widths.
    bert_source : str
        Hub name or folder.
    save_path : str
        Where files from the hub are kept.

    Returns
    -------
    dict
        Parameter of the Q-Former to the BERT parameter copied into it, None
        for those that are new.

    Raises
    ------
    InputError
        The BERT's files have not all of these parameters.
    """
    state = qformer.state_dict()
    report = {name: _bert_name(name) for name in state}
    bert, _ = load_model(
        BertModel,
        _find_bert(bert_source, save_path),
        "the Q-Former's BERT (bert_hub)",
        used=set(report.values()).__contains__,
        add_pooling_layer=False,
        dtype=torch.float32,
    )
    copied = bert.state_dict()
    for name, source in report.items():
        if source is not None:
            state[name] = copied[source]
    qformer.load_state_dict(state)
    new = [name for name, source in report.items() if source is None]
    logger.info(
        "Q-Former from %s: %d parameters loaded, %d new (%s)",
        bert_source,
        len(report) - len(new),
        len(new),
        "cross-attention" if new else "none",
    )
    return report


def _find_bert(source, save_path):
    return find_model(source, save_path, "the Q-Former's BERT", "bert_hub")


def _bert_name(name):
    """BERT's name for a Q-Former parameter; None when it has none."""
    # Example: encoder.layer.0.output_query.dense.weight
    if ".crossattention." in name:
        return None
    if name.startswith("layernorm."):
        return name.replace("layernorm.", "embeddings.LayerNorm.")
    for ours, theirs in (
        (".attention.attention.", ".attention.self."),
        (".intermediate_query.", ".intermediate."),
        (".output_query.", ".output."),
    ):
        name = name.replace(ours, theirs)
    return name
