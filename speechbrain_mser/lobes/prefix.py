"""What every utterance's sequence begins with, read by the LLM once."""

import inspect

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer


class KnownPrefix:
    """Keys and values of a few tokens, for sequences that begin with them.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        A causal LM that remembers keys and values and nothing else.
    embeddings : torch.Tensor
        ``[1, tokens, hidden_size]``: of the tokens that it reads here.

    Example
    -------
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> llm = LlamaForCausalLM(LlamaConfig(vocab_size=6, hidden_size=16,
    ...     intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    ...     num_key_value_heads=2)).eval()
    >>> sequences = torch.randn(3, 7, 16)
    >>> sequences[:, :4] = sequences[:1, :4]
    >>> known = KnownPrefix(llm, sequences[:1, :4])
    >>> logits = llm(inputs_embeds=sequences[:, 4:], **known.read_only()).logits
    >>> whole = llm(inputs_embeds=sequences).logits
    >>> torch.allclose(logits, whole[:, 4:], atol=1e-5)
    True
    """

    def __init__(self, model, embeddings):
        # transformers 5.5 has the one name, later ones deprecate it.
        names = inspect.signature(model.forward).parameters
        self._name = "cache" if "cache" in names else "past_key_values"
        cache = DynamicCache()
        # Kept for training too, whoever asks first.
        with torch.inference_mode(False), torch.no_grad():
            model(
                inputs_embeds=embeddings.clone(),
                use_cache=True,
                logits_to_keep=1,
                **{self._name: cache},
            )
        self._layers = [_ReadOnlyLayer(x.keys, x.values) for x in cache.layers]

    def __len__(self):
        return self._layers[0].get_seq_length()

    def read_only(self):
        """Arguments of the LLM's ``forward``, for a batch of any size.

        Returns
        -------
        dict
            A cache into which nothing is written, so that a layer may also be
            computed twice (activation checkpointing).
        """
        return {self._name: Cache(layers=self._layers), "use_cache": True}

    def growing(self, batch):
        """Arguments of the LLM's ``generate``.

        Arguments
        ---------
        batch : int
            How many sequences.

        Returns
        -------
        dict
            A cache of its own, which remembers what is read.
        """
        cache = DynamicCache()
        for number, layer in enumerate(self._layers):
            cache.update(
                layer.keys.expand(batch, -1, -1, -1),
                layer.values.expand(batch, -1, -1, -1),
                number,
            )
        return {self._name: cache}


class _ReadOnlyLayer(DynamicLayer):
    """A layer's keys and values, ``[1, heads, tokens, width]``."""

    def __init__(self, keys, values):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states, value_states, *args, **kwargs):
        """Those of a batch, the new ones after the known; none is kept."""
        del args, kwargs
        return _append(self.keys, key_states), _append(
            self.values, value_states
        )


def _append(known, new):
    return torch.cat([known.expand(len(new), -1, -1, -1), new], dim=-2)
