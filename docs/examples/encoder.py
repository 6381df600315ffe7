"""An encoder of one's own: SpeechBrain's mel filterbanks."""

from speechbrain.lobes.features import Fbank
from torch.nn.utils.rnn import pad_sequence

from speechbrain_mser.lobes.encoder import FrozenEncoder


class MelEncoder(FrozenEncoder):
    """80 mel bands every 10 ms: one hidden state, and no weights."""

    def __init__(self, save_path, **shared):
        super().__init__(
            hidden_size=80,
            n_layers=0,
            samples_per_frame=160,
            samples_of_frame=1,
            **shared,
        )
        self.freeze(Fbank(n_mels=80), digest="mel80")

    def settings(self):
        """All that decides the features, besides audio and weights."""
        return {"mel_bands": 80}

    def hidden_states(self, pieces, frames):
        """Each piece by itself: none depends on its batch-mates."""
        mels = [self.model(piece[None])[0] for piece in pieces]
        yield 0, pad_sequence(mels, batch_first=True)
