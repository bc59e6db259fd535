"""What the methods are composed of: plain torch, knowing neither Dassl nor configurations."""
