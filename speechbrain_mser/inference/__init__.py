"""Recognise emotions with a trained system."""

from speechbrain_mser.inference.heard_speech import HeardSpeech
from speechbrain_mser.inference.recognizer import EmotionRecognizer

__all__ = ["EmotionRecognizer", "HeardSpeech"]
