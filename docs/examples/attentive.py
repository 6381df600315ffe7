"""A connector of one's own: attentive statistics, as speakers are verified by."""

from speechbrain.lobes.models.ECAPA_TDNN import AttentiveStatisticsPooling

from speechbrain_mser.lobes.connector import Connected, Connector


class AttentiveConnector(Connector):
    """One token: the mean and deviation of what is attended to."""

    def __init__(self, input_dim, output_dim, channels=64, **shared):
        super().__init__(input_dim, output_dim, 2 * input_dim, **shared)
        self.pooling = AttentiveStatisticsPooling(input_dim, channels)

    def forward(self, features, lens):
        """``[batch, layers, frames, dim]`` to what the LLM reads."""
        features, _ = self.read_features(features, lens)
        hidden = self.pooling(features.transpose(1, 2), lens).transpose(1, 2)
        return Connected(
            self.write_tokens(hidden), hidden[:, 0], self.read_meaning(hidden)
        )
