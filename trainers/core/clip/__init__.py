"""What is done with a CLIP: its towers, prompts, features, losses. Plain torch, without Dassl or configurations."""
