"""Ranking losses: modules called as ``loss(scores, labels, mask)`` on padded lists of logits.

They know nothing of models; `CrossEncoderLoss` makes any of them a loss for the trainer of
sentence-transformers.
"""

from __future__ import annotations

from retrievekit.train.losses.adapter import CrossEncoderLoss
from retrievekit.train.losses.base import ListLoss
from retrievekit.train.losses.bce import BCELoss
from retrievekit.train.losses.first import FirstLoss
from retrievekit.train.losses.info_nce import InfoNCELoss
from retrievekit.train.losses.lambda_loss import LambdaLoss
from retrievekit.train.losses.lipo import LiPOLambdaLoss
from retrievekit.train.losses.list_mle import ListMLELoss
from retrievekit.train.losses.list_net import ListNetLoss
from retrievekit.train.losses.pld import PLDLoss
from retrievekit.train.losses.plist_mle import PListMLELoss
from retrievekit.train.losses.rank_net import RankNetLoss

__all__ = [
    "BCELoss",
    "CrossEncoderLoss",
    "FirstLoss",
    "InfoNCELoss",
    "LambdaLoss",
    "LiPOLambdaLoss",
    "ListLoss",
    "ListMLELoss",
    "ListNetLoss",
    "PLDLoss",
    "PListMLELoss",
    "RankNetLoss",
]
