"""Zero-shot emotion recognition across languages, as a SpeechBrain plugin.

Frozen Whisper, trained Emotion Q-Former, frozen LLaMA that says the emotion
word: an implementation of "Large Language Models Meet Contrastive Learning:
Zero-Shot Emotion Recognition Across Languages" (arXiv 2503.21806).
"""

__version__ = "0.1.0"
