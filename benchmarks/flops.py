"""How many floating-point operations a model's products need, by its shape.

Counted are the products of matrices, as 2 for each multiplication and
addition; norms, activations and softmax are not.

- A linear layer from n to m: ``2 n m`` for each row.
- Attention of width w: ``4 w`` for each pair of a query and a key that it may
  see (the score, and the sum over values). A causal position sees itself and
  what is before it.
- A convolution of kernel k from n to m: ``2 k n m`` for each frame it puts
  out (`encode.flops` counts Whisper's encoder).
- Backward: as much again for the gradient of the input, and, where weights are
  trained, as much again for theirs. Attention's two products have a gradient
  for each of their inputs.

So an LLM of P weights in its layers, frozen, takes 2 P for each token forward
and 2 P backward, and a connector, trained, 6 P. What is computed a second time
to save memory is not counted: it is a cost, not an answer.
"""


def qformer_flops(qformer, batch, frames):
    """Of a Q-Former that reads a batch, forward; thrice that to train it.

    Arguments
    ---------
    qformer : EmotionQFormer
        Whose shape counts.
    batch : int
        Utterances.
    frames : int
        Of each.

    Returns
    -------
    int
        FLOPs.

    Example
    -------
    >>> from speechbrain_mser.lobes.qformer import EmotionQFormer
    >>> qformer = EmotionQFormer(
    ...     input_dim=16, output_dim=24, n_queries=4, query_dim=8, n_layers=1,
    ...     hidden_size=32, n_heads=2, intermediate_size=64,
    ... )
    >>> # four queries: themselves, feed-forward, speech, output; their lift
    >>> 4 * (4352 + 4096 + 2048 + 768) + 1024
    46080
    >>> qformer_flops(qformer, batch=1, frames=0) // 2
    46080
    """
    config = qformer.model.config
    width, queries = config.hidden_size, qformer.n_queries
    crossing = -(-config.num_hidden_layers // config.cross_attention_frequency)
    itself = 4 * width**2 + 2 * queries * width
    speech = 2 * width**2 + 2 * frames * width
    ffn = 2 * width * config.intermediate_size
    per_query = (
        config.num_hidden_layers * (itself + ffn)
        + crossing * speech
        + width * qformer.output_dim
    )
    keys_and_values = crossing * 2 * config.encoder_hidden_size * width
    # The queries are the same for all utterances until they meet speech, but
    # only their lift to the hidden size is computed once.
    lift = queries * qformer.queries.shape[-1] * width
    return 2 * (batch * (queries * per_query + frames * keys_and_values) + lift)


def llama_flops(config, tokens, answers, backward=False):
    """Of a frozen LLM that reads one sequence.

    Arguments
    ---------
    config : transformers.LlamaConfig
        Its shape.
    tokens : int
        The sequence's length.
    answers : int
        At how many positions logits are asked for.
    backward : bool
        Count the gradient of its input too.

    Returns
    -------
    int
        FLOPs.

    Example
    -------
    >>> from transformers import LlamaConfig
    >>> config = LlamaConfig(vocab_size=10, hidden_size=8, intermediate_size=16,
    ...     num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
    >>> llama_flops(config, tokens=1, answers=1) // 2  # 576 + 16 + 80
    672
    """
    linear = config.num_hidden_layers * sum(
        wide * narrow for wide, narrow in layer_shapes(config)
    )
    width = config.num_attention_heads * config.head_dim
    pairs = tokens * (tokens + 1) // 2
    attention = config.num_hidden_layers * 2 * pairs * width
    head = answers * config.hidden_size * config.vocab_size
    products = tokens * linear + head
    if backward:
        return 2 * (2 * products + 3 * attention)
    return 2 * (products + attention)


def layer_shapes(config):
    """Inputs and outputs of the linear layers in a layer of a LLaMA.

    Arguments
    ---------
    config : transformers.LlamaConfig
        Its shape.

    Returns
    -------
    list of tuple of int
        Query, key, value, output, gate, up, down.
    """
    hidden, ffn = config.hidden_size, config.intermediate_size
    width = config.num_attention_heads * config.head_dim
    narrow = config.num_key_value_heads * config.head_dim
    return [
        (hidden, width),
        (hidden, narrow),
        (hidden, narrow),
        (width, hidden),
        (hidden, ffn),
        (hidden, ffn),
        (ffn, hidden),
    ]
