"""Replay and distillation on mixed images (Verma et al. 2019): what a small memory lacks in images, mixtures stand for.

Few remembered images are seen many times in each update, in the same few views; a share of another image makes each of
them new every time, and new images and remembered ones meet within one. Everything learnt is kept. As each step shows
a batch twice over, in two shares, an update takes three quarters of the steps that others take (`docs/decisions/0037`).
"""

from continual.learning.strategies.replay_lwf import replay_lwf_plugins
from continual.learning.strategies.strategy import Strategy

REPLAY_MIX = Strategy(
    "replay_mix",
    "replay_lwf on mixtures of two images",
    replay_lwf_plugins,
    replays=True,
    distils=True,
    mixes=True,
    step_share=0.75,
)
