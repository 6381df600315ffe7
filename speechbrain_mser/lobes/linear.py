"""The linear connector: the baseline that the Q-Former must beat."""

import torch
import torch.nn.functional as F

from speechbrain_mser.lobes.connector import Connected, Connector


class LinearConnector(Connector):
    """Average the features in equal stretches of time and project them.

    The same face as `EmotionQFormer`, without attention: what remains shows
    how much of a result the Q-Former is worth.

    Arguments
    ---------
    input_dim : int
        Width of the encoder's features.
    output_dim : int
        Width of the LLM's embeddings.
    n_queries : int
        Number of stretches, hence of tokens for the LLM.
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

    Example
    -------
    >>> connector = LinearConnector(input_dim=16, output_dim=24, n_queries=4)
    >>> heard = connector(torch.randn(2, 50, 16), torch.tensor([1.0, 0.5]))
    >>> heard.tokens.shape, heard.pooled.shape
    (torch.Size([2, 4, 24]), torch.Size([2, 24]))
    """

    def __init__(
        self,
        input_dim,
        output_dim,
        n_queries=32,
        n_input_layers=1,
        layer_join="mix",
        standardize=True,
        output_rms=None,
        hear_meaning=False,
    ):
        super().__init__(
            input_dim=input_dim,
            output_dim=output_dim,
            n_input_layers=n_input_layers,
            layer_join=layer_join,
            standardize=standardize,
            output_rms=output_rms,
            hear_meaning=hear_meaning,
        )
        self.n_queries = n_queries
        self.embedding_dim = output_dim

    def forward(self, features, lens):
        """Connect a batch.

        Arguments
        ---------
        features : torch.Tensor
            ``[batch, frames, dim]``, or ``[batch, layers, frames, dim]``.
        lens : torch.Tensor
            ``[batch]``, relative lengths.

        Returns
        -------
        Connected
            Pooled is what the projection makes of the utterance, without its
            bias, which all utterances share: ``[batch, output_dim]``.
        """
        features, mask = self.read_features(features, lens)
        # Stretch q of an utterance with n frames runs from floor(q n / Q) to
        # ceil((q + 1) n / Q), as in adaptive average pooling: never empty.
        n = mask.sum(1)[:, None, None]  # [batch, 1, 1]
        q = torch.arange(self.n_queries, device=features.device)[:, None]
        frame = torch.arange(features.shape[1], device=features.device)
        first = (q * n) // self.n_queries
        last = -((-(q + 1) * n) // self.n_queries)
        member = ((frame >= first) & (frame < last)).to(features.dtype)
        # [batch, n_queries, frames] @ [batch, frames, dim]
        hidden = member @ features / member.sum(-1, keepdim=True)
        pooled = F.linear(hidden.mean(1), self.output.weight)
        return Connected(
            self.write_tokens(hidden), pooled, self.read_meaning(hidden)
        )
