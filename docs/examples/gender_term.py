"""A further term: the speaker's gender, where the manifest has it."""

import torch

from speechbrain_mser.brain import EmotionBrain, Term


class GenderBrain(EmotionBrain):
    def compute_terms(self, predictions, batch, stage):
        genders = {"female": 0, "male": 1}
        numbers = [genders.get(gender, -100) for gender in batch.gender]
        loss = torch.nn.functional.cross_entropy(
            self.modules.gender(predictions.pooled),
            torch.tensor(numbers, device=self.device),
            reduction="sum",
        )
        known = len(numbers) - numbers.count(-100)
        terms = super().compute_terms(predictions, batch, stage)
        return terms | {"gender": Term(loss / max(known, 1), 0.5, known)}
