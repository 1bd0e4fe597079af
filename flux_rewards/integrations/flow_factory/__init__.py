"""Flow-Factory: rewards as its reward models, and its reward models as rewards.

The contract is that of Flow-Factory at a0b2bc5 (``rewards/abc.py``, ``rewards/reward_processor.py``): a reward model is
called by keyword with the fields that its signature names, each a list, a batch at a time, or one whole group.
"""

from flux_rewards.integrations.flow_factory.foreign import FlowFactoryModel, from_flow_factory
from flux_rewards.integrations.flow_factory.functions import reward_model_class

__all__ = ["FlowFactoryModel", "from_flow_factory", "reward_model_class"]
