"""The methods' models: what is learned and how logits come of it. They need neither Dassl nor a configuration."""
