"""The lobes: one frozen encoder, one trained connector, one frozen LLM."""

from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.linear import LinearConnector
from speechbrain_mser.lobes.qformer import EmotionQFormer


def build_connector(
    connector_type,
    input_dim,
    output_dim,
    n_queries,
    n_input_layers=1,
    layer_join="mix",
    standardize=True,
    output_rms=None,
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
    }
    if connector_type == "linear":
        return LinearConnector(**shared)
    if connector_type == "qformer":
        return EmotionQFormer(**shared, **qformer)
    raise InputError(
        f"connector_type is {connector_type!r}, expected 'qformer' or 'linear'"
    )
