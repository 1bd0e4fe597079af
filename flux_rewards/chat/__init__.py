"""Chat models behind an OpenAI-compatible endpoint: what is sent, how many at once, and what comes back."""
