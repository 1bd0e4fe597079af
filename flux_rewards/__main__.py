"""``python -m flux_rewards`` is the command ``flux-rewards``."""

from __future__ import annotations

from flux_rewards.cli import main

if __name__ == "__main__":
    main()
