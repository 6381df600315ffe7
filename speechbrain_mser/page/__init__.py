"""A page on which recordings are recognised, for showing; needs Gradio."""

from speechbrain_mser.page.layout import build_page, serve

__all__ = ["build_page", "serve"]
