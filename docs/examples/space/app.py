"""The page as a Space of the hub: copy this folder there."""

from speechbrain_mser.inference import EmotionRecognizer
from speechbrain_mser.page import serve

if __name__ == "__main__":
    serve(EmotionRecognizer.from_hparams("open"), host="0.0.0.0")
